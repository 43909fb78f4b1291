"""Sentences about what the privacy of a training covers, and what it does not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcfn_abm.dp import gaussian_delta, gaussian_epsilon, gaussian_sigma
from fcfn_abm.training import FederatedTrainer

type Floats = npt.NDArray[np.float64]

NOISE_NOTE = (
    "The noise is floating-point Gaussian from a seeded generator: research output, not a release "
    "mechanism."
)
SECURE_NOTE = (
    "The noise is discrete Gaussian from the operating system's generator, on a grid: this run "
    "cannot be repeated."
)
"""What the records' privacy does not cover; docs/privacy.md says why."""

_CLASSICAL_RANGE = 1.0  # the proof of the classical formula holds below this epsilon
_NEARLY_ALL = 0.75  # who takes part as often as expected, give or take, spends about so much
_NO_GUARANTEE = 0.5  # a claim that fails with this probability protects nobody


def write_central_note(trainer: FederatedTrainer) -> str:
    """Say what the server's view of the total takes for granted."""
    plan = trainer.plan
    if plan.view == "central":
        arrives = "all nodes asked" if plan.quorum == 1 else f"{plan.quorum:.0%} of the nodes asked"
        return (
            "The epsilon that is sold holds against a server that sees the sum alone, under secure "
            f"aggregation: the updates of {arrives} must arrive for the sum to be opened, and so "
            "many nodes must add their share of the noise."
        )
    if plan.false_alarm is not None:
        return "The server checks every upload, so it sees more than their sum."
    if plan.steps.grid is not None:
        return (
            "Nothing is claimed for secure aggregation of secure noise: "
            "a weighted sum of values on a grid may give away each of them."
        )
    if all(release.n_noise_draws == 1 for release in trainer.releases):
        return (
            "The server sees the sum alone, under secure aggregation, "
            "and the other nodes must add the noise that they reported."
        )
    return (
        "Of nodes that add noise several times a round nothing is claimed for secure aggregation: "
        "the server may see as much as anybody."
    )


def write_privacy_note(
    trainer: FederatedTrainer,
    largest_epsilon: float,
    sold: Floats,
    local: Floats,
    central: Floats,
) -> str:
    """Say where the claimed epsilons are not what the noise gives, a line each.

    Parameters
    ----------
    trainer : FederatedTrainer
        Who trained.
    largest_epsilon : float
        The largest epsilon that any node trained with.
    sold : ndarray of float, shape (n_nodes,)
        What each node's noise was worked out for.
    local, central : ndarray of float, shape (n_nodes,)
        What it has spent in the end: as an observer of its own messages sees it, and as the server
        does.
    """
    plan = trainer.plan
    notes = sorted({release.caveat for release in trainer.releases})  # most often the same
    most = int(trainer.n_samples.max())
    if plan.placement.unit == "record" and plan.delta * most >= 1:
        notes.append(
            f"delta = {plan.delta:g} is at least one over the {most} records of a node: publishing "
            "one of them whole would be as good."
        )
    if plan.calibration == "classical" and largest_epsilon >= _CLASSICAL_RANGE:
        notes.append(_write_classical_note(largest_epsilon, plan.delta))
    if plan.adaptive_clipping:
        notes.append(
            "The clipping norm adapts: noise multipliers are those of a release and its count "
            f"together, of which the counts take {plan.adaptive_clipping.noise_share:.3g}, and "
            f"noise is given at the first norm, {plan.steps.clipping.norm:g}."
        )
    if plan.view == "central" and (local > 0).any():
        notes.append(
            "Epsilon is sold in the central view: who sees the messages of a node learns more, "
            f"a total of {np.median(local[local > 0]):.3g} of the median node."
        )
    spent = central if plan.view == "central" else local
    notes.append(_write_spending_note(trainer, sold, spent))
    return "\n".join(note for note in notes if note)


def _write_spending_note(trainer: FederatedTrainer, sold: Floats, spent: Floats) -> str:
    """Say where nodes spent much less in the whole training than they sold; else nothing."""
    plan, trained = trainer.plan, spent > 0
    if plan.horizon == "round" or not trained.any():
        return ""
    median_sold, median_spent = (float(np.median(e[trained])) for e in (sold, spent))
    if median_spent > _NEARLY_ALL * median_sold:
        return ""
    return (
        f"The noise covers {plan.participation_limit} rounds of each node, and nodes took part in "
        f"fewer: the median node sold a total epsilon of {median_sold:.3g}, and spent "
        f"{median_spent:.3g}; a lower privacy.max_participations adds less noise."
    )


def _write_classical_note(epsilon: float, delta: float) -> str:
    """Say what the noise of the classical formula is worth where it claims ``epsilon``.

    Sampled releases have its epsilon at this delta too; at others they may differ a little.
    """
    sigma = gaussian_sigma(epsilon, delta, calibration="classical")
    true_epsilon, true_delta = gaussian_epsilon(sigma, delta), gaussian_delta(epsilon, sigma)
    return (
        "The classical calibration is proven below epsilon = 1 only, and here it is used up to "
        f"{epsilon:.3g}:\nthere its noise truly has epsilon = {true_epsilon:.3g} at delta = "
        f"{delta:.3g}, and delta = {true_delta:.3g} at epsilon = {epsilon:.3g}"
        + (", which is no guarantee at all." if true_delta > _NO_GUARANTEE else ".")
    )
