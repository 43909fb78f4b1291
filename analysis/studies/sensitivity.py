# %% [markdown]
# # Sensitivity: which inputs drive participation, epsilon, the cap and welfare
#
# Four inputs of a market vary together, each over decades: the number of nodes N, the spread of
# their costs (the standard deviation of ln rho), and the server's alpha and beta. How much of the
# variance of each outcome does each input explain?
#
# Sobol indices answer this for the whole input space. The first-order index of an input is the
# share of the variance that it explains alone; the total-order index includes all interactions with
# other inputs. If both are equal, the input acts alone; if the first-order indices add up to one,
# all inputs do.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import begin, table
from scipy import stats

from fcfn_abm.report.theme import theme

# %%
study = begin("sensitivity")
sweep = study.sweep()
INPUTS = {
    "population.n_nodes": "nodes N",
    "population.rho.sigma": "spread of ln rho",
    "game.alpha": "alpha",
    "game.beta": "beta",
}
OUTCOMES = {
    "participation": "participation",
    "total_epsilon": "epsilon in all, S",
    "budget": "cap B*",
    "welfare": "welfare",
    "server_utility": "server's utility",
}
indices = sweep.sensitivity(list(OUTCOMES)).replace({"axis": INPUTS, "outcome": OUTCOMES})
indices

# %% [markdown]
# Indices do not show the direction of an effect, so the mean of each outcome along each input is
# shown as well, averaged over the other inputs, in eight equal parts of each range.

# %%
frame = sweep.frame().rename(columns={**INPUTS, **OUTCOMES})
drawn = frame[
    frame["run"] // sweep.scenario.sweep.replications < 2 * sweep.scenario.sweep.n_samples
]
parts = []
for name in INPUTS.values():
    part = pd.qcut(drawn[name], 8, duplicates="drop").map(lambda interval: interval.mid)
    means = drawn.groupby(part.astype(float))[list(OUTCOMES.values())].mean()
    parts.append(means.rename_axis("value").reset_index().assign(input=name))
courses = pd.concat(parts, ignore_index=True)

# %%
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00"]
ORDERS = [("first", 0.14, "o", True), ("total", -0.14, "s", False)]
places = np.arange(len(INPUTS))[::-1]
with theme():
    figure, panels = plt.subplots(
        2, len(OUTCOMES), figsize=(13, 5.6), height_ratios=[1, 1.15], squeeze=False
    )
    for (outcome, part), axes in zip(
        indices.groupby("outcome", sort=False), panels[0], strict=True
    ):
        for order, shift, marker, fill in (
            ("first", 0.14, "o", True),
            ("total", -0.14, "s", False),
        ):
            middle = part[f"{order}_order"]
            ends = [middle - part[f"{order}_order_low"], part[f"{order}_order_high"] - middle]
            for y, x, low, high, colour in zip(places + shift, middle, *ends, COLOURS, strict=True):
                axes.errorbar(
                    x,
                    y,
                    xerr=[[max(low, 0)], [max(high, 0)]],
                    color=colour,
                    marker=marker,
                    markerfacecolor=colour if fill else "white",
                    markersize=6.5,
                    linewidth=1.4,
                )
        axes.set(title=outcome, xlim=(-0.08, 1.08), ylim=(-0.6, len(INPUTS) - 0.4))
        axes.set(xlabel="share of variance")
        axes.set_yticks(places, list(INPUTS.values()) if axes is panels[0][0] else [""] * 4)
    for shape, label in (("o", "alone"), ("s", "with interactions")):
        panels[0][-1].plot(
            [], [], shape, color="0.3", markerfacecolor="0.3" if shape == "o" else "w", label=label
        )
    panels[0][-1].legend(loc="center right", fontsize="small", handletextpad=0.2)
    for outcome, axes in zip(OUTCOMES.values(), panels[1], strict=True):
        for (name, part), colour, dashes in zip(
            courses.groupby("input", sort=False), COLOURS, ["-", "--", "-.", ":"], strict=True
        ):
            span = np.log(part["value"] / part["value"].min())
            axes.plot(span / span.max(), part[outcome], color=colour, linestyle=dashes, label=name)
        axes.set(xlabel="input, low to high (log)", xticks=[], ylim=(0, None))
        unit = ".0%" if outcome == "participation" else ",.0f"
        axes.yaxis.set_major_formatter(f"{{x:{unit}}}")
    panels[1][0].set_ylabel("mean over all else")
    sns.despine(figure)
    panels[1][3].legend(fontsize="small", loc="upper left")
    picture = study.save(figure, "sensitivity")
picture

# %% [markdown]
# ## Findings

# %%
# the share beyond first-order effects; its interval is bootstrapped separately
replications = sweep.scenario.sweep.replications
points = frame.groupby(frame["run"] // replications)[list(OUTCOMES.values())].mean()
blocks = points.to_numpy(float).T.reshape(len(OUTCOMES), len(INPUTS) + 2, -1).swapaxes(0, 1)
n_points = blocks.shape[-1]


def left_over(rows):
    """Return the share of each outcome's variance beyond first-order effects, from some points."""
    values = blocks[..., rows]
    given = {"f_A": values[0], "f_B": values[1], "f_AB": values[2:]}
    return 1 - stats.sobol_indices(func=given, n=n_points).first_order.sum(axis=-1)


chance = np.random.default_rng(sweep.scenario.seed)
drawn_again = [left_over(rows) for rows in chance.integers(n_points, size=(999, n_points))]
ends = np.quantile(drawn_again, [0.025, 0.975], axis=0)
found = np.array([left_over(np.arange(n_points)), *ends])
interactions = dict(zip(OUTCOMES.values(), found.T, strict=True))

shown = indices.assign(
    alone=[f"{x:.2f}" for x in indices["first_order"]],
    total=[f"{x:.2f}" for x in indices["total_order"]],
    interval=[
        f"{low:.2f} to {high:.2f}"
        for low, high in zip(indices["total_order_low"], indices["total_order_high"], strict=True)
    ],
)
lines = []
for outcome, part in indices.groupby("outcome", sort=False):
    ranked = part.sort_values("total_order", ascending=False)
    signs = [
        "rises" if stats.spearmanr(drawn[axis], drawn[outcome]).statistic > 0 else "falls"
        for axis in ranked["axis"]
    ]
    matter = [
        f"{axis} ({total:.2f}, {sign} with it)"
        for axis, total, sign in zip(ranked["axis"], ranked["total_order"], signs, strict=True)
        if total > 0.05
    ]
    shared, low, high = interactions[outcome]
    lines.append(
        f"- **{outcome}**: {'; '.join(matter)}. What no input explains alone, interactions, is "
        f"{shared:.0%} of its variance (95 %: {low:.0%} to {high:.0%})."
    )
verdicts = frame["verdict"].value_counts()
ended = ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts.items())
body = "\n".join(lines)

study.report(f"""\
{len(frame):,} markets ({ended}). Share of the variance that an input explains alone and with all
its interactions, and the 95 % interval of the latter:

{table(shown[["outcome", "axis", "alone", "total", "interval"]])}

{body}
- Where all trade, who takes part does not depend on alpha and beta at all: what they have of its
  variance is the {(frame["participation"] == 0).mean():.1%} of markets in which no trade pays.
""")
