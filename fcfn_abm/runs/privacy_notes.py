"""Sentences about what the privacy of a training covers and what it does not."""

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
    "is not reproducible."
)
"""Limits of the records' privacy; see docs/privacy.md."""

_CLASSICAL_RANGE = 1.0  # the classical formula is proven below this epsilon
_NEARLY_ALL = (
    0.75  # share of the sold epsilon that nodes with about the expected participation spend
)
_NO_GUARANTEE = 0.5  # a claim that fails with this probability protects nobody


def write_central_note(trainer: FederatedTrainer) -> str:
    """Describe the assumptions of the server's view of the total."""
    plan = trainer.plan
    if plan.view == "central":
        arrives = "all nodes asked" if plan.quorum == 1 else f"{plan.quorum:.0%} of the nodes asked"
        return (
            "The sold epsilon holds against a server that sees only the sum, under secure "
            f"aggregation: the updates of {arrives} must arrive before the sum is revealed, and "
            "the same number of nodes must add their share of the noise."
        )
    if plan.false_alarm is not None:
        return "The server checks every upload, so it sees more than the sum."
    if plan.steps.grid is not None:
        return (
            "There is no claim for secure aggregation with secure noise: "
            "a weighted sum of values on a grid may reveal each of them."
        )
    if all(release.n_noise_draws == 1 for release in trainer.releases):
        return (
            "The server sees only the sum, under secure aggregation, "
            "and the other nodes must add the noise that they reported."
        )
    return (
        "There is no claim for secure aggregation if nodes add noise several times per round: "
        "the server may see as much as any observer."
    )


def write_privacy_note(
    trainer: FederatedTrainer,
    largest_epsilon: float,
    sold: Floats,
    local: Floats,
    central: Floats,
) -> str:
    """Describe where the claimed epsilons differ from what the noise gives, one line each.

    Parameters
    ----------
    trainer : FederatedTrainer
        The trainer.
    largest_epsilon : float
        The largest epsilon that any node trained with.
    sold : ndarray of float, shape (n_nodes,)
        Epsilon for which each node's noise was calibrated.
    local, central : ndarray of float, shape (n_nodes,)
        Epsilon spent at the end: in the view of an observer of the node's messages, and in that
        of the server.
    """
    plan = trainer.plan
    notes = sorted({release.caveat for release in trainer.releases})  # usually the same
    most = int(trainer.n_samples.max())
    if plan.placement.unit == "record" and plan.delta * most >= 1:
        notes.append(
            f"delta = {plan.delta:g} is at least 1 / {most}, one over the number of records of a "
            "node: publishing a whole record would satisfy it."
        )
    if plan.calibration == "classical" and largest_epsilon >= _CLASSICAL_RANGE:
        notes.append(_write_classical_note(largest_epsilon, plan.delta))
    if plan.adaptive_clipping:
        notes.append(
            "The clipping norm adapts: noise multipliers cover a release and its count together "
            f"(the counts take {plan.adaptive_clipping.noise_share:.3g}), and noise is stated at "
            f"the initial norm, {plan.steps.clipping.norm:g}."
        )
    if plan.view == "central" and (local > 0).any():
        notes.append(
            "Epsilon is sold in the central view: an observer of a node's messages learns more, "
            f"a total of {np.median(local[local > 0]):.3g} for the median node."
        )
    spent = central if plan.view == "central" else local
    notes.append(_write_spending_note(trainer, sold, spent))
    return "\n".join(note for note in notes if note)


def _write_spending_note(trainer: FederatedTrainer, sold: Floats, spent: Floats) -> str:
    """Describe nodes that spent much less in the training than they sold; else nothing."""
    plan, trained = trainer.plan, spent > 0
    if plan.horizon == "round" or not trained.any():
        return ""
    median_sold, median_spent = (float(np.median(e[trained])) for e in (sold, spent))
    if median_spent > _NEARLY_ALL * median_sold:
        return ""
    return (
        f"The noise covers {plan.participation_limit} rounds per node, but nodes took part in "
        f"fewer: the median node sold a total epsilon of {median_sold:.3g} and spent "
        f"{median_spent:.3g}. A lower privacy.max_participations adds less noise."
    )


def _write_classical_note(epsilon: float, delta: float) -> str:
    """Describe the true guarantee of the classical formula at a claimed ``epsilon``.

    Sampled releases also have its epsilon at this delta; at others they may differ slightly.
    """
    sigma = gaussian_sigma(epsilon, delta, calibration="classical")
    true_epsilon, true_delta = gaussian_epsilon(sigma, delta), gaussian_delta(epsilon, sigma)
    return (
        "The classical calibration is proven only below epsilon = 1, but is used up to "
        f"{epsilon:.3g}:\nthere the noise has epsilon = {true_epsilon:.3g} at delta = "
        f"{delta:.3g}, and delta = {true_delta:.3g} at epsilon = {epsilon:.3g}"
        + (", which is no guarantee." if true_delta > _NO_GUARANTEE else ".")
    )
