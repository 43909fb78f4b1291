# %% [markdown]
# # Mixed rules: best responders among imitators and learners
#
# Sixty nodes and a fixed cap. A share of the nodes follows a different rule from the rest, which
# play best responses. Three other rules: imitation of success (replicator), which ignores a node's
# own effect on the total; gradient steps on the node's own utility; and fictitious play. Costs do
# not depend on the rules, so the closed form of each group is known.
#
# Medians over ten populations, which are the same at all points.

# %%
import json

import matplotlib.pyplot as plt
from common import begin, number, table

from fcfn_abm.report.theme import theme

# %%
study = begin("mixed_rules")
frame = study.frame()

# %%
NAMES = {
    "replicator": "imitators",
    "gradient": "gradient steps",
    "fictitious-play": "fictitious play",
}
LOOKS = {
    "imitators": ("#D55E00", "o"),
    "gradient steps": ("#0072B2", "s"),
    "fictitious play": ("#009E73", "^"),
}
RULE, SHARE = "population.groups.others.learning", "population.groups.others.share"


def rule_of(text):
    """Return the name of a table of the scenario."""
    return NAMES[json.loads(text)["kind"] if text.startswith("{") else text]


frame["rule"] = [rule_of(text) for text in frame[RULE]]
frame["share"] = frame[SHARE]
for group in ("responders", "others"):
    own = frame[f"group.{group}.node_utility"]
    expected = frame[f"group.{group}.equilibrium_node_utility"]
    frame[group] = own / expected.where(expected > 0)
frame["total"] = frame["total_epsilon"] / frame["equilibrium_total_epsilon"]
frame["server"] = frame["server_utility"] / frame["equilibrium_server_utility"]
MEASURES = {
    "responders": "best responders earn",
    "others": "the others earn",
    "total": "total epsilon S",
    "server": "the server keeps",
}
medians = frame.groupby(["rule", "share"])[list(MEASURES)].median().reset_index()
medians

# %%
with theme():
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(15, 4), sharey=True)
    for axes, (column, label) in zip(panels, MEASURES.items(), strict=True):
        for rule, part in medians.groupby("rule"):
            colour, marker = LOOKS[rule]
            axes.plot(part["share"], part[column], color=colour, marker=marker, label=rule)
        axes.axhline(1.0, color="0.4", linewidth=0.8, dashes=(4, 2))
        axes.set(title=label, xlabel="share of the others", ylabel="over the closed form")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axes.label_outer()
    panels[0].set_ylim(bottom=0)  # of all
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=None)
picture = study.save(figure, "mixed_rules")
picture

# %% [markdown]
# ## Findings

# %%
shares = sorted(share for share in frame["share"].unique() if share > 0)
few, half, most = shares[0], shares[len(shares) // 2], shares[-1]


def cells(column):
    """Return a table of a measure: rules by shares."""
    wide = medians.pivot_table(index="rule", columns="share", values=column).loc[:, shares]
    wide = wide.map(lambda value: number(value, 3))
    wide.columns = [f"{100 * share:g} %" for share in wide.columns]
    return table(wide.reset_index())


def at(column, rule, share):
    """Return a median."""
    row = (medians["rule"] == rule) & (medians["share"] == share)
    return number(medians.loc[row, column].item(), 3)


least = number(medians.loc[medians["rule"] == "fictitious play", "responders"].min(), 3)
kept = medians[(medians["rule"] == "imitators") & (medians["share"] >= half)]
burnt = number(max(kept["others"].max(), 0.001), 1)
rare = frame[(frame["rule"] == "imitators") & (frame["share"] == few)]
without = (rare["group.others.equilibrium_n_active"] == 0).sum()
settled = frame[frame["rule"] == "gradient steps"]
imitated = frame[(frame["rule"] == "imitators") & (frame["share"] == half)]
active = imitated["n_active"].median()
expected = imitated["equilibrium_n_active"].median()

study.report(f"""\
What best responders earn, over their utility in closed form (columns: share of the others):

{cells("responders")}

Total epsilon over that of the closed form:

{cells("total")}

- Who the others are decides, and not that they are others. Among gradient steps best responders
  earn what the formulas say, at every share: {(settled["verdict"] == "converged").sum()} of
  {len(settled)} runs rest at the closed form. Among fictitious players they earn at least
  {least} of it.
- Imitators reduce the utility of all nodes, and the server gains. With {half:.0%} of imitators best
  responders keep {at("responders", "imitators", half)} of their utility in closed form, and
  with {most:.0%} {at("responders", "imitators", most)}. The imitators keep less than {burnt} of
  theirs there: they add epsilon until its cost takes the whole rent.
- The reason is the total. Imitators add epsilon as long as a unit of it pays more than it costs.
  They bid S up to {at("total", "imitators", half)} times that of the closed form with {half:.0%}
  of imitators, and to {at("total", "imitators", most)} times with {most:.0%};
  {number(active, 2)} nodes take part at {half:.0%}, instead of {number(expected, 2)} (medians). At
  the same cap the server keeps {at("server", "imitators", half)} times the utility of the closed
  form there.
- With {few:.0%} of imitators, none of them takes part in closed form in {without} of
  {len(rare)} populations, and they have no effect there.
""")
