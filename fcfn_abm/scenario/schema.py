"""The scenario: one frozen, strict tree that says everything about an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the scenario file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tree: Any) -> Any:
        """Let ``[learning] gain = 0.25`` stand without ``kind``: the default one is meant."""
        if not isinstance(tree, Mapping):
            return tree
        tree = dict(tree)
        for name, field in cls.model_fields.items():
            value = tree.get(name)
            if field.annotation is Choice and isinstance(value, Mapping) and "kind" not in value:
                tree[name] = {"kind": field.get_default(call_default_factory=True).kind, **value}
        return tree


class Choice(Section):
    """A registered name, ``kind``, and the options of what it names, side by side."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    kind: str
    """A registered name."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything beside ``kind``."""
        return dict(self.model_extra or {})


def _choice(kind: str, **options: Any) -> Any:
    return Field(default_factory=lambda: Choice(kind=kind, **options))


class Population(Section):
    """Who plays."""

    n_nodes: Annotated[int, Field(ge=2)] = 50
    """How many edge nodes there are; at least two."""
    rho: Choice = _choice("lognormal")
    """The law of the unit privacy costs, in currency per unit of epsilon."""


class Game(Section):
    """The contest that is played once a round."""

    alpha: Positive = 10.0
    """Model-value parameter of the server: it gains beta ln(1 + alpha eps_g)."""
    beta: Positive = 10.0
    """Model-value parameter of the server, in currency."""
    average_over: Literal["active", "population"] = "active"
    """eps_g averages over the nodes that take part, or over all (the paper's printed form)."""
    budget: NotNegative | None = None
    """Payment cap B, in currency: of every round with the server rule "fixed", of the first round
    with another one (half of beta without it), and what other mechanisms may spend (B* without it).
    """
    epsilon_floor: Positive = 1e-6
    """Smallest admissible report, with which a market at rest can start."""


class Rounds(Section):
    """How rounds are played, and when they end."""

    order: Literal["in_turn", "simultaneous"] = "in_turn"
    """In turn each node sees the running total; at once all answer the last round's reports."""
    turns: Literal["random", "fixed"] = "random"
    """In turn: a fresh random permutation each round, or always the same order."""
    participation: Share = 1.0
    """Share of nodes that move in a round, drawn afresh each time; the others stand still."""
    start: Literal["random", "cold", "warm"] = "random"
    """First reports: around "everybody is like me", the smallest admissible, or the equilibrium."""
    maximum: Count = 1000
    """Rounds after which the market stops, whatever it does."""
    tolerance: Positive = 1e-9
    """Converged when exploitability and relative change stay below this."""
    patience: Count = 3
    """For how many rounds in a row."""


class Information(Section):
    """What nodes see of each other."""

    reports: Literal["full", "aggregate"] = "full"
    """Every report, or their sum alone. The cap and how many take part are always public."""
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Relative error of what is seen, log-normal with mean one, drawn afresh each round: of each
    report, the same for all who read it; where the sum alone is public, of each node's view of it.
    """


class Exit(Section):
    """When nodes leave, and whether they come back."""

    criterion: Literal["best-response", "loss"] = "best-response"
    """A reason to leave: staying out is best (as the learning rule sees it), or the present report
    loses money."""
    patience: Count = 3
    """For how many rounds in a row there must be a reason before a node leaves."""
    reentry: bool = True
    """Whether a node that left comes back when entering pays."""


class Privacy(Section):
    """What epsilon covers, and how it becomes noise."""

    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The probability with which the guarantee of epsilon may fail."""
    calibration: Literal["analytic", "classical"] = "analytic"
    """Exact for every epsilon, or the textbook formula, proven below epsilon = 1 only."""
    unit: Literal["record", "client"] = "record"
    """Neighbouring data sets differ in one sample, or in all data of a node."""
    neighbours: Literal["replace-one", "zero-out"] = "replace-one"
    """How they differ: it is replaced by another, or by one that contributes nothing."""
    horizon: Literal["round", "training"] = "round"
    """Epsilon is spent in each round, or is the total over the whole training."""
    placement: Choice = _choice("dp-sgd")
    """Where noise is added."""
    clipping_norm: Positive = 1.0
    """Largest L2 norm of what is clipped."""


class Training(Section):
    """The federated training that the equilibrium pays for."""

    enabled: bool = True
    """Whether to train at all."""
    data: Choice = _choice("digits")
    """The images."""
    net: Choice = _choice("digits-cnn")
    """The neural network."""
    partition: Choice = _choice("dirichlet")
    """How samples are dealt to nodes."""
    aggregation: Choice = _choice("uniform")
    """How the server averages what nodes send."""
    rounds: Count = 40
    """Communication rounds T."""
    local_steps: Count = 1
    """Steps that a node takes on its own data in a round."""
    learning_rate: Positive = 0.5
    """Learning rate of the local steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the local steps within a round."""
    compare: Annotated[tuple[str, ...], Field(strict=False)] = ("no-noise", "random")
    """What is trained beside the market's epsilon: "no-noise", or the name of a mechanism."""


class RecordSettings(Section):
    """What is kept."""

    traces: Annotated[str, Field(pattern=r"^(none|sample|all|last:[1-9][0-9]*)$")] = "sample"
    """What is kept of nodes round by round: none; a sample of nodes; all nodes, streamed to disk
    as float32; or "last:K", all nodes in the last K rounds."""
    sample_size: Count = 64
    """How many nodes the sample holds: half take part in closed form and half do not, if there are
    as many, spread evenly over the ranks of rho."""


class Scenario(Section):
    """One experiment, whole: two equal scenarios give equal records."""

    title: str = ""
    """A line that says what the scenario is about."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Root of all chance."""
    population: Population = Population()
    game: Game = Game()
    mechanism: Choice = _choice("stackelberg")
    """How the server prices."""
    server: Choice = _choice("anticipate")
    """How the server learns what to pay."""
    learning: Choice = _choice("best-response")
    """How nodes adapt."""
    rounds: Rounds = Rounds()
    information: Information = Information()
    exit: Exit = Exit()
    privacy: Privacy = Privacy()
    training: Training | None = None
    """Without this table no net is trained."""
    record: RecordSettings = RecordSettings()

    @property
    def cap(self) -> float | None:
        """The payment cap that stands in every round; None where the server chooses it."""
        chooses = self.mechanism.kind == "stackelberg" and self.server.kind != "fixed"
        return None if chooses else self.game.budget

    @property
    def trains(self) -> bool:
        """Whether a net is trained."""
        return self.training is not None and self.training.enabled
