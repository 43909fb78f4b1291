"""A training: its parameters, its results, and the privacy spent so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import Clipping, Ledger
from fcfn_abm.errors import InvalidPrivacyError, RunFailedError, as_floats
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.engines import Engine
from fcfn_abm.training.plan import NodePrivacy, TrainingPlan, TrainingRound
from fcfn_abm.training.privacy import OwnNoise, PrivacyAccounts
from fcfn_abm.training.server_steps import scale_rate
from fcfn_abm.training.sums import RoundWork, Sums

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSetup:
    """The shared data of a trainer's trainings."""

    plan: TrainingPlan
    engine: Engine
    accounts: PrivacyAccounts
    draws: Draws
    n_samples: Ints
    """Samples of each node, shape (n_nodes,)."""
    first_parameters: Tensor
    """Shape (n_parameters,)."""
    n_test: int
    """Number of test images."""


@dataclass(frozen=True)
class _Reports:
    """The noise for the reports of a round, arrays of shape (n_nodes,)."""

    epsilon: Floats
    privacy: NodePrivacy | None
    """Privacy by the reports; None without noise."""
    noise_std: Floats
    """Standard deviation of the noise by the reports, in units of a release; zero without noise."""
    injected_std: Floats | None
    """Noise that the nodes actually add; None without noise."""
    max_upload_norm: Floats
    """L2 norm above which the check flags an upload."""


class Training:
    """Trains a net round by round; created by :meth:`FederatedTrainer.begin`.

    In a round, the nodes with positive epsilon take part that have not reached the plan's limit of
    rounds and are drawn by the plan's chances. With a check, a node whose upload has more noise
    than it reported is flagged: the upload is not aggregated, and the node takes no further part.

    Parameters
    ----------
    setup : TrainingSetup
        The trainer's shared data.
    misreport : array_like of float, shape (n_nodes,), default 1
        Reported over spent epsilon: a node with a factor above one adds the noise of a smaller
        epsilon.
    private : bool, default True
        False trains the same nodes, with the same clipping, without noise.
    resume : mapping, optional
        State of the same training after a round, from :meth:`state`.

    Raises
    ------
    RunFailedError
        If the loss before training is not finite.
    """

    results: list[TrainingRound]
    """One entry per finished round; the first is round 0, before training."""

    ledger: Ledger | None
    """The releases of each node by its reports; None without noise."""

    flagged_round: Ints
    """Round in which the check flagged each node, shape (n_nodes,); 0 if never."""

    n_participations: Ints
    """Number of rounds in which each node sent an update, in time or late, shape (n_nodes,)."""

    clipping_norms: list[float]
    """The clipping norm of each round so far, and that of the next round."""

    def __init__(
        self,
        setup: TrainingSetup,
        misreport: npt.ArrayLike = 1.0,
        *,
        private: bool = True,
        resume: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        n_nodes = setup.n_samples.size
        self._setup, self._private = setup, private
        self._misreport = np.broadcast_to(
            as_floats("misreport", misreport, error=InvalidPrivacyError), (n_nodes,)
        )
        self._reports: _Reports | None = None
        self.ledger = setup.accounts.create_ledger() if private else None
        self.flagged_round = np.zeros(n_nodes, dtype=np.int64)
        self.n_participations = np.zeros(n_nodes, dtype=np.int64)
        self._flat = setup.first_parameters.to(setup.engine.device, copy=True)
        self._averaged = self._flat
        self._moments = self._flat.new_zeros(setup.plan.server.n_moments, self._flat.numel())
        self._n_server_steps = 0
        self.results = []
        self.clipping_norms = [setup.plan.steps.clipping.norm]
        if resume is not None:
            self._restore(resume)
        else:
            with setup.engine.configure_torch():
                self.results.append(self._evaluate(0, math.inf, 0))

    @property
    def round_index(self) -> int:
        """The last finished round; 0 before the first."""
        return len(self.results) - 1

    @property
    def over(self) -> bool:
        """Whether all rounds of the plan are done."""
        return self.round_index >= self._setup.plan.rounds

    def step(self, epsilon: npt.ArrayLike) -> TrainingRound:
        """Train one round.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            Report of each node: per round or in total, according to the plan's horizon.

        Returns
        -------
        TrainingRound
            Also appended to :attr:`results`. Equal arguments give identical results, also in
            resumed trainings, unless noise is secure.

        Raises
        ------
        InvalidPrivacyError
            If epsilon has another shape, or is negative or not finite.
        RunFailedError
            If a gradient or the loss is not finite (names the round and the node), or the training
            is over.
        """
        if self.over:
            raise RunFailedError(
                f"the training is over: all {self._setup.plan.rounds} rounds of its plan are done."
            )
        reports = self._interpret(as_floats("epsilon", epsilon, error=InvalidPrivacyError))
        with self._setup.engine.configure_torch():
            result = self._train_round(reports, self.round_index + 1)
        self.results.append(result)
        return result

    def aggregate(self, epsilon: npt.ArrayLike, nodes: Ints, round_index: int) -> Sums:
        """Return the sum of some nodes' uploads at the current parameters.

        The state does not change: no step is taken, and the ledger is not updated.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            Report of each node.
        nodes : ndarray of int
            Rows of the nodes that send something, in ascending order.
        round_index : int
            Round of the random numbers.
        """
        reports = self._interpret(as_floats("epsilon", epsilon, error=InvalidPrivacyError))
        weights = self._weigh(reports, nodes)
        std, _ = self._share_noise(reports, nodes, weights)
        return self._add_up_uploads(self._plan_work(reports, std, nodes, weights, round_index))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state after the latest round as plain arrays, from which training resumes."""
        ledger = self.ledger.state() if self.ledger else {}
        return {
            "flat": self._flat.to("cpu", copy=True).numpy(),
            "averaged": self._averaged.to("cpu", copy=True).numpy(),
            "moments": self._moments.to("cpu", copy=True).numpy(),
            "n_server_steps": np.array(self._n_server_steps),
            "results": np.array([astuple(result) for result in self.results], dtype=float),
            "clipping_norms": np.array(self.clipping_norms),
            "flagged_round": self.flagged_round.copy(),
            "n_participations": self.n_participations.copy(),
            **{f"ledger_{name}": column for name, column in ledger.items()},
        }

    def _restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        import torch

        device = self._setup.engine.device
        self._flat = torch.tensor(state["flat"], device=device)
        self._averaged = torch.tensor(state["averaged"], device=device)
        self._moments = torch.tensor(state["moments"], device=device)
        self._n_server_steps = int(state["n_server_steps"])
        self.clipping_norms = state["clipping_norms"].tolist()
        self.results = [
            TrainingRound(int(index), accuracy, loss, ratio, int(n_nodes))
            for index, accuracy, loss, ratio, n_nodes in state["results"].tolist()
        ]
        self.flagged_round = state["flagged_round"].copy()
        self.n_participations = state["n_participations"].copy()
        if self.ledger:
            columns = {
                name.removeprefix("ledger_"): column
                for name, column in state.items()
                if name.startswith("ledger_")
            }
            self.ledger = Ledger.from_state(
                columns, self.ledger.n_nodes, self.ledger.sampling_rate, self.ledger.neighbours
            )

    def _interpret(self, epsilon: Floats) -> _Reports:
        """Convert reports to noise, unless they are those of the previous round."""
        if epsilon.shape != self._misreport.shape:
            raise InvalidPrivacyError(
                f"epsilon must have one report per node, shape ({self._misreport.size},), not "
                f"{epsilon.shape}."
            )
        if self._reports is None or not np.array_equal(epsilon, self._reports.epsilon):
            epsilon = epsilon.copy()  # the caller may reuse the array
            self._reports = self._calibrate(epsilon) if self._private else _leave_noise_out(epsilon)
        return self._reports

    def _calibrate(self, epsilon: Floats) -> _Reports:
        accounts = self._setup.accounts
        privacy = accounts.calibrate(epsilon)
        std = injected_std = privacy.noise_std
        if (self._misreport != 1).any():
            injected_std = accounts.calibrate(epsilon / self._misreport).noise_std
        adaptive = self._setup.plan.adaptive_clipping
        most = accounts.compute_max_upload_norm(std * adaptive.release_gain if adaptive else std)
        return _Reports(epsilon, privacy, std, injected_std, most)

    def _train_round(self, reports: _Reports, round_index: int) -> TrainingRound:
        setup = self._setup
        able = (reports.epsilon > 0) & (self.flagged_round == 0)
        able &= self.n_participations < setup.plan.participation_limit
        asked, nodes, late = setup.draws.draw_attendance(able, round_index)
        self.n_participations[nodes] += 1
        self.n_participations[late] += 1
        if setup.plan.view == "central":
            if nodes.size < setup.plan.count_quorum(asked.size):  # the sum is not revealed
                nodes, late = nodes[:0], np.sort(np.concatenate([nodes, late]))
            weights_asked = self._weigh(reports, asked)
            weights = weights_asked[np.isin(asked, nodes)]
            weights = weights / weights.sum() if nodes.size else weights
        else:
            weights_asked = weights = self._weigh(reports, nodes)
        std, own = self._share_noise(reports, asked, weights_asked)
        work = self._plan_work(reports, std, nodes, weights, round_index)
        sums = self._add_up_uploads(work)
        self._adapt_clipping(sums, std, nodes, weights, round_index)
        self.flagged_round[sums.flagged] = round_index
        if self.ledger and reports.privacy and own:
            setup.accounts.spend(self.ledger, nodes, weights, late, reports.privacy, own)
        update, clean = sums.update, sums.clean
        if sums.flagged and sums.passed > 0:  # renormalise the weights of the nodes that passed
            update, clean = update / sums.passed, clean / sums.passed
        self._move(update, round_index, moves=sums.passed > 0)
        noise = float((update - clean).norm())
        ratio = float(clean.norm()) / noise if noise > 0 else math.inf
        return self._evaluate(round_index, ratio, nodes.size - len(sums.flagged))

    def _move(self, update: Tensor, round_index: int, *, moves: bool) -> None:
        """Take a step of the server's optimiser if it ``moves``, and average the rounds' nets."""
        plan = self._setup.plan
        if moves:
            self._n_server_steps += 1
            scale = scale_rate(plan.server.schedule, round_index, plan.rounds)
            self._flat = plan.server.step(
                self._flat, update, self._moments, self._n_server_steps, scale
            )
        weight = plan.averaging.weight(round_index, plan.rounds)
        self._averaged = self._averaged.lerp(self._flat, weight) if weight < 1 else self._flat

    def _weigh(self, reports: _Reports, nodes: Ints) -> Floats:
        """Return the weights of some nodes, which sum to one; empty without nodes."""
        if not nodes.size:
            return np.zeros(0)
        setup = self._setup
        return setup.plan.aggregation.weights(
            setup.n_samples[nodes].astype(float), reports.noise_std[nodes]
        )

    def _share_noise(
        self, reports: _Reports, asked: Ints, weights: Floats
    ) -> tuple[Floats | None, OwnNoise | None]:
        """Return the noise that nodes actually add, and that of their reports, or None."""
        std = reports.injected_std
        if std is None or reports.privacy is None:
            return std, None
        own = self._setup.accounts.share_noise(asked, weights, reports.privacy)
        return _scale_noise(std, reports.noise_std, own), own

    def _plan_work(
        self,
        reports: _Reports,
        std: Floats | None,
        nodes: Ints,
        weights: Floats,
        round_index: int,
    ) -> RoundWork:
        """Return the work of nodes for these standard deviations of noise."""
        plan, most = self._setup.plan, reports.max_upload_norm
        steps, adaptive = plan.steps, plan.adaptive_clipping
        if adaptive:
            norm = self.clipping_norms[-1]
            scale = norm / steps.clipping.norm  # for values in units of a release
            most = scale * most
            std = None if std is None else scale * adaptive.release_gain * std
            steps = replace(steps, clipping=Clipping(norm), counts_within=True)
        return RoundWork(round_index, self._flat, steps, nodes, weights, std, most)

    def _add_up_uploads(self, work: RoundWork) -> Sums:
        """Train nodes, and add their uploads."""
        setup, std = self._setup, work.noise_std
        if std is None or setup.plan.noise_of == "nodes":
            return setup.engine.train_round(work)
        # one draw instead of n, with the same distribution
        sums = setup.engine.train_round(replace(work, noise_std=None))
        std_of_sum = setup.accounts.compute_std_of_sum(work.nodes, work.weights, std)
        noise = setup.draws.draw_noise_of_sum(std_of_sum, work.round_index)
        return replace(sums, update=sums.update + noise.to(sums.update.device))

    def _adapt_clipping(
        self, sums: Sums, std: Floats | None, nodes: Ints, weights: Floats, round_index: int
    ) -> None:
        """Set the clipping norm of the next round by the share within the current one."""
        setup, norm = self._setup, self.clipping_norms[-1]
        adaptive = setup.plan.adaptive_clipping
        if adaptive and sums.passed > 0:
            within = sums.within
            if std is not None:
                noised = ~np.isin(nodes, sums.flagged)
                std_of_count = setup.accounts.compute_std_of_count(
                    nodes[noised], weights[noised], std, adaptive
                )
                within += setup.draws.draw_count_noise(std_of_count, round_index)
            norm = adaptive.next_norm(norm, within / sums.passed + 0.5)
        self.clipping_norms.append(norm)

    def _evaluate(self, round_index: int, ratio: float, n_nodes: int) -> TrainingRound:
        """Evaluate the average of the rounds' nets."""
        loss, n_right = self._setup.engine.evaluate(self._averaged)
        if not math.isfinite(loss):
            raise RunFailedError(
                f"training failed in round {round_index}: the loss is not finite; "
                "try a smaller training.learning_rate."
            )
        return TrainingRound(round_index, n_right / self._setup.n_test, loss, ratio, n_nodes)


def _scale_noise(injected: Floats, reported: Floats, own: OwnNoise) -> Floats:
    """Return the noise that nodes actually add if ``own`` is that of their reports."""
    if own.std is reported:
        return injected
    std = np.full(injected.shape, np.inf)
    asked = np.isfinite(own.std)
    std[asked] = own.std[asked] * (injected[asked] / reported[asked])
    return std


def _leave_noise_out(epsilon: Floats) -> _Reports:
    zero, infinite = np.zeros(epsilon.shape), np.full(epsilon.shape, np.inf)
    return _Reports(epsilon, None, zero, None, infinite)
