"""What the nodes of a training add as noise, and what that means for their privacy."""

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

_MAX_NOISE = 1e30  # standard deviation that 32-bit numbers still hold with room to add


@dataclass(frozen=True)
class OwnNoise:
    """The noise that nodes add themselves in a round, arrays of shape (n_nodes,)."""

    std: Floats
    """Standard deviation on each parameter, in units of a release."""
    multiplier: Floats
    """The same over the sensitivity of a release."""


class PrivacyAccounts:
    """Turns the epsilons of nodes into noise, thresholds of the check, and entries of a ledger.

    Parameters
    ----------
    plan : TrainingPlan
        What is trained.
    releases : sequence of ReleasePlan
        What each node releases in a round.
    n_parameters : int
        Parameters of the net.

    Raises
    ------
    InvalidPrivacyError
        If the nodes' numbers of releases in a round differ: accounting takes them to be equal.
    """

    def __init__(
        self, plan: TrainingPlan, releases: Sequence[ReleasePlan], n_parameters: int
    ) -> None:
        counts = sorted({release.n_releases for release in releases})
        if len(counts) > 1:
            raise InvalidPrivacyError(
                "a placement must make equally many releases a round for any number of samples, "
                f"but this one makes from {counts[0]} to {counts[-1]}."
            )
        self._plan, self._n_nodes, self._n_parameters = plan, len(releases), n_parameters
        (self._n_releases,) = counts
        rounding = (plan.steps.grid or 0.0) * math.sqrt(n_parameters)
        self.sensitivity = np.array([release.sensitivity.l2 for release in releases]) + rounding
        """L2 sensitivity of one release of each node, rounding included, shape (n_nodes,)."""
        self._n_draws = np.array([release.n_noise_draws for release in releases])
        self._noise_gain = np.array([release.noise_gain for release in releases])
        self._max_update_norm = np.array([release.max_update_norm for release in releases])

    def calibrate(self, epsilon: npt.ArrayLike) -> NodePrivacy:
        """Work out noise and privacy of each node; as :meth:`FederatedTrainer.privacy`."""
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
                f"{plan.currency} = {epsilon[node]:.3g} of node {node} takes noise of "
                f"{noise[node]:.3g} on each parameter, which is more than 32-bit numbers hold."
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
        """Work out the noise that each of the nodes asked in a round adds.

        Parameters
        ----------
        asked : ndarray of int, shape (n,)
            Their rows; all have an epsilon.
        weights : ndarray of float, shape (n,)
            Their weights in the sum, up to a common factor.
        privacy : NodePrivacy
            What their reports ask for.

        Returns
        -------
        OwnNoise
            In the local view what each node's own epsilon asks for. In the central view an equal
            share each of the noise on the sum, whose standard deviation is the largest of
            ``weights * privacy.noise_std``: so large that the shares of a quorum make up the whole.
            Infinite for all other nodes, who send nothing.

        Notes
        -----
        Whoever arrives, k of them with k at least the quorum t, their sum has the noise
        ``sqrt(k / t) c`` with ``c = max(w_i sigma_i)``. Divided by the weight and the sensitivity
        of node i that is at least its multiplier: exactly that where k = t and all ``w_i sigma_i``
        are equal, which is the aggregation "by-epsilon". It takes for granted that those who arrive
        did add their share, or no fewer than t of them.
        """
        if self._plan.view == "local":
            return OwnNoise(privacy.noise_std, privacy.noise_multiplier)
        std = np.full(self._n_nodes, np.inf)
        whole = (weights * privacy.noise_std[asked]).max(initial=0.0)
        std[asked] = whole / (math.sqrt(self._plan.count_quorum(asked.size)) * weights)
        return OwnNoise(std, std / self.sensitivity)

    def describe_own(self, epsilon: npt.ArrayLike, n_samples: Ints) -> NodePrivacy:
        """Return what each node's own messages reveal, where all who have an epsilon are asked.

        In the local view this is :meth:`calibrate`.
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
            Whose, and their weights in the sum.
        noise_std : ndarray of float, shape (n_nodes,)
            Noise of a release and its count together, as if all were on the release, at the first
            clipping norm.
        adaptive : AdaptiveClipping
            How they share it.

        Notes
        -----
        A unit of data moves a count by half of what it moves a release over the clipping norm. A
        node sends the mean of the counts of its releases.
        """
        norm = 2 * self._plan.steps.clipping.norm
        own = adaptive.count_gain * noise_std[nodes] / norm / np.sqrt(self._n_draws[nodes])
        return float(np.sqrt(((weights * own) ** 2).sum()))

    def compute_std_of_sum(self, nodes: Ints, weights: Floats, noise_std: Floats) -> float:
        """Return the standard deviation of the noise in the weighted sum of some nodes' uploads."""
        return float(np.sqrt(((weights * self._noise_gain[nodes] * noise_std[nodes]) ** 2).sum()))

    def create_ledger(self) -> Ledger:
        """Return a ledger in which nothing is spent."""
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
        """Enter the releases of a round into a ledger.

        Parameters
        ----------
        ledger : Ledger
            Takes the entries.
        nodes, late : ndarray of int
            Rows of the nodes whose updates are used, and of those whose updates come too late: they
            are in no sum, and have released as much as if they had been in time.
        weights : ndarray of float
            Weight of each of ``nodes`` in the sum.
        privacy : NodePrivacy
            What the reports of the round say.
        own : OwnNoise
            What nodes add, if they add what they reported.

        Notes
        -----
        In the central view a late update is charged as if it were in a sum with just enough noise:
        under secure aggregation it stays masked.
        """
        plan = self._plan
        both = np.concatenate([nodes, late])
        # where a node's later steps have seen its own noise, nothing beyond the local view is
        # proven; a server that checks each upload sees more than their sum; and a sum of values on
        # grids may reveal each of them
        central = np.maximum(privacy.noise_multiplier[both], own.multiplier[both])
        once = self._n_draws[nodes] == 1
        if once.any() and plan.false_alarm is None and plan.steps.grid is None:
            hidden = nodes[once]
            of_sum = central_multipliers(
                weights[once], own.std[hidden], privacy.sensitivity[hidden]
            )
            # alone in the sum a node has its own multiplier, whatever the last digit says
            central[: nodes.size][once] = np.maximum(of_sum, own.multiplier[hidden])
        order = np.argsort(both)
        multiplier = own.multiplier[both[order]]
        ledger.spend(both[order], multiplier, self._n_releases, central[order])
