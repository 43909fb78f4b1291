"""One training: its parameters, its results, and the privacy that it has spent so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import Ledger
from fcfn_abm.errors import InvalidPrivacyError, RunFailedError, as_floats
from fcfn_abm.training.draws import Draws
from fcfn_abm.training.engines import Engine
from fcfn_abm.training.plan import NodePrivacy, TrainingPlan, TrainingRound
from fcfn_abm.training.privacy import PrivacyAccounts
from fcfn_abm.training.sums import RoundWork, Sums

if TYPE_CHECKING:
    from torch import Tensor

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingSetup:
    """What all trainings of one trainer share."""

    plan: TrainingPlan
    engine: Engine
    accounts: PrivacyAccounts
    draws: Draws
    n_samples: Ints
    """Samples of each node, shape (n_nodes,)."""
    first_parameters: Tensor
    """Shape (n_parameters,)."""
    n_test: int
    """How many test images there are."""


@dataclass(frozen=True)
class _Reports:
    """What the reports of a round mean for noise, arrays of shape (n_nodes,)."""

    epsilon: Floats
    privacy: NodePrivacy | None
    """By the reports; None without noise."""
    noise_std: Floats
    """Standard deviation of the noise by the reports, in units of a release; zero without noise."""
    injected_std: Floats | None
    """Of the noise that nodes add in truth; None without noise."""
    max_upload_norm: Floats
    """L2 norm above which the check flags an upload."""


class Training:
    """Trains a net round by round; made by :meth:`FederatedTrainer.begin`.

    In a round those nodes take part whose epsilon is positive, that have not taken part as often
    as the plan allows, and that the plan's chances leave in. With a check a node whose upload holds
    more noise than it reported is flagged: that upload is not aggregated, and the node takes no
    further part.

    Parameters
    ----------
    setup : TrainingSetup
        What is trained, and by what.
    misreport : array_like of float, shape (n_nodes,), default 1
        Reported over spent epsilon: a node with more than one injects the noise of less.
    private : bool, default True
        False trains the same nodes, with the same clipping, without noise.
    resume : mapping, optional
        What :meth:`state` gave after some round of the same training.

    Raises
    ------
    RunFailedError
        If the loss before training is not finite.
    """

    results: list[TrainingRound]
    """One entry for each finished round; the first is round 0, before training."""

    ledger: Ledger | None
    """What each node has released by its reports, round by round; None without noise."""

    flagged_round: Ints
    """Round in which the check flagged each node, shape (n_nodes,); 0 where it did not."""

    n_participations: Ints
    """In how many rounds each node has sent an update, in time or too late, shape (n_nodes,)."""

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
        self.results = []
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
            What each node reports: per round, or in total, as the plan's horizon says.

        Returns
        -------
        TrainingRound
            Also appended to :attr:`results`. The same for equal arguments, to the last bit, unless
            noise is secure; also in a training that was resumed.

        Raises
        ------
        InvalidPrivacyError
            If epsilon has another shape, or is negative or not finite.
        RunFailedError
            If a gradient or the loss is not finite, which names the round and the node; or if the
            training is over.
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
        """Return what some nodes send in a round at the parameters as they are, added up.

        Nothing changes by it: no step is taken, and nothing is entered into the ledger.

        Parameters
        ----------
        epsilon : array_like of float, shape (n_nodes,)
            What each node reports.
        nodes : ndarray of int
            Rows of the nodes that send something, in ascending order.
        round_index : int
            Whose random numbers are drawn.
        """
        reports = self._interpret(as_floats("epsilon", epsilon, error=InvalidPrivacyError))
        return self._add_up_uploads(reports, nodes, self._weigh(reports, nodes), round_index)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that the training needs to go on after its latest round, as plain arrays."""
        ledger = self.ledger.state() if self.ledger else {}
        return {
            "flat": self._flat.to("cpu", copy=True).numpy(),
            "results": np.array([astuple(result) for result in self.results], dtype=float),
            "flagged_round": self.flagged_round.copy(),
            "n_participations": self.n_participations.copy(),
            **{f"ledger_{name}": column for name, column in ledger.items()},
        }

    def _restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        import torch

        self._flat = torch.tensor(state["flat"], device=self._setup.engine.device)
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
        """Work out what reports mean, unless they are those of the round before."""
        if epsilon.shape != self._misreport.shape:
            raise InvalidPrivacyError(
                f"a report is needed from each of {self._misreport.size} nodes, but epsilon has "
                f"shape {epsilon.shape}."
            )
        if self._reports is None or not np.array_equal(epsilon, self._reports.epsilon):
            epsilon = epsilon.copy()  # a caller may write the next reports into the same array
            self._reports = self._calibrate(epsilon) if self._private else _leave_noise_out(epsilon)
        return self._reports

    def _calibrate(self, epsilon: Floats) -> _Reports:
        accounts = self._setup.accounts
        privacy = accounts.calibrate(epsilon)
        std = injected_std = privacy.noise_std
        if (self._misreport != 1).any():
            injected_std = accounts.calibrate(epsilon / self._misreport).noise_std
        return _Reports(epsilon, privacy, std, injected_std, accounts.compute_max_upload_norm(std))

    def _train_round(self, reports: _Reports, round_index: int) -> TrainingRound:
        setup = self._setup
        able = (reports.epsilon > 0) & (self.flagged_round == 0)
        able &= self.n_participations < setup.plan.participation_limit
        nodes, late = setup.draws.draw_attendance(able, round_index)
        self.n_participations[nodes] += 1
        self.n_participations[late] += 1
        weights = self._weigh(reports, nodes)
        sums = self._add_up_uploads(reports, nodes, weights, round_index)
        self.flagged_round[sums.flagged] = round_index
        if self.ledger and reports.privacy:
            setup.accounts.spend(self.ledger, nodes, weights, late, reports.privacy)
        update, clean = sums.update, sums.clean
        if sums.flagged and sums.passed > 0:  # the weights of those that passed are to be one
            update, clean = update / sums.passed, clean / sums.passed
        self._flat = self._flat + update
        noise = float((update - clean).norm())
        ratio = float(clean.norm()) / noise if noise > 0 else math.inf
        return self._evaluate(round_index, ratio, nodes.size - len(sums.flagged))

    def _weigh(self, reports: _Reports, nodes: Ints) -> Floats:
        """Return the weights of nodes in the sum; none if no node is left."""
        if not nodes.size:
            return np.zeros(0)
        return self._setup.plan.aggregation.weights(
            self._setup.n_samples[nodes].astype(float), reports.noise_std[nodes]
        )

    def _add_up_uploads(
        self, reports: _Reports, nodes: Ints, weights: Floats, round_index: int
    ) -> Sums:
        """Let nodes train, and add up their uploads."""
        setup, std = self._setup, reports.injected_std
        at_once = std is not None and setup.plan.noise_of == "sum"
        sums = setup.engine.train_round(
            RoundWork(
                round_index=round_index,
                flat=self._flat,
                nodes=nodes,
                weights=weights,
                noise_std=None if at_once else std,
                max_upload_norm=reports.max_upload_norm,
            )
        )
        if std is not None and at_once:  # the same distribution, for one draw instead of n
            std_of_sum = setup.accounts.compute_std_of_sum(nodes, weights, std)
            noise = setup.draws.draw_noise_of_sum(std_of_sum, round_index)
            sums = replace(sums, update=sums.update + noise.to(sums.update.device))
        return sums

    def _evaluate(self, round_index: int, ratio: float, n_nodes: int) -> TrainingRound:
        """Evaluate the net as it is."""
        loss, n_right = self._setup.engine.evaluate(self._flat)
        if not math.isfinite(loss):
            raise RunFailedError(
                f"training broke down in round {round_index}: the loss is not finite; "
                "a smaller training.learning_rate may help."
            )
        return TrainingRound(round_index, n_right / self._setup.n_test, loss, ratio, n_nodes)


def _leave_noise_out(epsilon: Floats) -> _Reports:
    zero, infinite = np.zeros(epsilon.shape), np.full(epsilon.shape, np.inf)
    return _Reports(epsilon, None, zero, None, infinite)
