# %% [markdown]
# # Mechanisms: who gains under which mechanism, in which market
#
# Five mechanisms price privacy for the same populations, under the same cap (the Stackelberg
# leader's B* of each population): costs with small, medium and wide spread, with a fifth of
# outliers, and depending on the data; 20 and 200 nodes; two values of the server's alpha. Each case
# is played as a market, which nodes with losses leave.

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from common import band, begin, format_range, half_interval, table

from fcfn_abm.report.theme import ARM_COLOURS, ARM_MARKERS, theme

# %%
study = begin("mechanisms")
frame = study.frame()


def label(text):
    """Return the label of a cost distribution."""
    match json.loads(text):
        case {"kind": "lognormal", "sigma": sigma}:
            return f"spread {sigma:g}"
        case {"kind": "outliers", "share": share}:
            return f"{share:.0%} outliers"
        case {"kind": "divergence"}:
            return "costs follow data"
    raise ValueError(text)


frame = frame.rename(columns={"mechanism.kind": "mechanism", "population.n_nodes": "N"})
frame = frame.rename(columns={"game.alpha": "alpha"})
frame["costs"] = frame["population.rho"].map(label)
frame["utility of a node"] = frame["node_utility"] / frame["N"]
frame["as in the paper"] = frame["equilibrium_node_utility"] / frame["N"]
SETTING = ["costs", "N", "alpha"]
OUTCOMES = {
    "server_utility": "server's utility",
    "utility of a node": "utility of a node",
    "welfare": "welfare",
    "participation": "participation",
    "mean_epsilon": "mean epsilon",
}
mechanisms = list(dict.fromkeys(frame["mechanism"]))
costs = list(dict.fromkeys(frame["costs"]))

# %%
shown = frame[frame["alpha"] == frame["alpha"].max()]
sizes = sorted(frame["N"].unique())
with theme():
    figure, panels = plt.subplots(
        len(sizes), len(OUTCOMES), figsize=(14, 2.9 * len(sizes)), squeeze=False
    )
    for place, (n_nodes, row) in enumerate(zip(sizes, panels, strict=True)):
        for (column, title), axes in zip(OUTCOMES.items(), row, strict=True):
            sns.pointplot(
                shown[shown["N"] == n_nodes],
                x=column,
                y="costs",
                hue="mechanism",
                hue_order=mechanisms,
                palette=ARM_COLOURS,
                markers=[ARM_MARKERS[name] for name in mechanisms],
                order=costs,
                dodge=0.6,
                linestyle="none",
                errorbar=band,
                markersize=5,
                err_kws={"linewidth": 1.2},
                legend=axes is panels[0][-1],
                ax=axes,
            )
            axes.set(title="" if place else title, ylabel="", xlabel="")
            for border in range(1, len(costs)):
                axes.axhline(border - 0.5, color="0.85", linewidth=0.8, zorder=0)
            axes.tick_params(axis="y", length=0, labelleft=axes is row[0])
            if column in ("utility of a node", "mean_epsilon"):
                axes.set_xscale("log")
            elif column == "participation":
                axes.set_xlim(-0.03, 1.03)
                axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            else:
                axes.set_xlim(0, None)
        row[0].set_ylabel(f"{n_nodes} nodes", weight="bold")
    sns.move_legend(
        panels[0][-1], "upper left", bbox_to_anchor=(1.0, 1.0), title=None, fontsize="small"
    )
    picture = study.save(figure, "mechanisms")
picture

# %% [markdown]
# ## Who is best, and by how much
#
# Populations are the same for all mechanisms, so differences from the contest are paired by
# population, and intervals are those of the mean difference.

# %%
means = frame.groupby([*SETTING, "mechanism"], sort=False)[list(OUTCOMES)].mean()
n_settings = len(frame.groupby(SETTING))
best = {
    outcome: means[outcome].groupby(SETTING).idxmax().map(lambda key: key[-1]).value_counts()
    for outcome in ("server_utility", "utility of a node", "welfare")
}
by_population = frame.pivot_table(
    index=[*SETTING, "replication"], columns="mechanism", values=list(OUTCOMES)
)
rows = []
for mechanism in mechanisms:
    row = {"mechanism": mechanism}
    for outcome in ("server_utility", "utility of a node", "welfare"):
        row[f"{OUTCOMES[outcome]}: best"] = best[outcome].get(mechanism, 0)
        gain = by_population[outcome][mechanism] - by_population[outcome]["stackelberg"]
        groups = gain.groupby(SETTING)
        middle, half = groups.mean(), groups.agg(half_interval)
        row["above"] = (middle - half > 0).sum()
        row["below"] = (middle + half < 0).sum()
        row[f"{OUTCOMES[outcome]}: above, below"] = f"{row.pop('above')}, {row.pop('below')}"
    rows.append(row)
ranking = pd.DataFrame(rows)
ranking.loc[ranking["mechanism"] == "stackelberg", ranking.columns[2::2]] = "-"
ranking

# %% [markdown]
# ## Findings

# %%
ranges = means.groupby("mechanism", sort=False).agg(
    {"participation": lambda x: f"{x.min():.0%} to {x.max():.0%}", "mean_epsilon": format_range}
)
ranges = ranges.reset_index().rename(columns={"mean_epsilon": "mean epsilon"})
server = by_population["server_utility"]
change = server.drop(columns="stackelberg").sub(server["stackelberg"], axis=0)
change = change.groupby(SETTING).mean()
winners = means["server_utility"].groupby(SETTING).idxmax().map(lambda key: key[-1])
beaten = []
for (law, n), lost_at in (winners != "stackelberg").groupby(["costs", "N"], sort=False):
    where = lost_at[lost_at].index.get_level_values("alpha")
    at = "" if len(where) == len(lost_at) else f" (alpha = {', '.join(f'{a:g}' for a in where)})"
    if len(where):
        beaten.append(f"{law} with {n}{at}")
epsilon = by_population["mean_epsilon"].groupby(SETTING).mean()
explained = ((epsilon["stackelberg"] < epsilon["random"]) == (winners == "random")).sum()
losing = frame[frame["mechanism"].isin(["random", "static"])]
lost = losing.groupby([*SETTING, "mechanism"])["as in the paper"].mean() < 0
left = losing.groupby("mechanism", sort=False)["participation"].mean()
widest = means.sort_index().loc[("spread 1", sizes[-1], frame["alpha"].max()), "mean_epsilon"]
settled = frame["verdict"] == "converged"
spans = "; ".join(f"{m} {change[m].min():+.1f} to {change[m].max():+.1f}" for m in change)
others = frame.loc[~settled, ["mechanism", "verdict"]].value_counts()
unsettled = "".join(f"; {n} of {m}: {verdict}" for (m, verdict), n in others.items())

study.report(f"""\
In {n_settings} markets of {frame["replication"].nunique()} populations each: in how many a
mechanism is best, and in how many its mean lies significantly (95 %, paired) above and below the
contest's.

{table(ranking)}

Over all markets, means of each:

{table(ranges)}

- The server's utility less the contest's, smallest and largest mean, in currency: {spans}.
  The contest serves the server best but in {(winners != "stackelberg").sum()} of {n_settings}
  markets (costs with nodes): {"; ".join(beaten) or "none"}. Random wins where
  the contest buys a smaller mean epsilon than it: this predicts the winner in {explained} of
  {n_settings} markets.
- The server's utility counts mean epsilon alone, so wide spreads look good to it: with a spread
  of 1 among {sizes[-1]} nodes the contest buys a mean epsilon of {widest["stackelberg"]:,.0f} from
  the few that stay, which is no privacy; contracts buy {widest["ic-mle"]:.2f} from each node.
- Random and static epsilons are imposed. As the paper draws them, with nobody leaving, the mean
  node loses in {lost.sum()} of {lost.size} markets. Free to leave, {1 - left["random"]:.0%} of the
  nodes (random) and {1 - left["static"]:.0%} (static) do, and the rest earn something.
- {settled.mean():.1%} of {len(frame):,} markets converged{unsettled}.
""")
