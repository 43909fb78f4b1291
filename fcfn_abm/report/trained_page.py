"""The part of a run's report that is about training, and the privacy that it spends."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fcfn_abm.records import Record
from fcfn_abm.report.blocks import Block, Picture, Section, Terms, Words, number
from fcfn_abm.report.figures.training import accuracy, ledger
from fcfn_abm.report.summary import arms_table, free_riders_table, privacy_table
from fcfn_abm.report.theme import arm_label

_RIDERS = (
    "Some nodes report one epsilon and add the noise of a smaller one: they are paid for privacy "
    "that they do not sell. What that pays them, and what it costs the others:"
)


def training_sections(record: Record) -> list[Section]:
    """Return the sections on privacy, on the nets, and on free riders if there are any.

    Parameters
    ----------
    record : Record
        Of a run that trained.
    """
    sections = [_privacy(record), _training(record)]
    if riders := free_riders_table(record):
        sections.append(Section("Free riders", [Words(_RIDERS), riders]))
    return sections


def _privacy(record: Record) -> Section:
    spent = privacy_table(record)
    if spent is None:
        return Section("Privacy", [Words("Nobody trains: there is no trade.")])
    settings = record.scenario.privacy
    protects = "one sample of a node's data" if settings.unit == "record" else "all data of a node"
    words = (
        "With differential privacy nobody who sees what a node sends can tell much better than "
        f"before whether {protects} was another: the odds change by a factor of exp(epsilon) at "
        f"most, but for a chance of {settings.delta:g} (delta). Every round spends some of it, and "
        "the total of many rounds is what counts in the end, so both are shown."
    )
    blocks: list[Block] = [Words(words), spent]
    if not record.ledger.empty:
        last = record.ledger[record.ledger["round"] == record.ledger["round"].max()]
        blocks.append(
            Picture(
                "ledger",
                ledger(record.ledger, settings.delta),
                f"Epsilon spent over {int(record.ledger['round'].max())} rounds of training; the "
                f"median node ends at {number(float(last['epsilon_total'].median()), 4)}, the one "
                f"that spends most at {number(float(last['epsilon_total'].max()), 4)}.",
                "Lines are the median node; bands go from the node that spends least to the one "
                "that spends most.",
                _summarise_ledger(record.ledger),
                "ledger.parquet",
                interactive=True,
            )
        )
    blocks.append(
        Terms(
            {
                "As the server sees it": "what is revealed by the sum of all uploads, which is all "
                "that a server under secure aggregation gets, if the other nodes add their noise.",
                "Noise multiplier": "the standard deviation of the noise over the most that one "
                "neighbour can move what is sent.",
            }
        )
    )
    return Section("Privacy, round by round and in all", blocks)


def _summarise_ledger(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return the least, the median and the most that nodes have spent, a row a round."""
    names = [n for n in ("epsilon_round", "epsilon_total", "epsilon_central") if n in ledger]
    by = ledger.groupby("round")
    found = {
        f"{name}_{which}": by[name].agg(which)
        for name in names
        for which in ("min", "median", "max")
    }
    return pd.DataFrame(found).reset_index()


def _training(record: Record) -> Section:
    task: dict[str, Any] = record.run["training"]
    words = (
        f"A net of {task['n_parameters']:,} parameters, trained by the nodes on {task['data']}. "
        "Each arm trains the same net from the same start; they differ in whose epsilon makes the "
        "noise. Test images are not in any node's data."
    )
    blocks: list[Block] = [Words(words)]
    if not record.training.empty:
        reached = ", ".join(f"{arm_label(a['name'])} {a['accuracy']:.1%}" for a in task["arms"])
        blocks.append(
            Picture(
                "accuracy",
                accuracy(record.training, task["arms"], task["data"]),
                f"Test accuracy round by round, which ends at: {reached}; and what the nodes earn "
                "in each arm.",
                data=record.training[["round", "arm", "accuracy"]],
                source="training.parquet",
                interactive=True,
            )
        )
    return Section("Training", [*blocks, arms_table(record)])
