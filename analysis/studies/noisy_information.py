# %% [markdown]
# # Noisy information: robustness of learning rules, and its cost
#
# Fifty nodes see each other's reports with an error that is drawn anew in each round, and follow
# one of six rules. How far do they stay from the equilibrium, and how much utility do they lose?
#
# Under noise nothing comes to rest. Distance and utilities are taken over the last hundred of 300
# rounds: the median of the distance and the mean of the utilities.

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from common import begin, number, table

from fcfn_abm.report.theme import theme

# %%
study = begin("noisy_information")
frame = study.frame()

# %%
LATE = 100
RULES = {
    "best-response 1.0": "best response, full steps",
    "best-response 0.5": "best response, half steps",
    "best-response auto": "best response, steps of 2 / n",
    "fictitious-play": "fictitious play",
    "estimate": "estimate",
    "aggregate": "aggregate",
}


def rule_of(text):
    """Return the name of a table of the scenario."""
    if not text.startswith("{"):
        return RULES[text]
    rule = json.loads(text)
    return RULES[f"{rule['kind']} {rule['gain']}"]


def late(run):
    """Return the results of a run's last rounds."""
    rounds = study.sweep().record(run).rounds.tail(LATE)
    return {
        "late distance": rounds["distance"].median(),
        "late exploitability": rounds["exploitability"].mean(),
        "earned": rounds["node_utility"].mean(),
        "active": rounds["n_active"].mean(),
    }


# %%
COSTS = {"constant": "equal costs", "uniform": "unlike costs"}
frame["rule"] = pd.Categorical([rule_of(text) for text in frame["learning"]], RULES.values())
frame["costs"] = [COSTS[json.loads(text)["kind"]] for text in frame["population.rho"]]
frame = frame.rename(columns={"information.noise": "noise"})
frame = frame.join(pd.DataFrame([late(run) for run in frame["run"]]))
cap = study.sweep().scenario.game.budget
frame["lost"] = (frame["equilibrium_node_utility"] - frame["earned"]) / cap
by = ["costs", "rule", "noise"]
frame["gain"] = 100 * frame["late exploitability"]
medians = frame.groupby(by, observed=True)[["late distance", "gain", "lost"]].median().reset_index()
medians

# %%
PANELS = {
    "late distance": ("Distance to the equilibrium", "share of its largest epsilon"),
    "gain": ("What one node could gain", "by a best response, % of the cap"),
}
with theme():
    figure, panels = plt.subplots(2, 2, figsize=(11.5, 7.6), sharex=True, sharey="row")
    for row, (column, (title, label)) in zip(panels, PANELS.items(), strict=True):
        for axes, costs in zip(row, COSTS.values(), strict=True):
            sns.lineplot(
                frame[frame["costs"] == costs],
                x="noise",
                y=column,
                hue="rule",
                style="rule",
                palette=["#D55E00", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#000000"],
                markers=["^", "s", "o", "v", "D", "P"],
                dashes=False,
                estimator="median",
                errorbar=("pi", 100),  # all replications
                err_style="bars",
                legend=axes is panels[0, 1],
                ax=axes,
            )
            axes.set(xscale="log", yscale="log", ylabel=label, title=f"{title}, {costs}")
            axes.set_xlabel("relative error of each report that is seen")
            axes.set_xticks(
                [0.005, 0.01, 0.03, 0.1, 0.2, 0.5], ["0.5 %", "1 %", "3 %", "10 %", "20 %", "50 %"]
            )
            axes.minorticks_off()
    panels[0, 1].legend(title=None, loc="center left", bbox_to_anchor=(1.0, 0.5))
    picture = study.save(figure, "noisy_information")
picture

# %% [markdown]
# ## Findings

# %%
noises = sorted(frame["noise"].unique())


def cells(column, costs, digits=2):
    """Return a table of a measure: rules by noise levels."""
    part = medians[medians["costs"] == costs]
    wide = part.pivot_table(index="rule", columns="noise", values=column, observed=True)
    wide = wide.map(lambda value: number(value, digits))
    wide.columns = [f"{noise:.1%}" for noise in wide.columns]
    return table(wide.reset_index())


def ranking(costs, noise):
    """Describe which rules stay closest and farthest."""
    rows = medians[(medians["costs"] == costs) & (medians["noise"] == noise)]
    rows = rows.sort_values("late distance")
    words = [f"{row['rule']} ({number(row['late distance'], 2)})" for _, row in rows.iterrows()]
    return f"closest {words[0]} and {words[1]}, farthest {words[-1]}"


least, most = noises[0], noises[-1]
equal, spread = COSTS.values()
at = medians.set_index(by)["late distance"]
suffering = (at.xs(equal, level="costs") / at.xs(spread, level="costs")).median()
full, half = (at.xs(RULES[f"best-response {g}"], level="rule") for g in ("1.0", "0.5"))
n_each = frame.groupby(by, observed=True).size().min()
lost = medians[medians["noise"] == most].set_index("rule").groupby("costs")["lost"]
together = "; ".join(
    f"{costs}: " + ", ".join(f"{-100 * value:+.1f} % ({rule})" for rule, value in rows.items())
    for costs, rows in lost
)

study.report(f"""\
Medians of {n_each} runs. Distance that stays, {equal} (share of the largest equilibrium epsilon):

{cells("late distance", equal)}

Distance that stays, {spread}:

{cells("late distance", spread)}

What the best-placed node could gain by moving alone, in percent of the cap, {equal}:

{cells("gain", equal)}

- At {least:.1%} of noise, {equal}: {ranking(equal, least)}; {spread}: {ranking(spread, least)}. At
  {most:.0%}, {equal}: {ranking(equal, most)}; {spread}: {ranking(spread, most)}.
- Full steps stay {
    number((full / half).median(), 2)
} times as far off as half steps (median of all points).
- Equal nodes are {
    number(suffering, 2)
} times as far off as unlike ones (median of all rules and levels).
- A single node loses by noise, all together need not: it is a contest, and when less epsilon is
  sold
  for the same money, nodes earn more. At {most:.0%} of noise the nodes' utilities together differ
  from
  the equilibrium's, in percent of the cap, by: {together}.
""")
