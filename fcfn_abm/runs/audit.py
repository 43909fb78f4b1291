"""Privacy audits of a scenario's rounds: attacks on training with a canary among real records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from fcfn_abm.build import prepare_trainer
from fcfn_abm.dp import Ledger, Relation, Unit
from fcfn_abm.dp.audit import (
    Audit,
    LowerBounds,
    Seen,
    View,
    audit,
    lower_bounds,
    require_trials,
)
from fcfn_abm.errors import InvalidPrivacyError
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.report.marks import Text, join, mark_verdict
from fcfn_abm.scenario import Scenario
from fcfn_abm.scenario.schema import Training as TrainingSettings
from fcfn_abm.training import Chances, FederatedTrainer, ImageData, Training, TrainingPlan
from fcfn_abm.training.canaries import Canary, Remembered, Watched, craft_canaries, observe
from fcfn_abm.training.placements import Placement, Upload

type Floats = npt.NDArray[np.float64]
type Ints = npt.NDArray[np.int64]

EPSILONS = (1.0, 4.0, 10.0)
CONFIDENCE = 0.999
BROKEN = "broken: lower bound above the claim"

_SMALLEST, _LARGEST = 1e-12, 1e12  # claims outside are lost to rounding
_HIDING = 3  # nodes in the sum that the server sees
_ROUNDS = (
    1000  # rounds of the plan: one for the ledger's claims, and one of the first for a late node
)


@dataclass(frozen=True)
class PlacementAudit:
    """The audits of one placement: each claimed epsilon of a round, and the ledger's claims."""

    placement: str
    """Its registered name."""
    unit: Unit
    """Unit that it protects."""
    neighbours: Relation
    """Relation of neighbouring data sets."""
    engine: str
    """Engine of the training."""
    noise_of: str
    """Whether noise is drawn per node or for the sum."""
    n_steps: int
    """Local steps per round."""
    n_samples: int
    """Samples of the attacked node."""
    sampling_rate: float
    """Sampling rate of each step."""
    reach: float
    """How far the canary moved the first release, as a share of its sensitivity. Below one, the
    bounds are weaker by this factor for data that a net accepts."""
    caveat: str
    """Why its epsilon is no guarantee; empty if it is one."""
    rows: tuple[Audit, ...]
    """One audit per claim and view."""
    ceiling: LowerBounds
    """Largest bounds that this number of trials can show, for a step without noise."""

    @property
    def holds(self) -> bool:
        """Whether no claim is violated."""
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
    """Attack a round of a scenario's training, for given claims.

    A few nodes train one round from the start, repeatedly, with the scenario's engine, placement,
    clipping and noise. One unit of the data of one node is a canary
    (:class:`fcfn_abm.training.canaries.Canary`). First, that node trains alone: the attacker sees
    its messages, and the claim is the epsilon that it sold. Then three nodes train, and the
    attacker sees their sum: the claim is the ledger's central view, also for a late node.

    Parameters
    ----------
    scenario : Scenario
        The training to attack; its horizon is ignored, since one round is attacked.
    epsilons : sequence of float
        Claimed epsilons of the round, at the scenario's delta.
    trials : int, optional
        Number of attacked rounds per claim: by default 4,000, or 1,000 if each local step is a
        release, whose attack takes several gradients.
    confidence : float, default 0.999
        Confidence level of each row's lower bounds.
    progress : bool, default False
        Whether to show a bar on stderr.

    Returns
    -------
    PlacementAudit
        A row per claim, and rows for the ledger's claims at the largest epsilon.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.
    MissingExtraError
        If torch is not installed.
    RunFailedError
        If the step returns something that is not finite.
    """
    require_claims(epsilons)
    if trials is not None:
        require_trials(trials)
    sides = Neighbours.prepare(scenario)
    trainer = sides.trainers[True]
    plan, release = trainer.plan, trainer.releases[0]
    if trials is None:
        trials = 4_000 if release.n_noise_draws == 1 else 1_000
    gaussian = plan.placement.sampling_rate == 1  # noise on a random sample is a mixture
    largest = float(max(epsilons))
    central, late, local = sides.read_ledger(largest)
    shared = gaussian and central < local  # otherwise there is no stronger claim for the sum
    fresh = count(1)  # a new round, and so new noise, for every trial
    own = [RoundAttack(sides, 1, float(epsilon), fresh) for epsilon in epsilons]
    with (
        trainer.engine.configure_torch(),
        progress_bar(
            total=trials // 2 * 2 * (len(own) + shared), desc="audit", unit="round", shown=progress
        ) as bar,
    ):

        def run(attack: RoundAttack, claim: float, view: View) -> Audit:
            return audit(
                attack,
                claim,
                plan.delta,
                blocks=sides.find_blocks(attack.n_vectors),
                view=view,
                trials=trials,
                confidence=confidence,
                gaussian=gaussian,
                on_trial=bar.update,
            )

        rows = [run(attack, attack.epsilon, "local") for attack in own]
        strongest = rows[int(np.argmax(epsilons))]
        if late is not None:  # a late node sends the same message
            rows.append(replace(strongest, view="late", epsilon=late))
        if shared:
            rows.append(run(RoundAttack(sides, _HIDING, largest, fresh), central, "central"))
        reach = own[0].measure_reach()
    apart = np.linspace(1.0, 1.001, trials // 2)
    return PlacementAudit(
        placement=scenario.privacy.placement.kind,
        unit=plan.placement.unit,
        neighbours=plan.neighbours,
        engine=str(trainer.engine.facts()["engine"]),
        noise_of=plan.noise_of,
        n_steps=plan.steps.count_steps(int(trainer.n_samples[0])),
        n_samples=int(trainer.n_samples[0]),
        sampling_rate=plan.placement.sampling_rate,
        reach=reach,
        caveat=release.caveat,
        rows=tuple(rows),
        ceiling=lower_bounds(apart, -apart, plan.delta, confidence, gaussian=gaussian),
    )


def require_claims(epsilons: Iterable[float]) -> None:
    """Raise InvalidPrivacyError for claims that are not positive, or lost to rounding."""
    for epsilon in epsilons:
        if not _SMALLEST <= epsilon <= _LARGEST:
            raise InvalidPrivacyError(
                f"epsilon must be between {_SMALLEST:g} and {_LARGEST:g}, not {epsilon:g}."
            )


class Neighbours:
    """Two trainings of a few nodes whose data differ in one unit of the first node's data.

    Parameters
    ----------
    whole : FederatedTrainer
        The scenario's trainer, of which the nodes with the fewest samples are used.
    canary : Canary
        The differing unit.
    """

    def __init__(self, whole: FederatedTrainer, canary: Canary) -> None:
        self.canary = canary
        self.watched: list[Watched] = []
        """For trainings with visible steps: what the canary moved, and what the attacker saw."""
        self.watches = False
        """Whether the first node trains alone with its steps observed."""
        self._remembered: dict[int, Remembered] = {}
        nodes = np.argsort(whole.n_samples, kind="stable")[:_HIDING]
        placement = whole.plan.placement
        self._plan = replace(
            whole.plan,
            placement=observe(placement, self._train),
            horizon="round",
            rounds=_ROUNDS,
            chances=Chances(),
            max_participations=None,
        )
        self._engine = whole.engine.facts()["engine"]
        self._data = {
            side: _take_nodes(
                whole, nodes, canary, whole_node=placement.unit == "client", present=side
            )
            for side in (True, False)
        }
        self.trainers = {side: self._create_trainer(side, self._plan) for side in (True, False)}
        release = self.trainers[True].releases[0]
        self.sampled = placement.sampling_rate < 1
        self.sees_steps = self.sampled or release.n_noise_draws > 1
        """Whether each step is visible: it is a release, or uses a random sample."""

    @classmethod
    def prepare(cls, scenario: Scenario) -> Neighbours:
        """Load the data of a scenario, and make a canary for its net."""
        training = (scenario.training or TrainingSettings()).model_copy(update={"device": "cpu"})
        privacy = scenario.privacy.model_copy(update={"currency": None})  # epsilon is audited
        changed = {"training": training, "privacy": privacy}
        whole = prepare_trainer(scenario.model_copy(update=changed))
        return cls(whole, craft_for(whole))

    def _create_trainer(self, side: bool, plan: TrainingPlan) -> FederatedTrainer:
        made = FederatedTrainer(*self._data[side], plan, engine=self._engine, device="cpu")
        made.first_parameters = self.canary.parameters
        return made

    def _train(self, placement: Placement, *inputs: Any) -> Upload:
        flat, batches, steps, gradients, noise = inputs
        if self.watches:
            gradients = Watched(gradients, self.canary, sampled=self.sampled)
            self.watched.append(gradients)
        elif not self.sees_steps:  # noise is added last: everything before is equal in all trials
            gradients = self._remembered.setdefault(id(gradients), Remembered(gradients))
        return placement.train(flat, batches, steps, gradients, noise)

    def read_ledger(self, epsilon: float) -> tuple[float, float | None, float]:
        """Return the ledger's claims after one round in which all nodes report ``epsilon``.

        Returns
        -------
        central, late, local : float
            For the first node: the central view, on time and late, and the local view. If the
            training masks updates in their sum, a late update stays masked: None.
        """
        delta, n_nodes = self._plan.delta, len(self.trainers[True].shards)
        reports = np.full(n_nodes, epsilon)
        in_time = self.trainers[True].begin()
        in_time.step(reports)
        ledger = _ledger_of(in_time)
        central, local = (
            float(epsilons[0])
            for epsilons in (ledger.central_epsilon(delta), ledger.epsilon(delta))
        )
        if self._plan.view == "central":
            return central, None, local
        chances = Chances(straggling=0.5)
        trainer = self._create_trainer(True, replace(self._plan, chances=chances))
        everyone, training = np.ones(n_nodes, dtype=bool), trainer.begin()
        while 0 not in trainer.draws.draw_attendance(everyone, training.round_index + 1)[2]:
            training.step(np.zeros(n_nodes))
        training.step(reports)
        return central, float(_ledger_of(training).central_epsilon(delta)[0]), local

    def find_blocks(self, n_vectors: int) -> list[Ints]:
        """Return the indices of each parameter's values in a number of concatenated vectors."""
        trainer = self.trainers[True]
        sizes = [part.numel() for part in trainer.gradients[0].net.parameters()]
        places = np.arange(n_vectors * trainer.n_parameters).reshape(n_vectors, -1)
        edges = np.cumsum(sizes)[:-1]
        return [block.ravel() for block in np.split(places, edges, axis=1)]


def craft_for(trainer: FederatedTrainer) -> Canary:
    """Create the canary, of several candidates, that moves a trainer's update the most."""
    gradients, node = trainer.gradients[0], int(np.argmin(trainer.n_samples))
    gradients.load(trainer.first_parameters)
    image = trainer.data.train_images[trainer.shards[node][0]]
    canaries = craft_canaries(gradients.net, image, trainer.plan.neighbours)
    return max(canaries, key=lambda canary: _measure_distance(trainer, canary))


def _measure_distance(trainer: FederatedTrainer, canary: Canary) -> float:
    """Return the distance between the updates of two nodes with one unit each."""
    plan = replace(trainer.plan, chances=Chances(), secure_noise=False)
    plan = replace(plan, steps=replace(plan.steps, grid=None))
    whole, own = plan.placement.unit == "client", canary.count_samples(1, whole=True)
    updates = []
    for side in (True, False):
        images, labels = trainer.data.train_images[:own], trainer.data.train_labels[:own]
        if not whole:
            images, labels = images[:1], labels[:1]
        images, labels = canary.plant(images, labels, whole=whole, present=side)
        held = replace(
            trainer.data,
            train_images=images,
            train_labels=labels,
            train_writers=None,
            **first_test_image(trainer.data),
        )
        engine = trainer.engine.facts()["engine"]
        made = FederatedTrainer(held, [np.arange(len(labels))], plan, engine=engine, device="cpu")
        made.first_parameters = canary.parameters
        sums = made.begin(private=False).aggregate([1.0], np.arange(1), 1)
        updates.append(sums.update.double().numpy())
    return float(np.linalg.norm(updates[0] - updates[1]))


def _take_nodes(
    trainer: FederatedTrainer, nodes: Ints, canary: Canary, *, whole_node: bool, present: bool
) -> tuple[ImageData, list[Ints]]:
    """Return the samples of a few nodes, of which the first has the canary, and their rows."""
    data = trainer.data
    images, labels = [], []
    for place, node in enumerate(nodes.tolist()):
        rows = trainer.shards[node]
        own = data.train_images[rows], data.train_labels[rows]
        if place == 0:
            own = canary.plant(*own, whole=whole_node, present=present)
        images.append(own[0])
        labels.append(own[1])
    taken = replace(
        data,
        train_images=np.concatenate(images),
        train_labels=np.concatenate(labels),
        train_writers=None,
        **first_test_image(data),
    )
    edges = np.cumsum([len(part) for part in labels])
    return taken, np.split(np.arange(edges[-1]), edges[:-1])


def first_test_image(data: ImageData) -> dict[str, Any]:
    """Return a minimal test set, as fields, for trainings whose accuracy is not used."""
    return {"test_images": data.test_images[:1], "test_labels": data.test_labels[:1]}


class RoundAttack:
    """The attack on a round by an adversary who knows all data but one unit.

    If each local step has its own noise, the attacker also sees the parameters at each step, as
    composition allows. If records are sampled, it sees the messages and which records were
    drawn, except for the canary.

    Parameters
    ----------
    sides : Neighbours
        The neighbouring trainings.
    n_nodes : int
        Number of nodes that train; the first has the canary.
    epsilon : float
        Report of each node.
    rounds : iterator of int
        Numbers of unused rounds, for new noise.
    """

    def __init__(
        self, sides: Neighbours, n_nodes: int, epsilon: float, rounds: Iterator[int]
    ) -> None:
        self.epsilon = epsilon
        self._sides, self._rounds = sides, rounds
        self._trainer = trainer = sides.trainers[True]
        self._nodes = np.arange(min(n_nodes, len(trainer.shards)))
        self._reports = np.zeros(len(trainer.shards))
        self._reports[self._nodes] = epsilon
        self._private = {side: made.begin() for side, made in sides.trainers.items()}
        self._clean = {side: made.begin(private=False) for side, made in sides.trainers.items()}
        steps, sizes = trainer.plan.steps, trainer.n_samples[self._nodes].tolist()
        self._same_every_round = all(steps.samples_per_step(size) == size for size in sizes)
        self._known: tuple[Floats, Floats] | None = None
        self._difference: Floats | None = None
        self.n_vectors = 1
        """Number of parameter vectors that the attacker sees in a round."""
        sides.watches = sides.sees_steps
        if sides.sees_steps:
            if not sides.sampled:
                self.n_vectors = trainer.releases[0].n_noise_draws
            self._require_legible()

    def __call__(self, present: bool) -> Seen:
        """Run a round on the data set, or on the neighbouring one."""
        round_index = next(self._rounds)
        self._sides.watched.clear()
        update = self._aggregate(self._private[present], round_index)
        if not self._sides.sees_steps:
            middle, difference = self._look_up(round_index)
            return Seen(update - middle, difference)
        watched = self._sides.watched[0]
        if self._sides.sampled:
            return self._take_together(watched, update)
        return self._take_apart(watched, update)

    def measure_reach(self) -> float:
        """Return how far the canary moves the observation, as a share of what the claim allows."""
        release = self._trainer.releases[0]
        difference = self(True).difference
        if not self._sides.sees_steps:
            return float(np.linalg.norm(difference)) / release.noise_gain / release.sensitivity.l2
        allowed = release.sensitivity.l2 * math.sqrt(release.n_releases)
        return float(np.linalg.norm(difference)) / allowed

    def _aggregate(self, training: Training, round_index: int) -> Floats:
        sums = training.aggregate(self._reports, self._nodes, round_index)
        return np.asarray(sums.update.double().numpy())

    def _look_up(self, round_index: int) -> tuple[Floats, Floats]:
        """Return the midpoint of both data sets' updates without noise, and their difference."""
        if self._known is None or not self._same_every_round:
            here, there = (
                self._aggregate(self._clean[side], round_index) for side in (True, False)
            )
            self._known = (here + there) / 2, here - there
        return self._known

    def _take_apart(self, watched: Watched, update: Floats) -> Seen:
        """Return the releases of all local steps."""
        steps, divisor = self._trainer.plan.steps, self._trainer.releases[0].divisor or 1.0
        positions = np.array([position.double().numpy() for position in watched.positions])
        ends = np.concatenate([positions[1:], positions[:1] + update])
        velocities = (positions - ends) / steps.learning_rate
        velocities[1:] -= steps.momentum * velocities[:-1].copy()
        middles, differences = (
            np.array([part.double().numpy() for part in parts]) / divisor
            for parts in (watched.middles, watched.differences)
        )
        return Seen((velocities - middles).ravel(), differences.ravel())

    def _take_together(self, watched: Watched, update: Floats) -> Seen:
        """Return the messages in units of a release, given which other records were drawn."""
        steps, divisor = self._trainer.plan.steps, self._trainer.releases[0].divisor or 1.0
        released = -update / steps.learning_rate
        for middle in watched.middles:
            released -= middle.double().numpy() / divisor
        if watched.differences:
            differences = [part.double().numpy() for part in watched.differences]
            self._difference = np.sum(differences, axis=0) / divisor
        # without any drawn record, the message is only noise
        difference = np.zeros(released.size) if self._difference is None else self._difference
        return Seen(released, difference)

    def _require_legible(self) -> None:
        """Raise InvalidPrivacyError if 32-bit parameters cannot resolve the local steps."""
        trainer, rate = self._trainer, self._trainer.plan.steps.learning_rate
        std = float(trainer.privacy(self._reports).noise_std[0])
        if rate * std < 100 * float(trainer.first_parameters.abs().max()) * 2.0**-24:
            raise InvalidPrivacyError(
                f"training.learning_rate = {rate:g} is too small to audit several local steps: "
                "32-bit parameters cannot resolve them. Epsilon does not depend on it; choose a "
                "larger one."
            )


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
    lines: list[str | Text] = [
        f"Placement {found.placement}, engine {found.engine}, noise of "
        f"{_NOISE_OF[found.noise_of]}: {steps}, a node of {found.n_samples} samples;",
        f"{protects} ({found.neighbours}), delta = {found.rows[0].delta:g}. The canary moves a "
        f"release by {found.reach:.3f} of its sensitivity.",
        f"Lower bounds of a round's epsilon ({n_trials:,} trials, confidence {confidence:g}):",
        "",
        *table(found.rows),
        "",
        _describe_reach(found),
    ]
    if found.caveat:
        lines.append(found.caveat)
    return join("\n", lines)


_NOISE_OF = {"nodes": "each node", "sum": "the sum"}
_VIEWS: dict[View, str] = {"local": "a node's own", "late": "a late node's", "central": "the sum"}


def table(rows: Sequence[Audit]) -> list[Text]:
    """Return the lines of a table of audits."""
    heads = ("seen", "claim", "any mechanism", "mu-GDP", "Gaussian")
    lines = [Text(f"{_align(heads)}  verdict")]
    for row in rows:
        bounds = (row.lower.any_mechanism, row.lower.gdp, row.lower.gaussian)
        cells = (_VIEWS[row.view], f"{row.epsilon:.4g}", *map(write_bound, bounds))
        words = str(row.verdict)
        if row.verdict == "broken":
            words = f"{BROKEN} ({row.attacker})"
        line = f"{_align(cells)}  {words}"
        lines.append(mark_verdict(line, row.verdict, line.index(words)))
    return lines


def write_bound(bound: float) -> str:
    """Return a bound with two decimals, or as a power of ten."""
    return f"{bound:.2f}" if bound < 1e5 else f"{bound:.0e}"


def _align(cells: Sequence[str]) -> str:
    return "  ".join(f"{cell:>13}" for cell in cells)


def _describe_reach(found: PlacementAudit) -> str:
    most = (
        "With this number of trials the bound for any mechanism is at most "
        f"{found.ceiling.any_mechanism:.1f}"
    )
    if found.sampling_rate < 1:
        return f"{most}. Records are sampled, so bounds for Gaussian noise do not apply."
    return (
        f"{most}, and the mu-GDP bound at most {found.ceiling.gdp:.1f};\n"
        "the Gaussian bound is not limited."
    )


def _ledger_of(training: Training) -> Ledger:
    """Return the ledger of a private training."""
    if training.ledger is None:
        raise InvalidPrivacyError("a training without noise cannot be audited.")
    return training.ledger
