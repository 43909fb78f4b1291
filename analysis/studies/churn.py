# %% [markdown]
# # Churn: does the market follow an equilibrium that moves?
#
# A hundred nodes. In each round a share of them leaves for good, and newcomers with new costs take
# their places; the logarithm of every cost takes a random step and reverts by a tenth towards its
# initial value. Six learning rules follow the moving equilibrium. How far are they from the closed
# form of the present nodes?
#
# All numbers are means over the second half of 300 rounds. All rules have the same populations at
# each point.

# %%
import json

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from common import band, begin, format_range, number, summary, table

from fcfn_abm.report.theme import theme

# %%
study = begin("churn")
frame = study.frame()

# %%
RULES = {
    "best-response 0.5": "best response, half steps",
    "best-response 1.0": "best response, full steps",
    "fictitious-play": "fictitious play",
    "estimate 50": "estimate, mean of 50 reports",
    "estimate 1": "estimate, last report",
    "aggregate": "aggregate",
}
COLOURS = ["#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#009E73", "#000000"]
MARKERS = ["o", "^", "v", "s", "D", "P"]


def rule_of(text):
    """Return the name of a table of the scenario."""
    if not text.startswith("{"):
        return RULES[text]
    rule = json.loads(text)
    return RULES[f"{rule['kind']} {rule.get('gain', rule.get('window'))}"]


frame["rule"] = pd.Categorical([rule_of(text) for text in frame["learning"]], RULES.values())
frame["departures"] = frame["population.churn.departures"]
frame["drift"] = frame["population.churn.drift"]
followed = ("distance", "total_error", "exploitability", "participation", "n_present")
for name in followed:  # the means over rounds, in place of the last round
    frame[name] = frame[f"tracking_{name}"]
frame["expected"] = frame["tracking_equilibrium_participation"]
frame["too many"] = frame["participation"] / frame["expected"] - 1
active = frame["expected"] * frame["n_present"]  # active nodes in closed form
frame["a change"] = frame["distance"] / (frame["departures"] * active)
by = ["drift", "rule", "departures"]
means = summary(frame, by, ["distance", "total_error", "exploitability", "too many", "a change"])
means

# %%
ROWS = {
    "distance": "single nodes: distance,\nshare of the largest epsilon",
    "total_error": "the total S:\nrelative distance",
}
drifts = sorted(frame["drift"].unique())
with theme():
    figure, panels = plt.subplots(2, len(drifts), figsize=(13, 7.2), sharex=True, sharey="row")
    for row, (column, label) in zip(panels, ROWS.items(), strict=True):
        for axes, drift in zip(row, drifts, strict=True):
            sns.lineplot(
                frame[frame["drift"] == drift],
                x="departures",
                y=column,
                hue="rule",
                style="rule",
                palette=COLOURS,
                markers=MARKERS,
                dashes=False,
                errorbar=band,
                err_style="bars",
                err_kws={"elinewidth": 0.7},
                legend=axes is panels[0, 0],
                ax=axes,
            )
            axes.set(xscale="log", yscale="log", ylabel=label, xlabel="nodes replaced in a round")
            axes.set_ylim(2e-4, 1)
            axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
            if column == "distance":
                axes.set_title(f"Costs drift by {drift:.0%} a round" if drift else "Costs stay")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    panels[0, 0].get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=None)
picture = study.save(figure, "churn")
picture

# %% [markdown]
# ## Findings

# %%
turnovers = sorted(frame["departures"].unique())
least, most = turnovers[0], turnovers[-1]
half, full, fictitious, slow, quick, aggregate = RULES.values()


def cells(column, drift):
    """Return a table of a measure in percent: rules by shares of departures."""
    part = means[means["drift"] == drift]
    wide = part.pivot_table(index="rule", columns="departures", values=column, observed=True)
    wide = wide.map(lambda value: f"{number(100 * value, 2)} %")
    wide.columns = [f"{100 * turnover:g} %" for turnover in wide.columns]
    return table(wide.reset_index())


def at(column, rule, departures, drift=drifts[0]):
    """Return a mean."""
    row = (means["rule"] == rule) & (means["departures"] == departures) & (means["drift"] == drift)
    return means.loc[row, column].item()


def percent(*where, **drift):
    """Return a formatted mean."""
    return f"{number(100 * at(*where, **drift), 2)} %"


def most_gain(rules):
    """Return the formatted largest gain of a node."""
    gains = means.loc[means["rule"].isin(rules), "exploitability"]
    return f"{number(100 * gains.max(), 2)} %"


still = frame[(frame["drift"] == drifts[0]) & (frame["departures"] <= 0.01)]
costs = still.groupby("rule", observed=True)["a change"].mean()
n_nodes = study.sweep().scenario.population.n_nodes
n_members = format_range(active[frame["drift"] == drifts[0]], 2)

study.report(f"""\
Distance of epsilon to the closed form of those who are there, costs as they are (columns: share of
the nodes that is replaced in a round):

{cells("distance", drifts[0])}

The same where costs drift, by {drifts[-1]:.0%} a round (standard deviation):

{cells("distance", drifts[-1])}

Relative distance of the total S to its S, costs as they are:

{cells("total_error", drifts[0])}

- The market follows. What counts is how often the active set changes, and that is rarely, since
  only {n_members} of {n_nodes} nodes belong to it. As long as changes are rare, the
  mean distance is about in proportion to the active nodes that are replaced in a round. One such
  change costs, summed over the rounds that it takes to get over it, a distance of
  {", ".join(f"{number(cost, 2)} ({rule})" for rule, cost in costs.items() if rule != fictitious)}
  (means up to 1 % of departures, in units of the largest epsilon).
- The total follows better than its parts. With half steps S is off by
  {percent("total_error", half, most)} where {most:.0%} of the nodes go in each round, and single
  nodes by {percent("distance", half, most)}: who moves in turn makes up at once for those who have
  gone. Rules that act on the last round as a whole lag by one round, and S with them:
  {percent("total_error", aggregate, most)} (aggregate) and {percent("total_error", quick, most)}
  (estimate).
- "aggregate" keeps single nodes closest, at {percent("distance", aggregate, least)} to
  {percent("distance", aggregate, most)}: newcomers get the guess of S, and all act on it.
- Memory is a burden. Where costs drift by {drifts[-1]:.0%}, "estimate" over 50 reports is off by
  {percent("distance", slow, least, drift=drifts[-1])}, and over the last one by
  {percent("distance", quick, least, drift=drifts[-1])}; more newcomers, of whom it remembers less,
  bring the former down to {percent("distance", slow, most, drift=drifts[-1])}. Fictitious play
  never forgets: {percent("distance", fictitious, least)} to
  {percent("distance", fictitious, most)} without any drift.
- Half steps leave too many in: with {most:.0%} of departures
  {percent("too many", half, most)} more nodes take part than belong, since those who are priced out
  go by halves. With full steps it is {percent("too many", full, most)}.
- What a node could gain by moving alone stays small: at most {most_gain([half, full])} of the cap
  with best responses, {most_gain([aggregate])} with "aggregate".
""")
