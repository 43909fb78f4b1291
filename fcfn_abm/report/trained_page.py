"""The part of a run's report about training and the privacy that it spends."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fcfn_abm.records import Record
from fcfn_abm.report.blocks import Block, Picture, Section, Terms, Words, number
from fcfn_abm.report.figures.training import accuracy, ledger
from fcfn_abm.report.summary import free_riders_table, privacy_table, trainings_table
from fcfn_abm.report.theme import training_label

_RIDERS = (
    "Some nodes report one epsilon and add the noise of a smaller one, so they are paid for "
    "privacy that they do not give up. The table shows their gain and the loss of the other nodes."
)


def training_sections(record: Record) -> list[Section]:
    """Return the sections on privacy, on training, and on free riders if there are any.

    Parameters
    ----------
    record : Record
        Record of a run that trained.
    """
    sections = [_privacy(record), _training(record)]
    if riders := free_riders_table(record):
        sections.append(Section("Free riders", [Words(_RIDERS), riders]))
    return sections


def _privacy(record: Record) -> Section:
    spent = privacy_table(record)
    if spent is None:
        return Section("Privacy", [Words("No node trains: there is no trade.")])
    settings = record.scenario.privacy
    protects = "one sample of a node's data" if settings.unit == "record" else "all data of a node"
    words = (
        "Under differential privacy, whoever sees what a node sends learns little about whether "
        f"{protects} was replaced: the odds change by a factor of at most exp(epsilon), except "
        f"with probability {settings.delta:g} (delta). Every round spends privacy. The total over "
        "all rounds is what counts, so the table shows both."
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
                "Lines are the median node; bands span the nodes from the smallest to the largest "
                "spending.",
                _summarise_ledger(record.ledger),
                "ledger.parquet",
                interactive=True,
            )
        )
    blocks.append(
        Terms(
            {
                "From the server's view": "what the sum of all uploads reveals. Under secure "
                "aggregation the server sees only this sum, if the other nodes add their noise.",
                "Noise multiplier": "the standard deviation of the noise divided by the L2 "
                "sensitivity of one release.",
            }
        )
    )
    return Section("Privacy spent", blocks)


def _summarise_ledger(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return the least, the median and the largest spending of the nodes, one row per round."""
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
        "All trainings start from the same net and differ in the epsilon that sets the noise. "
        "No node holds test images."
    )
    blocks: list[Block] = [Words(words)]
    if not record.training.empty:
        trainings = task["arms"]
        reached = ", ".join(f"{training_label(a['name'])} {a['accuracy']:.1%}" for a in trainings)

        blocks.append(
            Picture(
                "accuracy",
                accuracy(record.training, task["arms"], task["data"]),
                f"Test accuracy round by round by training, ending at {reached}; and the nodes' "
                "utility in each training.",
                data=record.training[["round", "arm", "accuracy"]],
                source="training.parquet",
                interactive=True,
            )
        )
    return Section("Training", [*blocks, trainings_table(record)])
