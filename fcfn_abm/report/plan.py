"""Each node's privacy plan, for programs that train elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from fcfn_abm.errors import InvalidRecordError, as_path, require_known
from fcfn_abm.records import Record, raise_as_output_error, read_record, write_file
from fcfn_abm.records.folders import resolve_output_file
from fcfn_abm.records.integrity import raise_as_record_error

COLUMNS: dict[str, tuple[str, str]] = {
    "node": ("1", "row of the node in the record, from 0"),
    "epsilon": ("1", "epsilon that the market led to: per round or in total, see horizon"),
    "sigma": ("1", "noise standard deviation on each parameter of one release"),
    "noise_multiplier": ("1", "sigma over the L2 sensitivity of one release"),
    "n_samples": ("1", "training samples of the node, for which sigma holds"),
    "payment_currency": ("currency per round", "payment of the server to the node"),
    "epsilon_per_round": ("1", "true epsilon of one round, at delta"),
    "epsilon_total": ("1", "true epsilon spent in all rounds, by composition, at delta"),
}
"""Columns of the nodes, with units and meanings."""

ZCDP: dict[str, tuple[str, str]] = {
    "zcdp_sold": ("1", "rho of zCDP that the market led to: per round or in total, see horizon"),
    "zcdp_total": ("1", "rho of zCDP spent in all rounds together"),
}
"""The same if zCDP's rho is sold; ``epsilon`` is then the epsilon it implies at delta."""

COMMON: dict[str, tuple[str, str]] = {
    "rounds": ("1", "rounds of training"),
    "max_participations": ("1", "most rounds in which a node takes part"),
    "delta": ("1", "probability with which epsilon may be exceeded"),
    "unit": ("", "what epsilon protects: one record, or all data of a client"),
    "neighbours": ("", "how neighbouring data sets differ: replace-one or zero-out"),
    "horizon": ("", "whether epsilon is spent in each round, or in the whole training"),
    "view": (
        "",
        "adversary against which epsilon holds: local, who sees the node's own messages; "
        "central, the server, which must see only the sum",
    ),
    "calibration": ("", "method that calibrated sigma"),
    "placement": ("", "where clipping and noise are applied: docs/privacy.md"),
    "sampling_rate": ("1", "probability with which each record takes part in a release"),
    "clipping_norm": ("1", "largest L2 norm of a clipped gradient or update"),
    "local_epochs": ("1", "passes of a node over its own data per round"),
    "batch_size": ("1", "samples per local step; none: all samples of the node"),
    "learning_rate": ("1", "of the local steps"),
    "momentum": ("1", "of the local steps"),
    "note": (
        "",
        "why the noise does not give the claimed epsilon, or why no node trains; none if "
        "the claim holds",
    ),
}
"""Settings common to all nodes."""

_NO_TRADE = "No node trains: there is no trade at the end of the market."


def export_plan(
    record: Record | str | Path,
    out: str | Path | None = None,
    format: str = "json",  # noqa: A002 - name of the command's option
    *,
    overwrite: bool = False,
) -> str:
    """Export the plan of each node that trains: epsilon, noise, rounds and payment.

    Parameters
    ----------
    record : Record, str or Path
        A run that trained, or its folder.
    out : str or Path, optional
        File to write to.
    format : {"json", "csv"}, default "json"
        One object with ``plan`` (common settings), ``nodes`` and ``units``; or one row per node
        with all columns.
    overwrite : bool, default False
        Whether to replace an existing file ``out``.

    Returns
    -------
    str
        The text of the plan. Nodes that take no part are left out.

    Raises
    ------
    InvalidRecordError
        If the run trained no net, so that there is no noise to export.
    OutputError
        If ``out`` exists, or cannot be written.
    UnknownNameError
        If the format is not known.

    Examples
    --------
    >>> import fcfn_abm as fa
    >>> scenario = fa.load_scenario("quickstart", ["training.rounds=1", "training.compare=[]"])
    >>> text = export_plan(fa.run_scenario(scenario), format="csv")
    >>> text.splitlines()[0].split(",")[:3]
    ['node', 'epsilon', 'sigma']
    """
    require_known("format of plans", format, ["csv", "json"])
    if out is not None:
        out = resolve_output_file(as_path("out", out), overwrite=overwrite)
    record = record if isinstance(record, Record) else read_record(record)
    with raise_as_record_error(record.path):
        text = _text(record, format)
    if out is not None:
        with raise_as_output_error(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_file(out, text.encode())
    return text


def _text(record: Record, form: str) -> str:
    nodes = _nodes(record)
    common = _common(record, any_train=len(nodes) > 0)
    if form == "csv":
        return nodes.assign(**common).to_csv(index=False, lineterminator="\n")
    whole = {
        "title": record.scenario.title,
        "seed": record.scenario.seed,
        "plan": common,
        "nodes": nodes.to_dict("records"),
        "units": {
            name: unit
            for name, (unit, _) in (COMMON | COLUMNS | ZCDP).items()
            if unit and (name in common or name in nodes)
        },
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _nodes(record: Record) -> pd.DataFrame:
    if not record.scenario.trains:
        raise InvalidRecordError(
            f"{record.path or 'The record'}: this run trained no net, so its noise was not "
            "calibrated. Add a [training] table to its scenario and run it again."
        )
    nodes = record.nodes[record.nodes["active"]]
    names = {"sigma": "noise_std", "payment_currency": "payment"}
    columns = list(COLUMNS)
    if record.scenario.privacy.currency == "zcdp":
        names["epsilon"] = "epsilon_sold"
        columns += ZCDP
    plan = pd.DataFrame({name: nodes[names.get(name, name)] for name in columns})
    if "name" in nodes:  # the file of costs names the nodes
        known = nodes["name"].astype(object).where(nodes["name"].notna(), None)
        plan.insert(1, "name", known)
    return plan


def _common(record: Record, *, any_train: bool) -> dict[str, Any]:
    privacy, training = record.scenario.privacy, record.scenario.training
    note = record.run["training"].get("privacy_note") if any_train else _NO_TRADE
    found = {
        **privacy.model_dump(),
        **(training.model_dump() if training else {}),
        "max_participations": record.run["training"].get("max_participations"),
        "placement": privacy.placement.kind,
        "sampling_rate": privacy.placement.options.get("sampling_rate", 1.0),
        "note": note or None,
    }
    common = {name: found[name] for name in COMMON}
    return {**common, "currency": "zcdp"} if privacy.currency == "zcdp" else common
