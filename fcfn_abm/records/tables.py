"""The tables of records: their columns, with types, units and meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fcfn_abm.errors import InvalidRecordError
from fcfn_abm.process.folders import describe_error
from fcfn_abm.records.integrity import require_utf8

NO_UNIT = "1"
MONEY = "currency"
COST = "currency per unit of epsilon"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: str
    """An Arrow type: float64, int64, bool, string."""
    unit: str
    meaning: str


def _floats(unit: str, **meanings: str) -> list[Column]:
    return [Column(name, "float64", unit, meaning) for name, meaning in meanings.items()]


def _counts(**meanings: str) -> list[Column]:
    return [Column(name, "int64", NO_UNIT, meaning) for name, meaning in meanings.items()]


LEARNED = [
    *_floats(
        NO_UNIT,
        alpha="estimate of alpha when the cap was announced, per unit of epsilon",
        alpha_low="lower end of its central 95 % credible interval",
        alpha_high="upper end of the same",
    ),
    *_floats(
        MONEY,
        beta="estimate of beta when the cap was announced",
        beta_low="lower end of its central 95 % credible interval",
        beta_high="upper end of the same",
    ),
    *_floats(
        NO_UNIT,
        depreciation="estimated share of the accuracy gained so far that is lost per round",
        exploration="announced cap divided by the cap that the server's rule chose",
        accuracy="share of test images classified correctly after the round",
        gain="increase of accuracy, or decrease of the loss, in the round of training",
    ),
    *_floats(
        MONEY,
        measured_value="the gain plus the loss of the stock, at value.price",
        expected_value="beta ln(1 + alpha eps_g) by the estimate after the round",
        expected_value_low="lower end of its central 95 % credible interval",
        expected_value_high="upper end of the same",
        misfit="root mean square distance of the fitted logarithm to the best concave curve",
    ),
    *_floats(
        NO_UNIT,
        epsilon_spent="true epsilon of all rounds so far, of the node that spent most, as "
        "privacy.view sees it",
    ),
]
"""Columns of the rounds in which a server learns the value of epsilon: scenarios with [value]."""

TABLES: dict[str, list[Column]] = {
    "rounds": [
        *_counts(round="number of the round, from 1"),
        *_floats(MONEY, budget="announced payment cap B"),
        *_floats(
            NO_UNIT, total_epsilon="S, sum of all reports", mean_epsilon="eps_g, mean epsilon"
        ),
        *_counts(
            n_active="nodes that take part, with more than 1e-8 of the largest share",
            n_inactive="other nodes that are in the market in this round",
            n_exited="nodes that left before; the three sum to the nodes that are there",
        ),
        *_floats(
            MONEY,
            payment="what the server paid to all nodes",
            node_utility="sum of the nodes' utilities",
            server_utility="utility of the server",
            welfare="sum of all utilities",
        ),
        *_floats(
            NO_UNIT,
            exploitability="largest gain of a node from deviating alone, as a share of B",
            change="largest change of an epsilon, as a share of the largest epsilon",
            distance="largest distance to the closed form at this B, as a share of its largest",
        ),
        *_counts(
            n_present="nodes that are there",
            n_arrived="nodes that arrived in this round",
            n_departed="nodes that went away for good in this round",
        ),
        *_floats(MONEY, equilibrium_budget="B* of the nodes that are there (41)"),
        *_counts(equilibrium_n_active="nodes that take part in their closed form"),
        *_floats(NO_UNIT, equilibrium_total_epsilon="S of their closed form at this B"),
        *_floats(
            MONEY,
            money_spent="what the server has paid so far, this round included",
            money_left="what is left of game.total_budget",
        ),
        *LEARNED,
    ],
    "nodes": [
        *_counts(node="row of the node, from 0"),
        Column("group", "string", NO_UNIT, "group of the node, in population.groups"),
        *_floats(
            COST,
            rho="unit privacy cost, of a unit of the report",
            true_rho="unit privacy cost, of a unit that is spent",
        ),
        *_floats(
            NO_UNIT,
            misreport_factor="reported over spent epsilon, one if truthful; what training spends "
            "is recorded as it was reported",
        ),
        Column(
            "manipulates",
            "bool",
            NO_UNIT,
            "whether it is in a coalition, or has several identities",
        ),
        *_counts(
            identities="number of its identities; 0 if another member of its coalition reports"
        ),
        *_floats(NO_UNIT, epsilon="final report"),
        *_floats(MONEY, payment="final payment", utility="final utility"),
        Column("active", "bool", NO_UNIT, "whether the node takes part in the end"),
        *_counts(exit_round="round at whose end the node left; empty if it stayed"),
        Column("exit_reason", "string", NO_UNIT, "why it left: no-gain, or sold-out, its total"),
        *_floats(NO_UNIT, total_sold="epsilon sold in all rounds, the sum of its reports"),
        *_floats(NO_UNIT, equilibrium_epsilon="epsilon that the mechanism leads to"),
        *_floats(MONEY, equilibrium_utility="utility that the mechanism leads to"),
        *_counts(arrival_round="round in which the node arrived; 0 if it was there at first"),
        *_floats(COST, first_rho="unit privacy cost of the node when it arrived"),
        *_counts(n_samples="training samples of the node"),
        *_floats(
            NO_UNIT,
            label_divergence="total variation between the node's label shares and the global ones",
            noise_multiplier="the node's own noise: standard deviation over L2 sensitivity, one "
            "release",
            noise_std="the node's own noise: standard deviation on each parameter, one release",
            epsilon_per_round="true epsilon of one round of training",
            epsilon_sold="true epsilon for which the noise was calibrated: of one round, or of all "
            "that the node may take part in, by privacy.horizon; under privacy.view",
            epsilon_total="true epsilon spent in the whole training, by composition",
            epsilon_central="the same as the server sees it under secure aggregation: the sum "
            "alone, if all nodes add their noise",
            delta="delta of the four",
            zcdp_sold="rho of zCDP for which the noise was calibrated, as epsilon_sold",
            zcdp_total="rho of zCDP spent in the whole training, the sum over its rounds",
            zcdp_central="the same as the server sees it under secure aggregation",
        ),
        *_counts(flagged_round="round of training in which the check flagged the node, if it did"),
    ],
    "traces": [
        *_counts(round="number of the round, from 1", node="row of the node"),
        *_floats(NO_UNIT, epsilon="report of the round"),
        *_floats(MONEY, payment="payment of the round", utility="utility of the round"),
    ],
    "training": [
        Column(
            "arm",
            "string",
            NO_UNIT,
            "which training: with the market's epsilon, a mechanism's, or no noise",
        ),
        *_counts(round="number of the round; 0 is before training"),
        *_floats(
            NO_UNIT,
            accuracy="share of test images classified correctly",
            loss="mean cross entropy on the test images",
            signal_to_noise="norm of the clean aggregate over norm of its noise",
        ),
        *_counts(n_nodes="nodes that trained"),
    ],
    "ledger": [
        *_counts(round="number of the round, from 1", node="row of the node, which trained in it"),
        *_floats(
            NO_UNIT,
            epsilon_round="true epsilon of the round alone",
            epsilon_total="true epsilon of all rounds so far, by composition",
            epsilon_central="the same as the server sees it under secure aggregation: the sum "
            "alone, if all nodes add their noise",
            zcdp_round="rho of zCDP of the round alone",
            zcdp_total="rho of zCDP of all rounds so far: their sum",
        ),
    ],
}
"""The columns of a run's record."""

NAME = Column("name", "string", NO_UNIT, "name of the node, in the file that its cost comes from")
"""Follows the column ``node`` in every table if nodes have names."""

WHERE_ASKED_FOR = (
    "group",
    *("true_rho", "misreport_factor", "flagged_round"),
    *("arrival_round", "first_rho", "epsilon_sold"),
    *("exit_reason", "total_sold"),
    *("manipulates", "identities"),
    *("zcdp_sold", "zcdp_total", "zcdp_central"),
)
"""Columns of the nodes that only some records have: those with groups, misreports, a check,
churn, training, limits over all rounds, coalitions, split identities, or zCDP."""

ZCDP_LEDGER = ("zcdp_round", "zcdp_total")
"""Columns of the ledger if zCDP's rho is sold."""

TRACKING = {
    "tracking_distance": "distance to the moving equilibrium, mean over rounds of churn",
    "tracking_total_error": "relative distance of S to its S, mean over the same rounds",
    "tracking_exploitability": "largest gain of a node from deviating alone, as a share of B, mean "
    "over them",
    "tracking_n_present": "nodes that are there, mean over the same rounds",
    "tracking_participation": "share of them that take part, mean over the same rounds",
    "tracking_equilibrium_participation": "the same in closed form",
}
"""Columns of sweeps with churn: how closely the market follows its equilibrium."""

MANIPULATION = {
    "manipulators_gain": "utility of the nodes that agree, come as several, or report false costs",
    "outsiders_gain": "the same of all other nodes together",
    "server_gain": "the same of the server",
}
"""Columns of sweeps with such nodes, in currency: utilities as played minus those without any
manipulation, both in closed form under the same cap."""

BY_GROUP = {
    "n_nodes": Column("n_nodes", "int64", NO_UNIT, "nodes of the group that are there"),
    "n_active": Column("n_active", "int64", NO_UNIT, "nodes of the group that take part"),
    "total_epsilon": Column("total_epsilon", "float64", NO_UNIT, "sum of the group's reports"),
    "payment": Column("payment", "float64", MONEY, "what the server paid to the group"),
    "node_utility": Column("node_utility", "float64", MONEY, "sum of the group's utilities"),
    "equilibrium_n_active": Column(
        "equilibrium_n_active", "int64", NO_UNIT, "nodes of the group that take part in closed form"
    ),
    "equilibrium_total_epsilon": Column(
        "equilibrium_total_epsilon", "float64", NO_UNIT, "sum of the group's reports in closed form"
    ),
    "equilibrium_node_utility": Column(
        "equilibrium_node_utility", "float64", MONEY, "sum of the group's utilities in closed form"
    ),
}
"""Columns summed over each group; sweeps with groups have ``group.NAME.n_active`` and so on."""

OTHER_TABLES: dict[str, list[Column]] = {
    "bench": [
        Column("costs", "string", NO_UNIT, "distribution of costs, of [bench.costs]"),
        Column("data", "string", NO_UNIT, "data partition, of [bench.data]"),
        *_floats(MONEY, budget="payment cap B of the cell"),
        Column("mode", "string", NO_UNIT, "equal-cap, equal-spending or equal-epsilon"),
        Column("mechanism", "string", NO_UNIT, "registered name of the mechanism"),
        *_counts(
            replication="number of the population, from 0; the same for all mechanisms and modes",
            seed="seed that the population was drawn with",
        ),
        Column(
            "status",
            "string",
            NO_UNIT,
            "solved, no-trade, no-solution, or not-reachable: the mechanism cannot be set to this",
        ),
        Column("reason", "string", NO_UNIT, "why there is no trade or no solution, or why not"),
        Column("settings", "string", NO_UNIT, "settings with which it was reached"),
        *_counts(
            n_nodes="nodes of the population",
            n_active="nodes that take part",
            n_losing="nodes with a negative utility",
        ),
        *_floats(
            NO_UNIT,
            participation="share of the nodes that take part",
            effective_number="S squared over the sum of the squares of epsilon",
            total_epsilon="S, sum of all epsilon",
            largest_epsilon="largest epsilon of a node",
            mean_epsilon="eps_g, mean epsilon, by game.average_over",
        ),
        *_floats(
            MONEY,
            server_payment="total payment of the server",
            node_utility="sum of the nodes' utilities",
            server_utility="utility of the server",
            agency_utility="utility of the agency",
            welfare="sum of all utilities",
        ),
        *_floats(
            NO_UNIT,
            rent="share of the nodes' payments that is no privacy cost; empty without payments",
            regret="largest gain of one node from a deviation, as a share of payments; empty "
            "with other costs than rho epsilon, caps, fixed costs or a reserve",
            left_out_rank="mean rank in cost of the nodes outside, from 0, cheapest, to 1",
            expensive_third="share that takes part of the third with the highest costs",
            unusual_third="share that takes part of the third with the most unusual labels",
            accuracy="share of test images classified correctly, mean of the last rounds",
            true_epsilon="epsilon spent in the whole training, by composition, mean over the nodes "
            "that take part",
            largest_true_epsilon="the same, largest of them",
        ),
    ],
    "comparison": [
        *_counts(
            replication="number of the population, from 0, which is the scenario's own",
            seed="seed that the population was drawn with",
        ),
        Column("mechanism", "string", NO_UNIT, "registered name of the mechanism"),
        Column("status", "string", NO_UNIT, "solved, no-trade or no-solution"),
        Column("reason", "string", NO_UNIT, "why there is no trade or no solution"),
        *_counts(n_nodes="nodes of the population"),
        *_floats(MONEY, budget="payment cap B, the same for all mechanisms"),
        *_counts(n_active="nodes that take part", n_losing="nodes with a negative utility"),
        *_floats(
            NO_UNIT,
            participation="share of the nodes that take part",
            mean_epsilon="eps_g, mean epsilon",
        ),
        Column("average_over", "string", NO_UNIT, "nodes over which the mean epsilon is taken"),
        *_floats(
            NO_UNIT,
            noise_multiplier="noise standard deviation over L2 sensitivity of one release with all "
            "of epsilon, mean over the nodes that take part",
        ),
        *_floats(
            MONEY,
            mean_node_utility="mean of the nodes' utilities, those outside included",
            node_utility="sum of the nodes' utilities",
            server_utility="utility of the server",
            agency_utility="utility of the agency",
            server_payment="total payment of the server",
            welfare="sum of all utilities",
            optimum="largest possible welfare",
        ),
        *_floats(
            NO_UNIT,
            price_of_anarchy="optimum over welfare; infinite where welfare is not positive",
            rent_dissipation="privacy costs as a share of the nodes' payments",
            gini="Gini index of all nodes' utilities; nan if one is negative",
        ),
    ],
    "calibration": [
        *_counts(
            replication="number of the repetition, from 0",
            seed="seed of its data split, first net and noise",
        ),
        *_floats(
            NO_UNIT,
            epsilon="epsilon of every node",
            accuracy="share of test images classified correctly at the end",
            loss="mean cross entropy on the test images in the end",
            signal_to_noise="norm of the last round's clean aggregate over norm of its noise",
        ),
        *_floats(MONEY, value="accuracy above chance, times the value of an accuracy of 100 %"),
    ],
    "sweep": [
        *_counts(
            run="number of the run, from 0",
            replication="number of the replication, from 0, which has the scenario's own seed",
            seed="seed of the run",
        ),
        Column("status", "string", NO_UNIT, "done, failed or, as long as it has not run, missing"),
        Column("error", "string", NO_UNIT, "why it failed, in a sentence"),
        Column("verdict", "string", NO_UNIT, "how the market ended"),
        *_counts(
            rounds="rounds that the market played",
            n_nodes="nodes of the population",
            n_active="nodes that take part in the end",
        ),
        *_floats(
            NO_UNIT,
            participation="share of the nodes that take part in the end",
            total_epsilon="S, sum of all reports",
            mean_epsilon="eps_g, mean epsilon",
        ),
        *_floats(
            MONEY,
            budget="announced payment cap B",
            payment="what the server paid to all nodes",
            node_utility="sum of the nodes' utilities",
            server_utility="utility of the server",
            welfare="sum of all utilities",
        ),
        *_floats(
            NO_UNIT,
            exploitability="largest gain of a node from deviating alone, as a share of B",
            distance="largest distance to the closed form at this B, as a share of its largest",
            budget_ratio="B over B*, the server's best cap; empty where no trade pays",
        ),
        *_floats(MONEY, server_regret="what the server would gain with B*"),
        *_floats(NO_UNIT, **TRACKING),
        *_floats(MONEY, **MANIPULATION),
        Column("equilibrium_status", "string", NO_UNIT, "solved, no-trade or no-solution"),
        *_counts(equilibrium_n_active="nodes that take part where the mechanism leads to"),
        *_floats(
            NO_UNIT,
            equilibrium_total_epsilon="sum of all reports that the mechanism leads to",
            equilibrium_mean_epsilon="mean epsilon that the mechanism leads to",
        ),
        *_floats(
            MONEY,
            equilibrium_payment="what the server pays where the mechanism leads to",
            equilibrium_node_utility="sum of the nodes' utilities there",
            equilibrium_server_utility="utility of the server there",
        ),
        *_floats(
            NO_UNIT,
            accuracy="share of test images classified correctly, trained with the market's epsilon",
            loss="mean cross entropy on the test images",
            mean_epsilon_total="true epsilon of the whole training, mean over nodes that take part",
            max_epsilon_total="the same, largest of them",
        ),
    ],
}
"""Tables that are stored in their own folder."""


_OPTIONAL: dict[str, Iterable[str]] = {
    "rounds": (
        "n_inactive",
        *("n_present", "n_arrived", "n_departed"),
        *("equilibrium_budget", "equilibrium_n_active", "equilibrium_total_epsilon"),
        *(column.name for column in LEARNED),
        *("money_spent", "money_left"),
    ),
    "nodes": (*WHERE_ASKED_FOR, "epsilon_central"),
    "ledger": ("epsilon_central", *ZCDP_LEDGER),
    "sweep": (*TRACKING, *MANIPULATION),
}
"""Columns that some records lack: the optional ones, and those added in later versions."""

_IS_KIND = {
    "float64": pa.types.is_floating,
    "int64": pa.types.is_integer,
    "bool": pa.types.is_boolean,
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
}


def columns_of(name: str) -> list[Column]:
    """Return the columns of a table."""
    return (TABLES | OTHER_TABLES)[name]


def schema_of(name: str, *, narrow: bool = False) -> pa.Schema:
    """Return the Arrow schema of a table, with units and meanings; in 32 bits if ``narrow``."""
    return _schema(columns_of(name), narrow=narrow)


def _schema(columns: Iterable[Column], *, narrow: bool = False) -> pa.Schema:
    return pa.schema(
        pa.field(
            column.name,
            pa.type_for_alias(column.kind.replace("64", "32") if narrow else column.kind),
            metadata={"unit": column.unit, "description": column.meaning},
        )
        for column in columns
    )


def table_of(rows: Sequence[Mapping[str, Any]], columns: Iterable[Column]) -> pa.Table:
    """Return rows as an Arrow table; keys that a row lacks become missing values."""
    return pa.Table.from_pylist(rows, schema=_schema(columns))


def write_table(name: str, frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as Parquet, with units and meanings in the columns' metadata."""
    columns = [column for column in columns_of(name) if column.name in frame.columns]
    if NAME.name in frame.columns:
        columns.insert(1 + [column.name for column in columns].index("node"), NAME)
    schema = _schema(columns)
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({}), path, compression="zstd")


def insert_names(frame: pd.DataFrame, names: Sequence[str | None] | None) -> pd.DataFrame:
    """Return a table with a column of node names after the numbers, or unchanged without names."""
    if names is None:
        return frame
    place = list(frame.columns).index("node")
    column = np.array(names, dtype=object)[frame["node"].to_numpy(dtype=np.intp)]
    frame = frame.copy(deep=False)
    frame.insert(place + 1, NAME.name, pd.Series(column, frame.index, dtype="str"))
    return frame


def read_table(path: Path) -> pd.DataFrame:
    """Read a frame from disk; optional integers are pandas' nullable integers.

    Raises
    ------
    InvalidRecordError
        If it cannot be read, or its columns are not those of the table with the file's name.
    """
    require_utf8(path)
    if not path.is_file():  # Arrow reads an empty folder as an empty table
        what = "it is not a file" if path.exists() else "it does not exist"
        raise InvalidRecordError(f"{path}: cannot be read: {what}.")
    try:
        table = pq.read_table(path)
        _require_columns(table.schema, path.stem)
        return frame_of(table)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidRecordError(f"{path}: cannot be read: {describe_error(error)}.") from error


def _require_columns(schema: pa.Schema, name: str) -> None:
    for column in (TABLES | OTHER_TABLES).get(name, ()):
        if column.name in _OPTIONAL.get(name, ()) and column.name not in schema.names:
            continue
        if schema.names.count(column.name) != 1:
            raise ValueError(f"it has no column {column.name!r}, or more than one.")
        kind = schema.field(column.name).type
        if not _IS_KIND[column.kind](kind):
            raise ValueError(f"its column {column.name!r} has type {kind}, not {column.kind}.")


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as a frame; optional integers are pandas' nullable integers."""
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    frame: pd.DataFrame = table.to_pandas()
    missing = [name for name in integers if table[name].null_count]
    for name in missing:
        frame[name] = table[name].to_pandas(integer_object_nulls=True).astype("Int64")
    return frame


def empty(name: str) -> pd.DataFrame:
    """Return an empty table; for the ledger, that of epsilon only."""
    left_out = ZCDP_LEDGER if name == "ledger" else ()
    kinds: Iterable[tuple[str, str]] = (
        (c.name, "str" if c.kind == "string" else c.kind)
        for c in columns_of(name)
        if c.name not in left_out
    )
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds})
