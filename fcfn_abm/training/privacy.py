"""The noise of a training's nodes, and the privacy that it gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import (
    AdaptiveClipping,
    Ledger,
    central_multipliers,
    multiplier_for_releases,
    multiplier_for_zcdp,
    spent_epsilon,
)
from fcfn_abm.dp.check import max_upload_norm
from fcfn_abm.errors import InvalidPrivacyError, as_floats
from fcfn_abm.training.placements import ReleasePlan
from fcfn_abm.training.plan import NodePrivacy, TrainingPlan

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]

_MAX_NOISE = 1e30  # largest standard deviation that 32-bit sums can hold


@dataclass(frozen=True)
class OwnNoise:
    """The noise that nodes add themselves in a round, arrays of shape (n_nodes,)."""

    std: Floats
    """Standard deviation on each parameter, in units of a release."""
    multiplier: Floats
    """The same divided by the sensitivity of a release."""


class PrivacyAccounts:
    """Converts the nodes' epsilons to noise, thresholds of the check, and ledger entries.

    Parameters
    ----------
    plan : TrainingPlan
        Plan of the training.
    releases : sequence of ReleasePlan
        Releases of each node per round.
    n_parameters : int
        Parameters of the net.

    Raises
    ------
    InvalidPrivacyError
        If the nodes' numbers of releases in a round differ: accounting assumes that they are equal.
    """

    def __init__(
        self, plan: TrainingPlan, releases: Sequence[ReleasePlan], n_parameters: int
    ) -> None:
        counts = sorted({release.n_releases for release in releases})
        if len(counts) > 1:
            raise InvalidPrivacyError(
                "a placement must have the same number of releases per round for any number of "
                f"samples, but this one has from {counts[0]} to {counts[-1]}."
            )
        self._plan, self._n_nodes, self._n_parameters = plan, len(releases), n_parameters
        (self._n_releases,) = counts
        rounding = (plan.steps.grid or 0.0) * math.sqrt(n_parameters)
        self.sensitivity = np.array([release.sensitivity.l2 for release in releases]) + rounding
        """L2 sensitivity of one release of each node, including rounding, shape (n_nodes,)."""
        self._n_draws = np.array([release.n_noise_draws for release in releases])
        self._noise_gain = np.array([release.noise_gain for release in releases])
        self._max_update_norm = np.array([release.max_update_norm for release in releases])

    def calibrate(self, epsilon: npt.ArrayLike) -> NodePrivacy:
        """Calibrate noise and privacy of each node; see :meth:`FederatedTrainer.privacy`."""
        plan = self._plan
        epsilon = as_floats("epsilon", epsilon, error=InvalidPrivacyError)
        per_round = self._n_releases
        total = per_round * plan.participation_limit
        covered = per_round if plan.horizon == "round" else total
        sampling = (plan.placement.sampling_rate, plan.neighbours)
        if plan.currency == "zcdp":
            multiplier = multiplier_for_zcdp(epsilon, covered)
        else:
            multiplier = multiplier_for_releases(
                epsilon, plan.delta, covered, plan.calibration, *sampling
            )
        noise = np.where(np.isfinite(multiplier), multiplier, 0.0) * self.sensitivity
        if noise.max(initial=0.0) > _MAX_NOISE:
            node = int(np.argmax(noise))
            raise InvalidPrivacyError(
                f"{plan.currency} = {epsilon[node]:.3g} of node {node} needs noise of "
                f"{noise[node]:.3g} on each parameter, more than 32-bit numbers can hold."
            )
        return NodePrivacy(
            sensitivity=self.sensitivity,
            noise_multiplier=multiplier,
            noise_std=multiplier * self.sensitivity,
            epsilon_per_round=spent_epsilon(multiplier, per_round, plan.delta, *sampling),
            epsilon_total=spent_epsilon(multiplier, total, plan.delta, *sampling),
            delta=plan.delta,
        )

    def share_noise(self, asked: Ints, weights: Floats, privacy: NodePrivacy) -> OwnNoise:
        """Compute the noise that each node asked in a round adds.

        Parameters
        ----------
        asked : ndarray of int, shape (n,)
            Rows of the nodes, which all have a positive epsilon.
        weights : ndarray of float, shape (n,)
            Their weights in the sum, up to a common factor.
        privacy : NodePrivacy
            Privacy of their reports.

        Returns
        -------
        OwnNoise
            In the local view, the noise of each node's own epsilon. In the central view, equal
            shares of the noise on the sum, whose standard deviation is the largest of
            ``weights * privacy.noise_std``, such that the shares of a quorum add up to all of it.
            Infinite for all other nodes, which send nothing.

        Notes
        -----
        If k nodes arrive, with k at least the quorum t, their sum has the noise
        ``sqrt(k / t) c`` with ``c = max(w_i sigma_i)``. Divided by the weight and the sensitivity
        of node i this is at least its multiplier, with equality if k = t and all ``w_i sigma_i``
        are equal (aggregation "by-epsilon"). This assumes that at least t of the arriving nodes add
        their share.
        """
        if self._plan.view == "local":
            return OwnNoise(privacy.noise_std, privacy.noise_multiplier)
        std = np.full(self._n_nodes, np.inf)
        whole = (weights * privacy.noise_std[asked]).max(initial=0.0)
        std[asked] = whole / (math.sqrt(self._plan.count_quorum(asked.size)) * weights)
        return OwnNoise(std, std / self.sensitivity)

    def describe_own(self, epsilon: npt.ArrayLike, n_samples: Ints) -> NodePrivacy:
        """Return what each node's messages reveal, if all nodes with a positive epsilon are asked.

        In the local view this equals :meth:`calibrate`.
        """
        plan, privacy = self._plan, self.calibrate(epsilon)
        if plan.view == "local":
            return privacy
        asked = np.flatnonzero(np.isfinite(privacy.noise_std))
        weights = np.zeros(0)
        if asked.size:
            weights = plan.aggregation.weights(
                n_samples[asked].astype(float), privacy.noise_std[asked]
            )
        own = self.share_noise(asked, weights, privacy)
        per_round, sampling = self._n_releases, (plan.placement.sampling_rate, plan.neighbours)
        total = per_round * plan.participation_limit
        return replace(
            privacy,
            noise_multiplier=own.multiplier,
            noise_std=own.std,
            epsilon_per_round=spent_epsilon(own.multiplier, per_round, plan.delta, *sampling),
            epsilon_total=spent_epsilon(own.multiplier, total, plan.delta, *sampling),
        )

    def compute_max_upload_norm(self, noise_std: Floats) -> Floats:
        """Return the L2 norm above which the check flags an upload; infinite without a check."""
        plan = self._plan
        if plan.false_alarm is None:
            return np.full(noise_std.shape, np.inf)
        return max_upload_norm(
            self._n_parameters,
            noise_std * self._noise_gain,
            self._max_update_norm,
            plan.false_alarm / plan.rounds,
            self._n_draws,
        )

    def compute_std_of_count(
        self, nodes: Ints, weights: Floats, noise_std: Floats, adaptive: AdaptiveClipping
    ) -> float:
        """Return the standard deviation of the noise in the weighted sum of some nodes' counts.

        Parameters
        ----------
        nodes, weights : ndarray, shape (n,)
            Nodes, and their weights in the sum.
        noise_std : ndarray of float, shape (n_nodes,)
            Joint noise of a release and its count, as if all of it were on the release, at the
            initial clipping norm.
        adaptive : AdaptiveClipping
            Split of the noise between release and count.

        Notes
        -----
        A unit of data moves a count by half as much as it moves a release divided by the clipping
        norm. A node sends the mean of the counts of its releases.
        """
        norm = 2 * self._plan.steps.clipping.norm
        own = adaptive.count_gain * noise_std[nodes] / norm / np.sqrt(self._n_draws[nodes])
        return float(np.sqrt(((weights * own) ** 2).sum()))

    def compute_std_of_sum(self, nodes: Ints, weights: Floats, noise_std: Floats) -> float:
        """Return the standard deviation of the noise in the weighted sum of some nodes' uploads."""
        return float(np.sqrt(((weights * self._noise_gain[nodes] * noise_std[nodes]) ** 2).sum()))

    def create_ledger(self) -> Ledger:
        """Return an empty ledger."""
        plan = self._plan
        return Ledger(self._n_nodes, plan.placement.sampling_rate, plan.neighbours)

    def spend(
        self,
        ledger: Ledger,
        nodes: Ints,
        weights: Floats,
        late: Ints,
        privacy: NodePrivacy,
        own: OwnNoise,
    ) -> None:
        """Add the releases of a round to a ledger.

        Parameters
        ----------
        ledger : Ledger
            The ledger.
        nodes, late : ndarray of int
            Rows of the nodes whose updates are used, and of those whose updates are late: these are
            in no sum, but have released as much as if they had been in time.
        weights : ndarray of float
            Weight of each of ``nodes`` in the sum.
        privacy : NodePrivacy
            Privacy of the reports of the round.
        own : OwnNoise
            Noise of the nodes, if they add what they reported.

        Notes
        -----
        In the central view a late update is charged as if it were in a sum with just enough noise,
        since under secure aggregation it stays masked.
        """
        plan = self._plan
        both = np.concatenate([nodes, late])
        # the central view proves nothing beyond the local view if a node's later steps have seen
        # its own noise, if the server checks each upload, and so sees more than the sum, or if
        # values are on grids, whose sum may reveal each of them
        central = np.maximum(privacy.noise_multiplier[both], own.multiplier[both])
        once = self._n_draws[nodes] == 1
        if once.any() and plan.false_alarm is None and plan.steps.grid is None:
            hidden = nodes[once]
            of_sum = central_multipliers(
                weights[once], own.std[hidden], privacy.sensitivity[hidden]
            )
            # a node alone in the sum has its own multiplier, up to rounding
            central[: nodes.size][once] = np.maximum(of_sum, own.multiplier[hidden])
        order = np.argsort(both)
        multiplier = own.multiplier[both[order]]
        ledger.spend(both[order], multiplier, self._n_releases, central[order])
