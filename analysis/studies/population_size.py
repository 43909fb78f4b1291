# %% [markdown]
# # Population size: the active set grows at most like the square root
#
# Do larger populations have more nodes that train? Populations of 10 to a million nodes, from three
# distributions of the unit privacy cost with the same mean, under the same payment cap.
#
# A node is active if its cost is below tau / (n - 1): if the cost differences to all nodes with
# lower costs add up to less than its own cost. With N nodes and the distribution function F of the
# costs, the highest cost x of an active node satisfies
#
# N times the integral of F up to x = x, and n = N F(x).
#
# If costs have a positive lower end a with density f(a) there, F(t) is about f(a) (t - a), hence
# **n = sqrt(2 N a f(a))**.

# %%
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from common import band, begin, summary, table
from scipy import integrate, optimize, stats

from fcfn_abm.report.theme import theme

# %%
study = begin("population_size")
frame = study.frame()


# %% [markdown]
# ## The law of large numbers
#
# The equation above, solved for each distribution.


# %%
def distribution(law):
    """Return the distribution of the costs in a table of the scenario."""
    match law:
        case {"kind": "uniform", "low": low, "high": high}:
            return stats.uniform(low, high - low)
        case {"kind": "pareto", "minimum": minimum, "exponent": exponent}:
            return stats.pareto(exponent, scale=minimum)
        case {"kind": "lognormal", "median": median, "sigma": sigma}:
            return stats.lognorm(sigma, scale=median)
    raise ValueError(law)


def expected_active(costs, n_nodes):
    """Solve N int F = x for the highest active cost; return the number of nodes below it."""

    def surplus(logarithm):
        x = np.exp(logarithm)
        grid = np.linspace(costs.ppf(0.01 / n_nodes), x, 4001)
        return np.log(n_nodes * integrate.trapezoid(costs.cdf(grid), grid) / x)

    ends = np.log([costs.ppf(0.02 / n_nodes), costs.ppf(1 - 1e-6) * 10])
    return n_nodes * costs.cdf(np.exp(optimize.brentq(surplus, *ends)))


def approximate_active(costs, n_nodes):
    """Return sqrt(2 N a f(a)), for costs with a positive lower end a."""
    a = costs.support()[0]
    return np.sqrt(2 * n_nodes * a * costs.pdf(a))


# %%
NAMES = {
    "uniform": "uniform, ±50 %",
    "pareto": "Pareto, exponent 3",
    "lognormal": "log-normal, 0.3",
}
tables = {text: json.loads(text) for text in frame["population.rho"].unique()}
frame["law"] = [NAMES[tables[text]["kind"]] for text in frame["population.rho"]]
laws = {NAMES[law["kind"]]: distribution(law) for law in tables.values()}
sizes = sorted(frame["population.n_nodes"].unique())
expected = pd.DataFrame(
    [
        {"law": name, "population.n_nodes": size, "expected": expected_active(costs, size)}
        for name, costs in laws.items()
        for size in np.geomspace(sizes[0], sizes[-1], 31)
    ]
)
means = summary(
    frame, ["law", "population.n_nodes"], ["n_active", "mean_epsilon", "rounds", "distance"]
)
means["expected"] = [
    expected_active(laws[law], size)
    for law, size in zip(means["law"], means["population.n_nodes"], strict=True)
]
means

# %%
APART = dict(zip(laws, (0.9, 1.0, 1.11), strict=False))  # shifts of markers that would overlap
frame["N"] = frame["population.n_nodes"] * frame["law"].map(APART)
with theme():
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2))
    looks = {"hue": "law", "style": "law", "palette": ["#0072B2", "#E69F00", "#009E73"]}
    for axes, column in ((left, "n_active"), (right, "mean_epsilon")):
        sns.lineplot(
            frame,
            x="N",
            y=column,
            **looks,
            errorbar=band,
            err_style="bars",
            linestyle="",
            markers=["o", "s", "D"],
            markersize=8,
            dashes=False,
            legend=axes is left,
            ax=axes,
        )
        axes.set(xscale="log", yscale="log", xlabel="nodes in the population, N")
    for (_, part), colour in zip(
        expected.groupby("law", sort=False), looks["palette"], strict=True
    ):
        left.plot(part["population.n_nodes"], part["expected"], color=colour, linewidth=1.2)
    left.set(title="Participation", ylabel="active nodes, n")
    right.set(title="Mean ε", ylabel="mean ε of the active nodes")
    left.legend(title=None)
    picture = study.save(figure, "population_size")
picture

# %% [markdown]
# ## Findings


# %%
def slope(part):
    """Return the exponent g of n ~ N^g, from a thousand nodes on (all, if there are fewer)."""
    large = part[part["population.n_nodes"] >= min(1000, part["population.n_nodes"].max() / 10)]
    return np.polyfit(np.log(large["population.n_nodes"]), np.log(large["n_active"]), 1)[0]


slopes = {name: slope(part) for name, part in means.groupby("law", sort=False)}
off = (means["n_active"] / means["expected"] - 1).abs()
worst = means.loc[off.idxmax()]
right_set = (frame["n_active"] == frame["equilibrium_n_active"]).mean()
last = means[means["population.n_nodes"] == sizes[-1]].set_index("law")
tall = means.pivot_table(index="population.n_nodes", columns="law", values="n_active", sort=False)
tall = tall.reset_index().rename(columns={"population.n_nodes": "N"})
roots = {
    name: approximate_active(costs, sizes[-1]) / last.loc[name, "n_active"]
    for name, costs in laws.items()
    if costs.support()[0] > 0
}

study.report(f"""\
Active nodes, mean of {means["n"].min()} populations:

{table(tall, {"N": ",.0f", **dict.fromkeys(laws, ",.1f")})}

- n grows like N to the power {", ".join(f"{g:.2f} ({name})" for name, g in slopes.items())}. The
  square root needs a firm lower end of the costs; the log-normal distribution has none,
  and its few cheapest nodes price the others out.
- sqrt(2 N a f(a)) is {" and ".join(f"{r:.3f} ({name})" for name, r in roots.items())} times what
  was
  counted at N = {sizes[-1]:,}. The full equation is off by {off.max():.0%} at worst
  ({worst["law"]}, N = {worst["population.n_nodes"]:,}), and by
  {off[means["population.n_nodes"] >= 1000].max():.0%} at worst from a thousand nodes on, where
  populations differ as much.
- The played market ended with the closed form's active set in {right_set:.0%} of {len(frame)}
  runs, at
  a distance of {frame["distance"].max():.1g} at most, after {frame["rounds"].min()} to
  {frame["rounds"].max()} rounds.
- The cap is shared among n nodes, so mean epsilon falls with n: at N = {sizes[-1]:,} it is
  {", ".join(f"{last.loc[name, 'mean_epsilon']:.3g} ({name})" for name in laws)}.
""")
