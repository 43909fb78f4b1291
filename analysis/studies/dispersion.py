# %% [markdown]
# # Dispersion: how much spread in costs the contest tolerates
#
# A thousand nodes with the same mean cost and increasing spread, from five distributions scaled to
# equal coefficients of variation (standard deviation / mean), under the same payment cap. How many
# nodes are active, with what epsilon, and what happens to welfare?

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import band, begin, format_range, summary, table
from scipy import stats

from fcfn_abm.report.theme import theme

# %%
study = begin("dispersion")
frame = study.frame()


# %% [markdown]
# ## The coefficient of variation of each distribution


# %%
def variation(law):
    """Return standard deviation / mean of the distribution in a table of the scenario."""
    match law:
        case {"kind": "uniform", "low": low, "high": high}:
            costs = stats.uniform(low, high - low)
            return costs.std() / costs.mean()
        case {"kind": "pareto", "exponent": exponent}:
            return 1 / np.sqrt(exponent * (exponent - 2))
        case {"kind": "lognormal", "sigma": sigma}:
            return np.sqrt(np.expm1(sigma**2))
        case {"kind": "two-group", "low": low, "high": high, "share_high": share}:
            return np.sqrt(share * (1 - share)) * (high - low) / (low + share * (high - low))
        case {"kind": "outliers", "sigma": sigma, "share": share, "factor": factor}:
            two = np.sqrt(share * (1 - share)) * (factor - 1) / (1 + share * (factor - 1))
            return np.sqrt(np.exp(sigma**2) * (1 + two**2) - 1)
    raise ValueError(law)


# %%
NAMES = {
    "two-group": "two equal groups",
    "pareto": "Pareto",
    "uniform": "uniform",
    "outliers": "log-normal, a tenth costlier",
    "lognormal": "log-normal",
}
LAWS = list(NAMES.values())
laws = [json.loads(text) for text in frame["population.rho"]]
frame["law"] = pd.Categorical([NAMES[law["kind"]] for law in laws], LAWS)
frame["variation"] = [float(f"{variation(law):.2g}") for law in laws]
measures = [
    "n_active",
    "participation",
    "mean_epsilon",
    "node_utility",
    "server_utility",
    "welfare",
]
means = summary(frame, ["law", "variation"], measures)
means

# %%
PANELS = {
    "participation": ("Participation", "share of the nodes"),
    "mean_epsilon": ("Mean ε", "mean ε of the active nodes"),
    "node_utility": ("Utility of all nodes", "currency"),
    "server_utility": ("Utility of the server", "currency"),
}
with theme():
    figure, panels = plt.subplots(2, 2, figsize=(10.5, 7.4), sharex=True)
    for axes, (column, (title, label)) in zip(panels.flat, PANELS.items(), strict=True):
        sns.lineplot(
            frame,
            x="variation",
            y=column,
            hue="law",
            style="law",
            palette=["#CC79A7", "#E69F00", "#0072B2", "#D55E00", "#009E73"],
            markers=["v", "s", "o", "^", "D"],
            dashes=False,
            errorbar=band,
            err_style="bars",
            legend=axes is panels.flat[1],
            ax=axes,
        )
        logarithmic = column in ("participation", "mean_epsilon")
        axes.set(title=title, ylabel=label, xscale="log", yscale="log" if logarithmic else "linear")
        axes.set_xlabel("coefficient of variation of the costs")
        axes.xaxis.set_major_formatter("{x:g}")
    panels.flat[0].set_yticks([0.01, 0.1, 0.5], ["1 %", "10 %", "50 %"])
    panels.flat[1].legend(title=None, loc="upper left")
    picture = study.save(figure, "dispersion")
picture

# %% [markdown]
# ## Findings

# %%
n_nodes = int(frame["n_nodes"].iloc[0])
tall = means.pivot_table(index="variation", columns="law", values="n_active", observed=True)
shown = tall.map(lambda n: "" if np.isnan(n) else f"{n:,.0f}").reset_index()
shown = shown.rename(columns={"variation": "coefficient of variation"})
at = means.set_index(["law", "variation"])


def half_widths():
    """Describe the number of active nodes for each uniform spread of +-h."""
    words = []
    for text, rows in frame[frame["law"] == "uniform"].groupby("population.rho", sort=False):
        low, high = (json.loads(text)[end] for end in ("low", "high"))
        words.append(f"+-{(high - low) / (high + low):.0%} keeps {rows['n_active'].mean():.0f}")
    return ", ".join(words)


def describe(column, variation):
    """Return the range of the distributions' means at a coefficient of variation."""
    return format_range(means.loc[means["variation"] == variation, column])


smallest, largest = means["variation"].min(), means["variation"].max()
wide = at.xs(largest, level="variation")
right_set = (frame["n_active"] == frame["equilibrium_n_active"]).mean()

study.report(f"""\
Active nodes of {n_nodes:,}, mean of {means["n"].min()} populations:

{table(shown)}

- The contest tolerates little. Of costs spread evenly, {half_widths()} of {n_nodes:,} nodes; at a
  coefficient of variation of {largest:.2g} the log-normal distribution keeps
  {wide.loc["log-normal", "n_active"]:.1f}.
- The coefficient of variation does not determine how many nodes stay: at {smallest:.2g} it is
  {describe("n_active", smallest)} nodes, at {largest:.2g} {describe("n_active", largest)},
  depending on the distribution. The lower end decides: two groups keep the low-cost half at any
  distance,
  the Pareto distribution has its mass at a firm lower end, and the log-normal one a few nodes far
  below all
  others.
- Who stays sells more, since fewer divide the same money. Mean epsilon of an active node:
  {describe("mean_epsilon", smallest)} at {smallest:.2g}, {describe("mean_epsilon", largest)} at
  {largest:.2g}.
- The active nodes' total utility rises: {describe("node_utility", smallest)} at {smallest:.2g},
  {describe("node_utility", largest)} at {largest:.2g}, of a cap of
  {study.sweep().scenario.game.budget:g}. Equal nodes compete their gains away; unequal ones need
  not.
- The server's own measure, beta ln(1 + alpha eps_g), rises while participation collapses:
  {describe("server_utility", smallest)} at {smallest:.2g}, {describe("server_utility", largest)}
  at
  {largest:.2g}; so does welfare ({describe("welfare", smallest)} and
  {describe("welfare", largest)}).
  It averages epsilon over those who are left, and does not see the data that are gone. What the net
  makes of that, the study dispersion_accuracy says.
- The played market ended with the closed form's active set in {right_set:.0%} of {len(frame)} runs.
""")
