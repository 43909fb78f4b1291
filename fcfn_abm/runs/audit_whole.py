"""Audits of a whole training, with many randomised canaries in one or two trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.build import prepare_trainer
from fcfn_abm.dp import Relation, Unit
from fcfn_abm.dp.audit import (
    USUAL_SHARE,
    LowerBounds,
    Verdict,
    find_lag,
    lower_bounds,
    one_run_epsilon,
)
from fcfn_abm.errors import InvalidPrivacyError, require_between, require_counts
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.report.marks import Text, join, mark_verdict
from fcfn_abm.rng import stream
from fcfn_abm.runs.audit import BROKEN, craft_for, first_test_image, require_claims, write_bound
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.schema import Training as TrainingSettings
from fcfn_abm.training import Chances, FederatedTrainer, TrainingPlan
from fcfn_abm.training.canaries import Canary, compute_losses, observe
from fcfn_abm.training.engines import EngineName
from fcfn_abm.training.placements import Placement, Upload

type Floats = npt.NDArray[np.float64]
type Singles = npt.NDArray[np.float32]
type Coins = npt.NDArray[np.bool_]

EPSILON, CANARIES, CONFIDENCE = 10.0, 2000, 0.95

_FEWEST_CANARIES = 100
_DRIFT = 0.01  # most drift of the parameters by noise, as a share of their initial size
_KEPT = 32  # coordinates of each message stored to look for repeated noise


@dataclass(frozen=True)
class Attacker:
    """The bounds that one attacker of a whole training proved."""

    name: str
    sees: str
    lower: LowerBounds
    """``any_mechanism`` from counted guesses; the other two as in :class:`LowerBounds`."""


@dataclass(frozen=True)
class WholeAudit:
    """The audit of a whole training."""

    placement: str
    unit: Unit
    neighbours: Relation
    engine: str
    epsilon: float
    """The claim: the total over all rounds."""
    delta: float
    rounds: int
    n_canaries: int
    """Number of nodes, each with one canary, in the training with visible messages."""
    n_blackbox: int
    """Canaries of the training of which the attacker sees only the last net; 0 without one."""
    confidence: float
    """Confidence level of all bounds together."""
    clipping_norm: float
    """Clipping norm of the first training."""
    caveat: str
    attackers: tuple[Attacker, ...]

    @property
    def strongest(self) -> Attacker:
        """The attacker with the largest bound."""
        return max(self.attackers, key=lambda one: one.lower.largest)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the claim."""
        return "broken" if self.strongest.lower.largest > self.epsilon else "holds"

    @property
    def holds(self) -> bool:
        """Whether the claim is not violated."""
        return self.verdict == "holds"

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        strongest = self.strongest.name
        return {
            **asdict(self),
            "strongest": strongest,
            "verdict": self.verdict,
            "holds": self.holds,
        }


def audit_whole(
    scenario: Scenario,
    epsilon: float = EPSILON,
    *,
    canaries: int = CANARIES,
    confidence: float = CONFIDENCE,
    blackbox: bool = True,
    progress: bool = False,
) -> WholeAudit:
    """Attack a whole training with a total epsilon.

    In the first training, each node holds one of two records, chosen by a coin, and the attacker
    sees every message. In the second, which is the scenario's own, coins decide whether labels
    are replaced, and the attacker sees only the last net.

    Parameters
    ----------
    scenario : Scenario
        The training to attack; every node takes part in all rounds.
    epsilon : float, default 10
        Claimed total epsilon, at the scenario's delta.
    canaries : int, default 2000
        Number of nodes in the first training.
    confidence : float, default 0.95
        Confidence level of all bounds together.
    blackbox : bool, default True
        Whether to run the second training.
    progress : bool, default False
        Whether to show a bar on stderr.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range, noise is drawn only for the sum, records are sampled, or
        neighbours are clients with zeroed contributions.
    MissingExtraError
        If torch is not installed.

    Notes
    -----
    The clipping norm of the first training is lowered until noise moves the parameters by about
    one percent of their size. Epsilon does not depend on it, and the canaries' gradients remain as
    far apart. Both bounds on mu assume independent scores of different nodes, which holds for
    independent noise.

    References
    ----------
    Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1) training run"; Nasr et al.
    2023, "Tight auditing of differentially private machine learning".
    """
    require_claims([epsilon])
    require_between(0, 1, error=InvalidPrivacyError, confidence=confidence)
    require_counts(error=InvalidPrivacyError, canaries=canaries)
    if canaries < _FEWEST_CANARIES:
        raise InvalidPrivacyError(f"canaries must be at least {_FEWEST_CANARIES}, not {canaries}.")
    own = _prepare(scenario)
    plan = own.plan
    if plan.noise_of == "sum":
        raise InvalidPrivacyError(
            'noise is drawn for the sum only (noise_of = "sum"), so there are no messages of nodes '
            "to attack; omit --whole to attack a round."
        )
    if plan.view == "central" or plan.adaptive_clipping:
        raise InvalidPrivacyError(
            "the attack on a whole training needs visible messages and a fixed clipping norm; omit "
            '--whole to attack a round if privacy.view = "central" or the norm adapts.'
        )
    if plan.placement.sampling_rate < 1:
        raise InvalidPrivacyError(
            "the attack on a whole training must know which records each node uses, but records "
            "are sampled; omit --whole to attack a round."
        )
    if plan.placement.unit == "client" and plan.neighbours == "zero-out":
        raise InvalidPrivacyError(
            "the attack on a whole training has no client data with zero contribution "
            '(privacy.neighbours = "zero-out"); omit --whole to attack a round, or use '
            '"replace-one".'
        )
    risk = 1 - confidence
    with progress_bar(
        total=plan.rounds * (1 + blackbox), desc="audit", unit="round", shown=progress
    ) as bar:
        messages = _Messages(own, epsilon, canaries, _select_engine(scenario, own))
        messages.train(bar.update)
        attackers = messages.attack(risk * (USUAL_SHARE if blackbox else 1.0))
        n_blackbox = 0
        if blackbox:
            other, n_blackbox = _attack_last_net(own, epsilon, risk * (1 - USUAL_SHARE), bar.update)
            attackers.append(other)
    return WholeAudit(
        placement=scenario.privacy.placement.kind,
        unit=plan.placement.unit,
        neighbours=plan.neighbours,
        engine=str(messages.trainer.engine.facts()["engine"]),
        epsilon=float(epsilon),
        delta=plan.delta,
        rounds=plan.rounds,
        n_canaries=canaries,
        n_blackbox=n_blackbox,
        confidence=confidence,
        clipping_norm=messages.trainer.plan.steps.clipping.norm,
        caveat=own.releases[0].caveat,
        attackers=tuple(attackers),
    )


def _select_engine(scenario: Scenario, own: FederatedTrainer) -> EngineName:
    """Return the engine for many nodes with one record each: stacked, unless one is set."""
    asked = (scenario.training or TrainingSettings()).engine
    needs_serial = own.plan.secure_noise or own.plan.precision != "fp32"
    return "stacked" if asked == "auto" and not needs_serial else asked


def _prepare(scenario: Scenario) -> FederatedTrainer:
    """Return the scenario's trainer, on the CPU, for a total epsilon."""
    training = (scenario.training or TrainingSettings()).model_copy(update={"device": "cpu"})
    changed = {"horizon": "training", "currency": None}  # a total epsilon is audited
    privacy = scenario.privacy.model_copy(update=changed)
    return prepare_trainer(scenario.model_copy(update={"training": training, "privacy": privacy}))


class _Messages:
    """A training of many nodes with one record or unit each, and its messages.

    Parameters
    ----------
    own : FederatedTrainer
        The scenario's trainer.
    epsilon : float
        Report of each node, for all rounds.
    n_nodes : int
        Number of nodes.
    engine : str
        Engine of the training.
    """

    def __init__(
        self, own: FederatedTrainer, epsilon: float, n_nodes: int, engine: EngineName
    ) -> None:
        self._epsilon, self._n_nodes = epsilon, n_nodes
        plan = replace(own.plan, chances=Chances(), max_participations=None, false_alarm=None)
        self._plan = plan
        self.coins = stream(plan.seed, "canary").random(n_nodes) < 0.5
        canary = craft_for(own)
        whole = plan.placement.unit == "client"
        self._data = _give_records(own, canary, self.coins, whole=whole)
        steps = plan.steps
        lowered = _lower_clipping(own, self._data, plan, epsilon)
        plan = replace(plan, steps=replace(steps, clipping=replace(steps.clipping, norm=lowered)))
        self._collected: list[tuple[Any, Any]] = []
        self.trainer = FederatedTrainer(
            *self._data,
            replace(plan, placement=observe(plan.placement, self._train)),
            engine=engine,
            device="cpu",
        )
        self.trainer.first_parameters = canary.parameters
        self._scores = np.zeros(n_nodes)
        self._scale = 0.0
        self._kept = np.empty((plan.rounds, n_nodes, 0), dtype=np.float32)
        self._differences = np.empty((plan.rounds, 0))
        self._places: npt.NDArray[np.int64] | None = None

    def _train(self, placement: Placement, *inputs: Any) -> Upload:
        upload = placement.train(*inputs)
        if inputs[4] is not None:
            self._collected.append((inputs[0], upload.values.detach()))
        return upload

    def train(self, on_round: Callable[[], object]) -> None:
        """Train all rounds, and store the messages' scores."""
        training = self.trainer.begin()
        reports = np.full(self._n_nodes, self._epsilon)
        heads, tails = int(np.argmax(self.coins)), int(np.argmin(self.coins))
        while not training.over:
            self._collected.clear()
            training.step(reports)
            flat = self._collected[0][0]
            sent = [values.reshape(-1, flat.numel()).numpy() for _, values in self._collected]
            messages = np.concatenate(sent)  # of one size, nodes train in ascending order
            clean = [
                self.trainer.train_node(
                    flat, node, training.round_index, None, self.trainer.gradients[0]
                )
                for node in (heads, tails)
            ]
            here, there = (upload.clean.double().numpy() for upload in clean)
            self._note(messages, here, there, training.round_index - 1)
            on_round()

    def _note(self, messages: Singles, here: Floats, there: Floats, row: int) -> None:
        if not self._scale:  # one scale for all rounds, so that repeated noise cancels exactly
            self._scale = float(np.abs(here - there).max()) or 1.0
        scale = self._scale
        difference, middle = (here - there) / scale, (here + there) / 2
        noisy = (messages - middle.astype(np.float32)) / np.float32(scale)
        self._scores += noisy @ difference.astype(np.float32)
        if self._places is None:
            self._places = np.sort(np.argsort(-np.abs(difference))[:_KEPT])
            size = self._places.size
            self._kept = np.empty((self._plan.rounds, self._n_nodes, size), dtype=np.float32)
            self._differences = np.empty((self._plan.rounds, size))
        self._kept[row] = noisy[:, self._places]
        self._differences[row] = difference[self._places]

    def attack(self, risk: float) -> list[Attacker]:
        """Return each attacker's bounds; all hold together except with probability ``risk``."""
        everyone = np.arange(self._n_nodes)
        usual = self._judge("every message", everyone, self._scores, USUAL_SHARE * risk)
        left = (1 - USUAL_SHARE) * risk / 2
        found = [usual]
        if self._plan.rounds > 1:
            found.append(self._compare_rounds(left))
        found.append(self._compare_nodes(left))
        return found

    def _compare_rounds(self, risk: float) -> Attacker:
        """Look for noise that is repeated after some rounds, and subtract it."""
        n_rounds, n_nodes, _ = self._kept.shape
        noise = self._kept - self._kept.mean(axis=0)
        lag, sign = find_lag(noise.transpose(1, 2, 0).reshape(-1, n_rounds))
        first = np.flatnonzero((np.arange(n_rounds) // lag % 2 == 0)[: n_rounds - lag])
        apart = self._differences[first] - sign * self._differences[first + lag]
        seen = self._kept[first] - np.float32(sign) * self._kept[first + lag]
        scores = np.einsum("tnk,tk->n", seen, apart, optimize=True).astype(float)
        name = f"rounds {lag} apart"
        return self._judge(name, np.arange(n_nodes), scores, risk / (n_rounds - 1))

    def _compare_nodes(self, risk: float) -> Attacker:
        """Look for noise shared by nodes, of which the attacker knows one, and subtract it."""
        n_nodes = self._n_nodes
        signs = np.where(self.coins, 0.5, -0.5).astype(np.float32)
        noise = self._kept - signs[None, :, None] * self._differences[:, None].astype(np.float32)
        lag, sign = find_lag(noise.transpose(0, 2, 1).reshape(-1, n_nodes))
        first = np.flatnonzero((np.arange(n_nodes) // lag % 2 == 0)[: n_nodes - lag])
        seen = self._kept[:, first] - np.float32(sign) * noise[:, first + lag]
        scores = np.einsum("tnk,tk->n", seen, self._differences, optimize=True).astype(float)
        return self._judge(f"nodes {lag} apart", first, scores, risk / (n_nodes - 1))

    def _judge(self, name: str, nodes: Any, scores: Floats, risk: float) -> Attacker:
        return Attacker(
            name, "all messages", _judge(scores, self.coins[nodes], self._plan.delta, risk)
        )


def _judge(scores: Floats, coins: Coins, delta: float, risk: float) -> LowerBounds:
    """Return the bounds from scores under both coin outcomes; a third of the risk each."""
    if coins.sum() < 20 or (~coins).sum() < 20:
        return LowerBounds(0.0, 0.0, 0.0)
    found = lower_bounds(scores[coins], scores[~coins], delta, 1 - risk)
    return replace(found, any_mechanism=one_run_epsilon(scores, coins, delta, risk / 3))


def _give_records(
    own: FederatedTrainer, canary: Canary, coins: Coins, *, whole: bool
) -> tuple[Any, list[npt.NDArray[np.intp]]]:
    """Return data in which each node holds the canary or its neighbour, and the nodes' rows."""
    n_samples = canary.count_samples(1, whole=whole)
    images, labels = own.data.train_images[:n_samples], own.data.train_labels[:n_samples]
    sides = [canary.plant(images, labels, whole=whole, present=side) for side in (True, False)]
    data = replace(
        own.data,
        train_images=np.concatenate([sides[0][0], sides[1][0]]),
        train_labels=np.concatenate([sides[0][1], sides[1][1]]),
        train_writers=None,
        **first_test_image(own.data),
    )
    rows = np.arange(2 * n_samples)
    return data, [rows[:n_samples] if heads else rows[n_samples:] for heads in coins.tolist()]


def _lower_clipping(
    own: FederatedTrainer, data: tuple[Any, Any], plan: TrainingPlan, epsilon: float
) -> float:
    """Return a clipping norm with which noise hardly moves the parameters."""
    trainer = FederatedTrainer(data[0], data[1][:2], plan, engine="serial", device="cpu")
    std = float(trainer.privacy([epsilon, epsilon]).noise_std[0])
    walk = std * trainer.releases[0].noise_gain * np.sqrt(plan.rounds / len(data[1]))
    size = float(own.first_parameters.double().square().mean().sqrt())
    return float(plan.steps.clipping.norm * min(1.0, _DRIFT * size / walk))


def _attack_last_net(
    own: FederatedTrainer, epsilon: float, risk: float, on_round: Callable[[], object]
) -> tuple[Attacker, int]:
    """Train the scenario's nodes with randomised labels, and guess the coins from the last net."""
    plan, data = own.plan, own.data
    whole = plan.placement.unit == "client"
    (rng,) = stream(plan.seed, "canary").spawn(1)
    owner = np.zeros(len(data.train_labels), dtype=np.int64)
    for node, rows in enumerate(own.shards):
        owner[rows] = node
    held = np.concatenate(own.shards)
    n_units = len(own.shards) if whole else len(owner)
    unit = owner if whole else np.arange(len(owner))
    coins = rng.random(n_units) < 0.5
    n_classes = len(data.class_names)
    others = (data.train_labels + rng.integers(1, n_classes, len(owner))) % n_classes
    labels = np.where(coins[unit], data.train_labels, others)
    trainer = FederatedTrainer(
        replace(
            data,
            train_labels=labels,
            test_images=data.test_images[:1],
            test_labels=data.test_labels[:1],
        ),
        own.shards,
        replace(plan, chances=Chances(), max_participations=None),
        engine=own.engine.facts()["engine"],
        device="cpu",
    )
    training = trainer.begin()
    reports = np.full(len(own.shards), epsilon)
    while not training.over:
        training.step(reports)
        on_round()
    gains = []
    for flat in (trainer.first_parameters, training.state()["flat"]):
        losses = compute_losses(
            trainer.gradients[0],
            flat,
            data.train_images[held],
            [data.train_labels[held], others[held]],
        )
        gains.append(losses[1] - losses[0])
    scores = np.bincount(unit[held], gains[1] - gains[0], minlength=n_units)
    present = np.unique(unit[held])
    lower = _judge(scores[present], coins[present], plan.delta, risk)
    return Attacker("losses", "the last net", lower), present.size


def whole_text(found: WholeAudit) -> Text:
    """Return the audit of a whole training as an aligned table."""
    protects = "one record" if found.unit == "record" else "all data of a node"
    heads = ("attacker", "sees", "counted", "mu-GDP", "Gaussian")
    lines: list[str | Text] = [
        f"Placement {found.placement}, engine {found.engine}: {found.rounds} rounds with a total "
        f"epsilon of {found.epsilon:g}, delta = {found.delta:g}; {protects} ({found.neighbours}).",
        f"Lower bounds of the total epsilon from {1 + (found.n_blackbox > 0)} training(s), joint "
        f"confidence {found.confidence:g}:",
        "",
        _align(heads),
        *(_describe(one) for one in found.attackers),
        "",
        _conclude(found),
        f"All messages: {found.n_canaries:,} nodes with one canary each, clipping norm "
        f"{found.clipping_norm:.2g}. Counted guesses need no assumption; the other two assume "
        "noise that is Gaussian (mu-GDP) and independent across nodes.",
    ]
    if found.n_blackbox:
        lines.append(
            f"The last net: {found.n_blackbox:,} canaries in the scenario's nodes, scored by their "
            "losses.",
        )
    if found.caveat:
        lines.append(found.caveat)
    return join("\n", lines)


def _describe(one: Attacker) -> str:
    bounds = (one.lower.any_mechanism, one.lower.gdp, one.lower.gaussian)
    return _align((one.name, one.sees, *map(write_bound, bounds)))


def _conclude(found: WholeAudit) -> Text:
    largest = found.strongest.lower.largest
    words, share = str(found.verdict), f"{largest / found.epsilon:.2f} of the claim"
    if found.verdict == "broken":
        words, share = BROKEN, found.strongest.name
    line = f"{words}: the strongest attacker proves {write_bound(largest)} ({share})"
    return mark_verdict(line, found.verdict, 0)


def _align(cells: Sequence[str]) -> str:
    return f"{cells[0]:<18}{cells[1]:<14}" + "".join(f"{cell:>10}" for cell in cells[2:])
