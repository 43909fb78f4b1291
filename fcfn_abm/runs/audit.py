"""Audits of a scenario: its placement, clipping and noise under attack, on a real node's data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np

from fcfn_abm.build import prepare_trainer
from fcfn_abm.dp import Relation, Unit
from fcfn_abm.dp.audit import (
    Attack,
    Audit,
    Canary,
    LowerBounds,
    StepView,
    audit,
    cache_gradients,
    lower_bounds,
    random_direction,
)
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.report.marks import Text, join, mark_verdict
from fcfn_abm.rng import stream
from fcfn_abm.scenario import Scenario, Training
from fcfn_abm.training import FederatedTrainer
from fcfn_abm.training.gradients import GradientFunction
from fcfn_abm.training.workers import use_one_thread

EPSILONS = (1.0, 4.0, 10.0)
CONFIDENCE = 0.999

_SMALLEST, _LARGEST = 1e-12, 1e12  # claims beyond them drown in rounding
_PULL = 1e3  # norm of the canary's gradient, in clipping norms


@dataclass(frozen=True)
class PlacementAudit:
    """The audits of one placement, a row for each claimed epsilon of a round."""

    placement: str
    """Its registered name."""
    unit: Unit
    """What it protects."""
    neighbours: Relation
    """How neighbouring data sets differ."""
    n_steps: int
    """Local steps of a round."""
    n_samples: int
    """How many samples the attacked node has."""
    sampling_rate: float
    """Probability with which each of them takes part in a step."""
    caveat: str
    """Why its epsilon is no guarantee; nothing where it is one."""
    rows: tuple[Audit, ...]
    """One a claim."""
    ceiling: LowerBounds
    """What so many trials could prove of a step without any noise."""

    @property
    def holds(self) -> bool:
        """Whether every claim stands."""
        return all(row.verdict == "holds" for row in self.rows)

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
        return {**asdict(self), "rows": rows, "holds": self.holds}


def audit_scenario(
    scenario: Scenario,
    epsilons: Sequence[float] = EPSILONS,
    *,
    trials: int | None = None,
    confidence: float = CONFIDENCE,
    progress: bool = False,
) -> PlacementAudit:
    """Attack a round of a scenario's training, at given claims.

    The node with the fewest samples trains one round from the start, again and again, through the
    placement, clipping and noise of the scenario. One unit of its data is a canary
    (:class:`fcfn_abm.dp.audit.Canary`).

    Parameters
    ----------
    scenario : Scenario
        What is trained, and how; its horizon is left aside, since one round is attacked.
    epsilons : sequence of float
        Claims for that round, at the scenario's delta.
    trials : int, optional
        How often the round is run for each claim: by default 10,000 times, or 2,000 times where
        a node takes several local steps, each of which costs gradients.
    confidence : float, default 0.999
        Of each row: probability with which no lower bound is above the truth.
    progress : bool, default False
        Whether to show a bar on stderr.

    Returns
    -------
    PlacementAudit
        A row for each claim.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        If torch is not installed.
    RunFailedError
        If the step returns something that is not finite.
    """
    for epsilon in epsilons:
        if not _SMALLEST <= epsilon <= _LARGEST:
            raise InvalidPrivacyError(
                f"epsilon must lie from {_SMALLEST:g} to {_LARGEST:g}, but is {epsilon:g}."
            )
    trainer = prepare_trainer(_one_round(scenario))
    plan = trainer.plan
    if trials is None:
        trials = 10_000 if plan.steps.epochs == 1 else 2_000
    gaussian = plan.placement.sampling_rate == 1  # noise on a random sample is a mixture
    node = int(np.argmin(trainer.n_samples))
    fresh = count(1)  # noise of a round that nobody has used, for every trial
    rows = []
    total = trials // 2 * 2 * len(epsilons)
    with (
        use_one_thread(),
        progress_bar(total=total, desc="audit", unit="round", shown=progress) as bar,
    ):
        for epsilon in epsilons:
            claimed = np.full(len(trainer.shards), float(epsilon))
            std = float(trainer.privacy(claimed).noise_std[node])
            rows.append(
                audit(
                    attack_on(trainer, node, std, fresh),
                    float(epsilon),
                    plan.delta,
                    trials=trials,
                    confidence=confidence,
                    gaussian=gaussian,
                    on_trial=bar.update,
                )
            )
    apart = np.linspace(1.0, 1.001, trials // 2)
    return PlacementAudit(
        placement=scenario.privacy.placement.kind,
        unit=plan.placement.unit,
        neighbours=plan.neighbours,
        n_steps=plan.steps.count_steps(len(trainer.shards[node])),
        n_samples=len(trainer.shards[node]),
        sampling_rate=plan.placement.sampling_rate,
        caveat=trainer.releases[node].caveat,
        rows=tuple(rows),
        ceiling=lower_bounds(apart, -apart, plan.delta, confidence, gaussian=gaussian),
    )


def attack_on(trainer: FederatedTrainer, node: int, std: float, rounds: Iterator[int]) -> Attack:
    """Return the attack on a node's round: the real step, the canary in its data.

    The attacker sees what a release is: the parameters of every local step where each has its own
    noise, and otherwise only those at the start and what the node sends. Where records are sampled
    it contents itself with the latter too.

    Parameters
    ----------
    trainer : FederatedTrainer
        Whose placement, gradients and noise are attacked.
    node : int
        Whose data.
    std : float
        Standard deviation of the node's noise.
    rounds : iterator of int
        Numbers of rounds whose noise is fresh.
    """
    plan, steps, start = trainer.plan, trainer.plan.steps, trainer.first_parameters
    images, labels = trainer.samples(node)
    rate = plan.placement.sampling_rate
    n_steps = steps.count_steps(len(labels))
    release = trainer.releases[node]
    every_step = rate == 1 and release.n_noise_draws == n_steps
    canary = Canary(
        direction=random_direction(trainer.n_parameters, stream(plan.seed, "canary")),
        pull=_PULL * steps.clipping.norm,
        relation=plan.neighbours,
        weight=1 / (release.divisor or steps.samples_per_step(len(labels))),
        alternate=every_step,
    )
    origin = canary.along(start)
    if every_step and n_steps > 1:
        _require_legible(steps.learning_rate * std, float(start.abs().max()), steps.learning_rate)
    whole = plan.placement.unit == "client"
    data = {side: canary.plant(labels, whole=whole, present=side) for side in (True, False)}
    real = trainer.gradients[0]
    per_sample = cache_gradients(
        lambda *at: real.per_sample(*at).rows(),
        start,
        images,
        data[True].clamp(min=0),  # as the canary passes them on
    )

    def attack(present: bool) -> float:
        seen: list[StepView] = []
        round_index = next(rounds)
        upload = trainer.train_node(
            start,
            node,
            round_index,
            std,
            GradientFunction(canary.gradients(per_sample, steps.clipping, seen)),
            data[present],
        )
        if not every_step:
            seen = seen[:1] or [StepView(0.0, 0.0)]  # no record may be drawn at all
        seen = [view._replace(position=view.position - origin) for view in seen]
        seen[0] = seen[0]._replace(position=0.0)
        end = canary.along(upload.values)
        return canary.score(seen, end, steps.learning_rate, steps.momentum)

    return attack


def _require_legible(step: float, largest: float, learning_rate: float) -> None:
    """Raise InvalidPrivacyError where parameters of 32 bits cannot show the steps of the noise."""
    if step < 100 * largest * 2.0**-24:
        raise InvalidPrivacyError(
            f"training.learning_rate = {learning_rate:g} is too small to audit several local "
            "steps: 32-bit parameters do not show them. Epsilon does not depend on it; take a "
            "larger one."
        )


def _one_round(scenario: Scenario) -> Scenario:
    """Return the scenario with an epsilon that is spent in one round."""
    one = {"rounds": 1, "engine": "serial", "device": "cpu"}  # which lets canaries in
    training = (scenario.training or Training()).model_copy(update=one)
    privacy = scenario.privacy.model_copy(update={"horizon": "round"})
    return scenario.model_copy(update={"training": training, "privacy": privacy})


def audit_text(found: PlacementAudit) -> Text:
    """Return the audits as an aligned table.

    Parameters
    ----------
    found : PlacementAudit
        Audits of one placement.
    """
    steps = "one local step" if found.n_steps == 1 else f"{found.n_steps} local steps"
    protects = "one record" if found.unit == "record" else "all data of a node"
    n_trials, confidence = found.rows[0].n_trials, found.rows[0].confidence
    heads = ("claimed epsilon", "any mechanism", "mu-GDP", "Gaussian", "verdict")
    lines: list[str | Text] = [
        f"Placement {found.placement}: {steps}, a node of {found.n_samples} samples; {protects} "
        f"({found.neighbours}), delta = {found.rows[0].delta:g}.",
        f"Lower bounds of a round's epsilon, {n_trials:,} trials, confidence {confidence:g}:",
        "",
        "  ".join(f"{cell:>15}" for cell in heads),
        *(_audit_line(row) for row in found.rows),
        "",
        _reach(found),
    ]
    if found.caveat:
        lines.append(found.caveat)
    return join("\n", lines)


def _audit_line(row: Audit) -> Text:
    bounds = (row.lower.any_mechanism, row.lower.gdp, row.lower.gaussian)
    cells = [f"{row.epsilon:g}", *(f"{bound:.2f}" for bound in bounds), row.verdict]
    line = "  ".join(f"{cell:>15}" for cell in cells)
    return mark_verdict(line, row.verdict, len(line) - len(row.verdict))


def _reach(found: PlacementAudit) -> str:
    most = f"So many trials can show {found.ceiling.any_mechanism:.1f} at most of any mechanism"
    if found.sampling_rate < 1:
        return f"{most}. Records are sampled, so the bounds for Gaussian noise do not apply."
    return (
        f"{most}, and {found.ceiling.gdp:.1f} of a mu-GDP one;\n"
        "the Gaussian bound reaches any epsilon."
    )
