"""Extra: how clients that know nothing of each other reach the equilibrium (section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

import fcfn_abm as fa
from fcfn_abm.report.theme import theme
from fcfn_zhou2023.base import (
    Finding,
    Scenarios,
    Setting,
    Study,
    curve,
    load_readings,
    number,
    pick,
    rows,
    table,
)

READINGS: dict[str, list[str]] = {
    "infer-costs": ["learning.kind=estimate"],
    "answer-in-turn": ["rounds.order=in_turn", "learning.gain=0.5"],
    "answer-at-once": ["rounds.order=simultaneous", "learning.gain=1.0"],
    "at-once-damped": ["rounds.order=simultaneous", "learning.gain=auto"],
    "total-alone": ["learning.kind=aggregate", "information.reports=aggregate"],
}
NAMES = {
    "infer-costs": "costs inferred from reports",
    "answer-in-turn": "in turn, half steps",
    "answer-at-once": "all at once, full steps",
    "at-once-damped": "all at once, damped",
    "total-alone": "only the total is seen",
}
COLOURS = dict(zip(READINGS, ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00"), strict=True))
FEW, MANY = 3, 10


def compute(scenarios: Scenarios, setting: Setting) -> pd.DataFrame:  # noqa: ARG001
    """Play the market by every rule, with ten nodes and with three."""
    parts = []
    for reading, scenario in scenarios.items():
        for n in (FEW, MANY):
            people = scenario.population.model_copy(update={"n_nodes": n})
            played = fa.run_scenario(scenario.model_copy(update={"population": people}))
            rounds, verdict = played.rounds, played.run["verdict"]["kind"]
            at = {"reading": reading, "panel": f"{n} nodes"}
            by_round = {**at, "x": rounds["round"], "x_name": "round"}
            parts += [
                rows("distance", rounds["distance"], **by_round),
                rows("exploitability", rounds["exploitability"], **by_round),
                rows("converged", float(verdict == "converged"), series=verdict, **at),
                rows("n_rounds", len(rounds), unit="rounds", **at),
            ]
            if n == MANY:
                for node, trace in played.traces.groupby("node"):
                    parts.append(
                        rows("epsilon", trace["epsilon"], x=trace["round"], x_name="round",
                             reading=reading, panel="traces", series=str(node))
                    )  # fmt: skip
    return table(parts)


def draw(values: pd.DataFrame) -> Figure:
    """Draw the distance to the closed form, and the clients' reports under two rules."""
    with theme():
        figure = Figure(figsize=(13, 4.2))
        distances, converging, cycling = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
        for reading, name in NAMES.items():
            line = curve(values, reading=reading, panel=f"{MANY} nodes", quantity="distance")
            distances.plot(line.index, line.clip(lower=1e-16), color=COLOURS[reading], label=name,
                           linewidth=1.6, marker="." if len(line) < 20 else "")  # fmt: skip
        distances.set(title="Extra: distance to the equilibrium", xlabel="round",
                      ylabel="share of the largest ε", xlim=(0, 62), yscale="log",
                      ylim=(3e-17, 1e2))  # fmt: skip
        distances.legend(loc="lower right", fontsize="small", bbox_to_anchor=(1.0, 0.02))
        for axes, reading in ((converging, "answer-in-turn"), (cycling, "answer-at-once")):
            some = pick(values, reading=reading, panel="traces")
            for _, trace in some.groupby("series"):
                axes.plot(trace["x"], trace["value"], color=COLOURS[reading], linewidth=0.9)
            axes.set(
                title=NAMES[reading].capitalize(),
                xlabel="round",
                ylabel="ε of a client",
                xlim=(0, 20),
            )
            axes.set_ylim(bottom=-4)
    return figure


def judge(values: pd.DataFrame) -> Iterator[Finding]:
    """Test which learning rules converge to the closed form."""
    for reading in READINGS:
        described, fine = [], []
        for n in (MANY, FEW):
            some = pick(values, reading=reading, panel=f"{n} nodes")
            ended = pick(some, quantity="converged").iloc[0]
            last = curve(some, quantity="distance").iloc[-1]
            fine.append(ended["value"] == 1 and last < 1e-6)
            described.append(
                f"{n} clients: {ended['series']} after "
                f"{number(some, quantity='n_rounds'):.0f} rounds, {last:.1g} from the closed form"
            )
        yield Finding("learning", reading, all(fine), "; ".join(described))


STUDY = Study(
    name="extra-learning",
    title="Learning the equilibrium",
    setup="Equal clients, a cap of B = 1, random starts. The paper does not state how clients "
    "learn, and shows no such figure.",
    load=load_readings("extra-learning", READINGS),
    compute=compute,
    draw=draw,
    judge=judge,
)
