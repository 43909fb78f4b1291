# %% [markdown]
# # Manipulation: who gains and loses from coalitions, split identities and false costs
#
# The same populations under eleven mechanisms and one cap. In a coalition only the lowest-cost node
# reports; a node reports under several identities; a node reports a false cost. Each case is
# compared with the same nodes without manipulation, in closed form: the gains and losses of
# manipulators, other nodes and the server.

# %%
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import begin, half_interval, table

from fcfn_abm.build import (
    create_mechanism,
    draw_population,
    list_runs,
    measure_manipulation,
    price_mechanism,
)
from fcfn_abm.report.theme import theme
from fcfn_abm.scenario.schema import Sybils

# %%
study = begin("manipulation")
PARTIES = {
    "manipulators_gain": "manipulators",
    "outsiders_gain": "other nodes",
    "server_gain": "server",
}
IDENTITIES = (2, 5)
FACTORS = (0.5, 2 / 3, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0)
coalitions = study.frame().rename(columns={"population.coalitions.size": "size"})
coalitions["mechanism"] = coalitions["mechanism"].map(lambda text: json.loads(text)["kind"])
coalitions["manipulation"] = "coalition of " + coalitions["size"].astype(str)
SIZES = sorted(coalitions["size"].unique())

# %% [markdown]
# ## Split identities and false costs
#
# On the same populations and under the same cap. A node drawn at random splits, or reports the best
# in hindsight of its true cost and eight false costs, from half to twice the true one. Contests do
# not ask for costs, so they are treated as mechanisms that do: the server computes the equilibrium
# epsilon of all nodes from the reported costs.


# %%
def gains(effect):
    """Return the gain of each party."""
    return {name: getattr(effect, name) for name in PARTIES}


def split(scenario, identities):
    """Return the gains of all parties when a node splits into several identities."""
    people = scenario.population.model_copy(
        update={"coalitions": None, "sybils": Sybils(identities=identities)}
    )
    return gains(measure_manipulation(scenario.model_copy(update={"population": people})))


def lie(scenario):
    """Return the gains of all parties if the coalition's first member reports its best cost."""
    kind = scenario.mechanism.kind
    drawn = draw_population(scenario)
    liar = int(np.flatnonzero(drawn.manipulation.manipulators)[0])
    honest = replace(drawn, manipulation=None)
    cap = price_mechanism(scenario, "stackelberg", honest, None).server_payment
    asks = create_mechanism(scenario).reports == "cost"

    def outcome(factor):
        """Return the utilities of nodes and server for a report of ``factor`` times the cost."""
        factors = np.ones(drawn.n_nodes)
        factors[liar] = factor
        if asks:
            reported = price_mechanism(scenario, kind, type(drawn).of(drawn.rho, factors), cap)
            return reported.node_utility, reported.server_utility
        read = price_mechanism(scenario, kind, type(drawn).of(drawn.rho * factors), cap)
        return read.payment - drawn.rho * read.epsilon, read.server_utility

    nodes, server = outcome(1.0)
    best = max((outcome(factor) for factor in FACTORS), key=lambda found: found[0][liar])
    if best[0][liar] <= nodes[liar] + 1e-9:
        best = nodes, server
    change = best[0] - nodes
    others = change.sum() - change[liar]
    return dict(zip(PARTIES, (change[liar], others, best[1] - server), strict=True))


READS_COSTS = ("stackelberg", "tullock", "weighted")
rows = []
for run in list_runs(study.sweep().scenario):
    kind = run.scenario.mechanism.kind
    if run.scenario.population.coalitions.size != SIZES[0]:
        continue
    key = {"mechanism": kind, "replication": run.replication}
    for identities in IDENTITIES:
        found = split(run.scenario, identities)
        rows.append({**key, "manipulation": f"node as {identities}", **found})
    if kind in READS_COSTS or create_mechanism(run.scenario).reports == "cost":
        rows.append({**key, "manipulation": "false cost", **lie(run.scenario)})
kept = ["mechanism", "replication", "manipulation", *PARTIES]
frame = pd.concat([coalitions[kept], pd.DataFrame(rows)], ignore_index=True)
mechanisms = list(dict.fromkeys(frame["mechanism"]))
manipulations = list(dict.fromkeys(frame["manipulation"]))

# %%
COLOURS = {"manipulators": "#D55E00", "other nodes": "#0072B2", "server": "#009E73"}
MARKERS = {"manipulators": "o", "other nodes": "s", "server": "D"}
groups = frame.groupby(["manipulation", "mechanism"], sort=False)
with theme():
    figure, panels = plt.subplots(2, 3, figsize=(12, 8.4), sharey=True, sharex=True)
    for axes, manipulation in zip(panels.flat, manipulations, strict=False):
        for shift, (column, party) in zip((-0.22, 0.0, 0.22), PARTIES.items(), strict=True):
            there = [m for m in mechanisms if (manipulation, m) in groups.groups]
            values = [groups.get_group((manipulation, m))[column] for m in there]
            axes.errorbar(
                [value.mean() for value in values],
                [mechanisms.index(m) + shift for m in there],
                xerr=[half_interval(value) for value in values],
                fmt=MARKERS[party],
                color=COLOURS[party],
                markersize=4.5,
                linewidth=1.2,
                label=party,
            )
        axes.axvline(0, color="0.4", linewidth=0.8)
        for border in range(1, len(mechanisms)):
            axes.axhline(border - 0.5, color="0.9", linewidth=0.8, zorder=0)
        axes.set_xscale("symlog", linthresh=0.1, linscale=0.6)
        axes.set_xticks(
            [-10, -1, -0.1, 0, 0.1, 1, 10], ["-10", "-1", "-0.1", "0", "0.1", "1", "10"]
        )
        axes.set_title(manipulation)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0][0].set_yticks(range(len(mechanisms)), mechanisms)
    panels[0][0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("gain, in currency (linear from -0.1 to 0.1)")
    for axes in panels.flat[len(manipulations) :]:
        axes.set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    picture = study.save(figure, "manipulation")
picture

# %% [markdown]
# ## Findings


# %%
def describe(values):
    """Return a mean with half of its 95 % interval."""
    half = half_interval(values)
    spread = "" if np.isnan(half) else f" ± {half:.2f}"
    return f"{values.mean():+.2f}{spread}".replace("+0.00 ± 0.00", "0").replace("-0.00", "0.00")


def tabulate(column):
    """Return the mean gains of a party, mechanisms by manipulations."""
    rows = []
    for mechanism in mechanisms:
        row = {"mechanism": mechanism}
        for manipulation in manipulations:
            row[manipulation] = ""
            if (manipulation, mechanism) in groups.groups:
                values = groups.get_group((manipulation, mechanism))[column]
                won = f" ({(values > 1e-9).sum()})" if column == "manipulators_gain" else ""
                row[manipulation] = describe(values) + won
        rows.append(row)
    return table(pd.DataFrame(rows))


def profitable(manipulation, mechanism):
    """Return the number of games in which a manipulation is profitable."""
    found = groups.get_group((manipulation, mechanism))
    return f"{(found['manipulators_gain'] > 1e-9).sum()} of {len(found)}"


def list_hurt(column):
    """Return the mechanisms under which a party loses significantly, by manipulation."""
    parts = []
    for manipulation in manipulations:
        lost = []
        for mechanism in mechanisms:
            if (manipulation, mechanism) in groups.groups:
                values = groups.get_group((manipulation, mechanism))[column]
                half = np.nan_to_num(half_interval(values))
                if values.mean() + half < -1e-9:
                    lost.append(mechanism)
        parts.append(f"{manipulation}: {', '.join(lost) or 'nowhere'}")
    return "; ".join(parts)


budget = coalitions["budget"].mean()
large, small = (f"coalition of {size}" for size in (SIZES[-1], SIZES[0]))
liable = [mechanism for mechanism in mechanisms if ("false cost", mechanism) in groups.groups]
truthful = [m for m in liable if profitable("false cost", m).startswith("0 ")]
study.report(f"""\
Mean gains over {frame["replication"].nunique()} populations of
{study.sweep().scenario.population.n_nodes} nodes, in currency, with 95 % intervals of the paired
differences (mean cap {budget:.2f}). Of the manipulators, and in how many populations they gain:

{tabulate("manipulators_gain")}

Of all other nodes together:

{tabulate("outsiders_gain")}

Of the server:

{tabulate("server_gain")}

- In the contest a coalition of {SIZES[0]} is profitable in {profitable(small, "stackelberg")}
  populations, one of {SIZES[-1]} in {profitable(large, "stackelberg")}: the outsiders take up what
  few members leave, and cannot take up what most leave.
- A node that comes as several gains nothing in the contest and in the weighted one
  ({profitable(f"node as {IDENTITIES[-1]}", "stackelberg")} populations), since its sum is paid:
  the server alone loses, whose mean epsilon is over more nodes.
- No false cost is profitable under {", ".join(truthful) or "none"}.
- Other nodes lose (95 %): {list_hurt("outsiders_gain")}.
- The server loses (95 %): {list_hurt("server_gain")}.
""")
