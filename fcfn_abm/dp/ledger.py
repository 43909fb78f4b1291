"""The privacy that every node has spent so far, release by release.

There are two views of the same releases. The local view is that of an observer of a node's own
messages. The central view is that of the server if secure aggregation reveals only the weighted
sum, so that every node is hidden by the noise of all. It assumes that the aggregation is secure,
and that the other nodes add the noise that they reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp.accounting import (
    require_sampling,
    spent_epsilon,
    spent_epsilon_of_runs,
    spent_zcdp,
)
from fcfn_abm.dp.sensitivity import Relation
from fcfn_abm.errors import (
    InvalidPrivacyError,
    MissingExtraError,
    as_floats,
    require_counts,
    require_positive,
    require_unmasked,
)

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]

_COLUMNS = ("node", "multiplier", "central", "n_releases")


def central_multipliers(weights: Floats, noise_std: Floats, sensitivity: Floats) -> Floats:
    """Return the noise multipliers of the nodes if the server sees only their weighted sum.

    Parameters
    ----------
    weights : ndarray of float, shape (n,)
        Weight of each node's release in the sum.
    noise_std : ndarray of float, shape (n,)
        Noise standard deviation of each release.
    sensitivity : ndarray of float, shape (n,)
        L2 sensitivity of each release, in the same unit.

    Returns
    -------
    ndarray of float, shape (n,)
        ``sqrt(sum_j (w_j sigma_j)**2) / (w_i Delta_i)``: never less than a node's own. Exact for
        one release per round, if every node adds its noise.

    Raises
    ------
    InvalidPrivacyError
        If a number is not positive and finite.

    Examples
    --------
    >>> central_multipliers(np.full(4, 0.25), np.ones(4), np.ones(4))  # four times the variance
    array([2., 2., 2., 2.])
    """
    require_positive(
        error=InvalidPrivacyError, weights=weights, noise_std=noise_std, sensitivity=sensitivity
    )
    noise = float(np.sqrt(((weights * noise_std) ** 2).sum()))
    # a node that is alone in the sum has its own noise, despite rounding
    return np.asarray(np.maximum(noise / (weights * sensitivity), noise_std / sensitivity))


@dataclass(frozen=True)
class Spending:
    """Releases of some nodes in one round, arrays of shape (n,)."""

    nodes: Ints
    """Rows of the nodes that took part."""
    multipliers: Floats
    """Noise standard deviation divided by sensitivity of one release."""
    n_releases: int
    """Number of releases of each node."""


class Ledger:
    """Records the releases of each node, and computes their total privacy cost.

    Parameters
    ----------
    n_nodes : int
        Number of nodes.
    sampling_rate : float, default 1.0
        Probability that a record takes part in a release.
    neighbours : {"zero-out", "replace-one"}, default "zero-out"
        Relation to which the multipliers' sensitivities refer.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range, or the relation is unknown.

    Notes
    -----
    Without sampling the sum is exact: Gaussian releases add as ``1 / z**2``. With sampling, equal
    releases are counted and charged as by :func:`spent_epsilon`, and those of a node whose
    multiplier changed over time are composed as by :func:`spent_epsilon_of_runs`.

    Examples
    --------
    >>> ledger = Ledger(3)
    >>> for _ in range(9):
    ...     ledger.spend([0, 2], [6.0, 3.0])
    >>> ledger.epsilon(1e-5).round(3)  # nine releases are one with a third of the multiplier
    array([1.993, 0.   , 4.377])
    """

    latest: Spending | None = None
    """The entries of the last call of :meth:`spend`."""

    def __init__(
        self, n_nodes: int, sampling_rate: float = 1.0, neighbours: Relation = "zero-out"
    ) -> None:
        require_counts(error=InvalidPrivacyError, n_nodes=n_nodes)
        require_sampling(sampling_rate, neighbours)
        self.n_nodes, self.sampling_rate, self.neighbours = n_nodes, sampling_rate, neighbours
        # one row per run of equal releases of a node, in the order in which they began
        self._node = np.empty(0, dtype=np.int64)
        self._multiplier, self._central = np.empty(0), np.empty(0)
        self._n_releases = np.empty(0, dtype=np.int64)
        self._row = np.full(n_nodes, -1)  # each node's last row

    def spend(
        self,
        nodes: npt.ArrayLike,
        multipliers: npt.ArrayLike,
        n_releases: int = 1,
        central: npt.ArrayLike | None = None,
    ) -> None:
        """Record the releases of some nodes in a round.

        Parameters
        ----------
        nodes : array_like of int, shape (n,)
            Rows of the nodes that take part, without repetition.
        multipliers : array_like of float, shape (n,)
            Noise standard deviation divided by sensitivity of one release.
        n_releases : int, default 1
            Number of releases of each of them.
        central : array_like of float, shape (n,), optional
            The same under secure aggregation, from :func:`central_multipliers`. By default the
            central view claims no more than the local one.

        Raises
        ------
        InvalidPrivacyError
            If a node is unknown or repeated, if a number is not positive, or if ``central`` is less
            than the node's own multiplier or is given for several releases: what the server sees of
            later steps depends on a node's own noise in earlier ones, and nothing is proven about
            it.
        """
        nodes = _to_rows(nodes)
        multipliers = as_floats("multipliers", multipliers, error=InvalidPrivacyError)
        central = (
            multipliers
            if central is None
            else as_floats("central", central, error=InvalidPrivacyError)
        )
        self._require(nodes, multipliers, n_releases, central)
        rows = self._row[nodes]
        continues = rows >= 0
        continues[continues] = (self._multiplier[rows[continues]] == multipliers[continues]) & (
            self._central[rows[continues]] == central[continues]
        )
        self._n_releases[rows[continues]] += n_releases
        new = ~continues
        self._row[nodes[new]] = self._node.size + np.arange(np.count_nonzero(new))
        self._node = np.append(self._node, nodes[new])
        self._multiplier = np.append(self._multiplier, multipliers[new])
        self._central = np.append(self._central, central[new])
        self._n_releases = np.append(
            self._n_releases, np.full(np.count_nonzero(new), n_releases, dtype=np.int64)
        )
        self.latest = Spending(nodes, multipliers, n_releases)

    def _require(self, nodes: Ints, multipliers: Floats, n_releases: int, central: Floats) -> None:
        if nodes.ndim != 1 or not nodes.shape == multipliers.shape == central.shape:
            raise InvalidPrivacyError(
                "nodes and their multipliers must have the same length, but have shapes "
                f"{nodes.shape}, {multipliers.shape}, {central.shape}."
            )
        if ((nodes < 0) | (nodes >= self.n_nodes)).any() or np.unique(nodes).size < nodes.size:
            raise InvalidPrivacyError(
                f"nodes must be rows from 0 to {self.n_nodes - 1}, without repetition, but are "
                f"{nodes[:12].tolist()}{'...' if nodes.size > 12 else ''}."
            )
        require_counts(error=InvalidPrivacyError, n_releases=n_releases)
        if n_releases > 1 and (central != multipliers).any():
            raise InvalidPrivacyError(
                f"the central view requires one release per round, but there are {n_releases}; "
                "omit it."
            )
        _require_multipliers(nodes, multipliers, central)

    @property
    def n_releases(self) -> Ints:
        """Number of releases of each node, shape (n_nodes,)."""
        counts = np.zeros(self.n_nodes, dtype=np.int64)
        np.add.at(counts, self._node, self._n_releases)
        return counts

    def epsilon(self, delta: float, nodes: npt.ArrayLike | None = None) -> Floats:
        """Return what each node has spent so far against an observer of its own messages.

        Parameters
        ----------
        delta : float
            Failure probability of the guarantee.
        nodes : array_like of int, optional
            Rows of the nodes. By default all.

        Returns
        -------
        ndarray of float
            Dimensionless; zero for a node without releases.
        """
        return self._epsilon(self._multiplier, delta, nodes)

    def central_epsilon(self, delta: float, nodes: npt.ArrayLike | None = None) -> Floats:
        """Return what each node has spent so far against the server, which sees only the sum.

        As :meth:`epsilon`, and never more. Holds if aggregation is secure and the other nodes add
        their noise; for rounds with several releases it claims no more than the local view.
        """
        return self._epsilon(self._central, delta, nodes)

    def zcdp(self, nodes: npt.ArrayLike | None = None) -> Floats:
        """Return the zCDP rho that each node has spent so far, in the local view.

        It is exactly additive over releases; without sampling only.

        Raises
        ------
        InvalidPrivacyError
            If data are sampled: zCDP has no amplification by sampling, and no rho is claimed.
        """
        return self._zcdp(self._multiplier, nodes)

    def central_zcdp(self, nodes: npt.ArrayLike | None = None) -> Floats:
        """Return the same against the server, as :meth:`central_epsilon`."""
        return self._zcdp(self._central, nodes)

    def _zcdp(self, multiplier: Floats, nodes: npt.ArrayLike | None) -> Floats:
        if self.sampling_rate < 1:
            raise InvalidPrivacyError("zCDP is not available for sampled releases.")
        spent = np.zeros(self.n_nodes)
        np.add.at(spent, self._node, spent_zcdp(multiplier, self._n_releases))
        return spent if nodes is None else spent[_to_rows(nodes)]

    def epsilon_of(self, spending: Spending, delta: float) -> Floats:
        """Return what the nodes of one round spent in it, in the local view."""
        return spent_epsilon(
            spending.multipliers, spending.n_releases, delta, self.sampling_rate, self.neighbours
        )

    def _epsilon(self, multiplier: Floats, delta: float, nodes: npt.ArrayLike | None) -> Floats:
        if self.sampling_rate == 1:
            precision = np.zeros(self.n_nodes)
            np.add.at(precision, self._node, self._n_releases / multiplier**2)
            with np.errstate(divide="ignore"):
                combined, counts = 1 / np.sqrt(precision), np.ones(self.n_nodes, dtype=np.int64)
        else:
            combined, counts = np.full(self.n_nodes, np.inf), self.n_releases
            np.minimum.at(combined, self._node, multiplier)
            counts[counts == 0] = 1  # releases without information, with an infinite multiplier
        rows = np.arange(self.n_nodes) if nodes is None else _to_rows(nodes)
        sampling = (delta, self.sampling_rate, self.neighbours)
        if self.sampling_rate == 1:
            return spent_epsilon(combined[rows], counts[rows], *sampling)
        changed = np.zeros(self.n_nodes, dtype=bool)
        changed[self._node[multiplier != combined[self._node]]] = True
        spent, steady = np.empty(rows.size), ~changed[rows]
        spent[steady] = spent_epsilon(combined[rows[steady]], counts[rows[steady]], *sampling)
        order = np.argsort(self._node, kind="stable")
        first, last = (
            np.searchsorted(self._node[order], rows[~steady], side=side)
            for side in ("left", "right")
        )
        own = [order[start:end] for start, end in zip(first, last, strict=True)]
        spent[~steady] = [
            spent_epsilon_of_runs(
                list(zip(multiplier[at].tolist(), self._n_releases[at].tolist(), strict=True)),
                *sampling,
            )
            for at in own
        ]
        return spent

    def event(self, node: int) -> Any:
        """Return all releases of a node, for the accountants of dp-accounting.

        Parameters
        ----------
        node : int
            Row of the node.

        Returns
        -------
        dp_accounting.DpEvent
            For an accountant with :attr:`accounting_relation`.

        Raises
        ------
        MissingExtraError
            If dp-accounting is not installed.
        """
        accounting = _dp_accounting()
        rows = np.flatnonzero(self._node == node)
        if rows.size == 0:
            return accounting.NoOpDpEvent()
        sampled = self.sampling_rate < 1
        # dp-accounting measures the noise of sampled data in clipping norms: half a replacement
        unit = 2.0 if sampled and self.neighbours == "replace-one" else 1.0
        parts = []
        for row in rows.tolist():
            part: Any = accounting.GaussianDpEvent(unit * float(self._multiplier[row]))
            if sampled:
                part = accounting.PoissonSampledDpEvent(self.sampling_rate, part)
            parts.append(accounting.SelfComposedDpEvent(part, int(self._n_releases[row])))
        return accounting.ComposedDpEvent(parts)

    @property
    def accounting_relation(self) -> Any:
        """The neighbouring relation of dp-accounting that applies to :meth:`event`.

        Without sampling, events are in units of sensitivity for any neighbours, and the
        accountants' default is right; with sampling, replacement needs one that supports
        REPLACE_ONE (PLD).
        """
        relations = _dp_accounting().NeighboringRelation
        if self.sampling_rate == 1:
            return relations.ADD_OR_REMOVE_ONE
        replaced = self.neighbours == "replace-one"
        return relations.REPLACE_ONE if replaced else relations.REPLACE_SPECIAL

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state as plain arrays of equal length."""
        columns = (self._node, self._multiplier, self._central, self._n_releases)
        return {name: column.copy() for name, column in zip(_COLUMNS, columns, strict=True)}

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, npt.NDArray[Any]],
        n_nodes: int,
        sampling_rate: float = 1.0,
        neighbours: Relation = "zero-out",
    ) -> Ledger:
        """Return a ledger that continues from another one's :meth:`state`.

        Raises
        ------
        InvalidPrivacyError
            If a column is missing, does not fit ``n_nodes``, or holds values that :meth:`spend`
            rejects.
        """
        missing = [name for name in _COLUMNS if name not in state]
        if missing or len({np.shape(state[name]) for name in _COLUMNS}) > 1:
            raise InvalidPrivacyError(
                f"The state of a ledger must have columns {', '.join(_COLUMNS)} of equal length, "
                f"but has {', '.join(state) or 'none'}."
            )
        ledger = cls(n_nodes, sampling_rate, neighbours)
        ledger._node = _to_rows(state["node"]).copy()
        ledger._multiplier = np.array(state["multiplier"], dtype=float)
        ledger._central = np.array(state["central"], dtype=float)
        require_counts(error=InvalidPrivacyError, n_releases=state["n_releases"])
        ledger._n_releases = np.array(state["n_releases"], dtype=np.int64)
        _require_multipliers(ledger._node, ledger._multiplier, ledger._central)
        if ledger._node.size and not 0 <= ledger._node.min() <= ledger._node.max() < n_nodes:
            raise InvalidPrivacyError(
                f"The state of a ledger names node {ledger._node.max()}, but there are {n_nodes}."
            )
        ledger._row[ledger._node] = np.arange(ledger._node.size)  # the last one counts
        return ledger


def _to_rows(nodes: npt.ArrayLike) -> Ints:
    """Return row numbers as integers; raise InvalidPrivacyError for anything else."""
    require_unmasked(error=InvalidPrivacyError, nodes=nodes)
    rows = np.asarray(nodes)
    if rows.size and rows.dtype.kind not in "iu":
        raise InvalidPrivacyError(f"nodes must be whole numbers, but are of type {rows.dtype}.")
    return rows.astype(np.int64, copy=False)


def _require_multipliers(nodes: Ints, multipliers: Floats, central: Floats) -> None:
    """Raise InvalidPrivacyError if a node's multipliers are impossible."""
    require_positive(error=InvalidPrivacyError, multipliers=multipliers, central=central)
    below = np.flatnonzero(central < multipliers)
    if below.size:
        place = below[0]
        raise InvalidPrivacyError(
            "central must not be below a node's multiplier, because the sum hides it at least as "
            f"well as its own noise, but for node {nodes[place]} it is {central[place]:g}, below "
            f"{multipliers[place]:g}."
        )


def _dp_accounting() -> Any:
    try:
        import dp_accounting
    except ImportError:
        raise MissingExtraError(
            "Events of a ledger need dp-accounting, which is not installed: "
            "pip install 'fcfn-abm[train]'."
        ) from None
    return dp_accounting
