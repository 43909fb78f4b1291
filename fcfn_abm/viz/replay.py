"""A record that is replayed in the window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fcfn_abm.records import Record, sample_rows
from fcfn_abm.records.integrity import raise_as_record_error
from fcfn_abm.viz.frame import Floats, Frame, Path, Rows, Training

_MOST_VALUES = 4_000_000  # traces with more rows than this are sampled
_FEWER = 512  # number of nodes in that sample


class Replay:
    """Steps through the rounds of a record, followed by its training.

    Parameters
    ----------
    record : Record
        From :func:`fcfn_abm.read_record`.
    """

    live = False

    def __init__(self, record: Record) -> None:
        self.record = record
        with raise_as_record_error(record.path):
            self._read(record)

    def _read(self, record: Record) -> None:
        self._form, self._verdict = (
            _form(record.run["equilibrium"]),
            _verdict(record.run["verdict"]),
        )
        self.rounds = record.rounds.reset_index(drop=True)
        # with churn, some node numbers have no row, so number and row differ
        self._places = _index_of(record.nodes["node"])
        self.traces = _traces(record)
        self._shown = {int(str(k)): group for k, group in self.traces.groupby("round")}
        settings = record.scenario.training
        self._trains_after = settings is not None and settings.schedule == "at-equilibrium"
        trained = int(record.training["round"].max()) if len(record.training) else 0
        n_rounds = len(self.rounds)
        self._moments = n_rounds + trained if self._trains_after else max(n_rounds, trained)
        self.moment = self._moments

    @property
    def scenario(self) -> Any:
        """The scenario of the run."""
        return self.record.scenario

    @property
    def moments(self) -> int:
        """Rounds of the market, followed by rounds of training."""
        return self._moments

    @property
    def over(self) -> bool:
        """Whether the replay is at its end."""
        return self.moment >= self._moments

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The verdict of the run, once its last round is shown."""
        return self._verdict if self.round == len(self.rounds) else None

    @property
    def round(self) -> int:
        """The round of the market at this moment."""
        return min(self.moment, len(self.rounds))

    def step(self) -> None:
        """Advance by one round."""
        self.seek(self.moment + 1)

    def seek(self, moment: int) -> None:
        """Go to a moment, from 1."""
        self.moment = min(max(moment, 1), self._moments)

    @property
    def first_moment(self) -> int:
        """The first round."""
        return 1

    def latest(self) -> Frame:
        """Return the state at this moment; later rounds are not shown."""
        return self.frame()

    def frame(self) -> Frame:
        """Return the state at this moment."""
        with raise_as_record_error(self.record.path):
            return self._frame()

    def _frame(self) -> Frame:
        nodes = shown = about = self.record.nodes
        if self.round < len(self.rounds):
            shown = self._shown.get(self.round, self.traces.iloc[:0])
            places = self._places.get_indexer(pd.Index(shown["node"]))
            known = places >= 0  # the costs of departed nodes are not recorded
            shown, about = shown[known], nodes.iloc[places[known]]
        rows = shown["node"].to_numpy(dtype=np.intp)
        rho = about["rho"].to_numpy()
        note = ""
        if rows.size < len(nodes):
            note = (
                f"Traces of only {rows.size:,} of {len(nodes):,} nodes were recorded; the last "
                "round shows all nodes."
                if rows.size
                else "No traces of this round were recorded; the last round shows all nodes."
            )
        return Frame(
            scenario=self.record.scenario,
            n_nodes=len(nodes),
            round=self.round,
            nodes=rows,
            rho=rho,
            epsilon=_floats(shown, "epsilon"),
            payment=_floats(shown, "payment"),
            utility=_floats(shown, "utility"),
            exited=about["exit_round"].to_numpy(dtype=float, na_value=np.nan) < self.round,
            history={name: self._so_far(name) for name in self.rounds.columns},
            form=self._form,
            priced=None if self._form["threshold"] else _floats(about, "equilibrium_epsilon"),
            by_cost=np.argsort(rho, kind="stable"),
            training=self._training(),
            note=note,
        )

    def _so_far(self, name: str) -> list[float]:
        return list(self.rounds[name].iloc[: self.round].tolist())

    def _training(self) -> Training | None:
        table = self.record.training
        if table.empty:
            return None
        after = self.moment - len(self.rounds) if self._trains_after else self.moment
        so_far = table[table["round"] <= max(after, 0)]
        curves = {
            str(arm): (part["round"].tolist(), part["accuracy"].tolist())
            for arm, part in so_far.groupby("arm", sort=False)
        }
        return Training(str(self.record.run["training"]["data"]), curves, int(table["round"].max()))

    def path(self, node: int) -> Path:
        """Return the reports of a node so far, if it was traced."""
        own = self.traces[(self.traces["node"] == node) & (self.traces["round"] <= self.round)]
        return Path(own["round"].tolist(), own["epsilon"].tolist())

    def exit_round(self, node: int) -> int | None:
        """Return the round at whose end a node last exited, if that is not in the future."""
        place = self._places.get_indexer(pd.Index([node]))[0]
        if place < 0:
            return None
        round_index = self.record.nodes["exit_round"].iloc[place]
        gone = not pd.isna(round_index) and int(round_index) <= self.round
        return int(round_index) if gone else None


def _form(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the closed form that the pictures show, as numbers."""
    names = ("threshold", "total_epsilon", "payment", "node_utility", "server_utility")
    return {
        "mechanism": facts["mechanism"],
        "average_over": facts["average_over"],
        "n_active": int(facts["n_active"]),
        **{name: float(facts[name]) for name in names},
    }


def _verdict(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    texts = {name: str(facts[name]) for name in ("kind", "reason")}
    leader = {  # absent from older records, and without trade
        name: None if facts.get(name) is None else float(facts[name])
        for name in ("budget_ratio", "server_regret")
    }
    return {**texts, "rounds": int(facts["rounds"]), **leader}


def _index_of(node: pd.Series) -> pd.Index:
    """Return an index from node numbers to rows."""
    found: pd.Index = pd.RangeIndex(len(node))
    if not found.equals(pd.Index(node)):
        found = pd.Index(node)
    if not found.is_unique:
        raise ValueError("nodes.parquet has two rows for a node")
    return found


def _floats(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(dtype=float)


def _traces(record: Record) -> pd.DataFrame:
    """Return the traces of all nodes, or of a sample if they have too many rows."""
    n_nodes = len(record.nodes)
    if record.kept_traces is not None and len(record.kept_traces) <= _MOST_VALUES:
        return record.kept_traces
    if record.kept_traces is None and n_nodes * len(record.rounds) <= _MOST_VALUES:
        return record.traces
    expected = (record.nodes["equilibrium_epsilon"] > 0).to_numpy()
    rows: Rows = sample_rows(record.nodes["rho"].to_numpy(), _FEWER, expected)
    return record.traces_of(record.nodes["node"].iloc[rows])  # numbers may have gaps
