"""The scenario: one frozen, strict tree that says everything about an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice, repeat
from numbers import Integral
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from fcfn_abm.rng import LARGEST_SEED

SMALLEST, LARGEST = 1e-18, 1e18
"""Range of costs, money and epsilon: then epsilon itself, money over cost, fits into the 32 bits of
traces, and no product or ratio in the formulas leaves 64."""
_TRAINS_FROM, _TRAINS_TO = 1e-30, 1e30  # nets have 32 bits
_RAREST = 1e-100
CONTESTS = ("stackelberg", "tullock", "weighted")
"""Mechanisms whose contest stands for any cap, so that the server may choose one each round."""
MOST_RUNS = 1_000_000
"""Of one sweep: all of them are checked, and held in memory, before the first begins."""


def _as_int(value: Any) -> Any:
    """Return whole numbers of NumPy as int, and everything else as it is."""
    is_other = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if is_other else value


def _require_between(requirement: str, low: float, high: float = math.inf) -> AfterValidator:
    """Return a check of what is not zero; a plain bound would be printed with all its zeros."""

    def check(value: float) -> float:
        if value and not low <= value <= high:
            raise ValueError(f"must {requirement}")
        return value

    return AfterValidator(check)


_SIZED = f"lie from {SMALLEST:g} to {LARGEST:g}"
Positive = Annotated[
    float,
    Field(gt=0, allow_inf_nan=False, json_schema_extra={"minimum": SMALLEST, "maximum": LARGEST}),
    _require_between(_SIZED, SMALLEST, LARGEST),
]
NotNegative = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, json_schema_extra={"maximum": LARGEST}),
    _require_between(f"be zero, or {_SIZED}", SMALLEST, LARGEST),
]
Finite = Annotated[
    float,
    Field(allow_inf_nan=False, json_schema_extra={"minimum": -LARGEST, "maximum": LARGEST}),
    _require_between(f"lie from {-LARGEST:g} to {LARGEST:g}", -LARGEST, LARGEST),
]
Gain = Annotated[
    float,
    Field(gt=0, le=1, json_schema_extra={"minimum": SMALLEST}),
    _require_between(f"not be smaller than {SMALLEST:g}", SMALLEST),
]
Single = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        json_schema_extra={"minimum": _TRAINS_FROM, "maximum": _TRAINS_TO},
    ),
    _require_between(f"lie from {_TRAINS_FROM:g} to {_TRAINS_TO:g}", _TRAINS_FROM, _TRAINS_TO),
]
Rare = Annotated[
    float,
    Field(gt=0, lt=1, json_schema_extra={"minimum": _RAREST}),
    _require_between(f"not be smaller than {_RAREST:g}", _RAREST),
]
Share = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ClassName = Annotated[str, Field(pattern=r"^[^:]+:[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """A table of the scenario file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, tree: Any) -> Any:
        """Let ``[learning] gain = 0.25`` stand without ``kind``, and ``learning = "gradient"``."""
        if not isinstance(tree, Mapping):
            return tree
        tree = dict(tree)
        for name, kind in _choice_fields(cls).items():
            value = tree.get(name)
            if isinstance(value, str):
                tree[name] = expand_name(value)
            elif isinstance(value, Mapping) and "kind" not in value and kind is not None:
                tree[name] = {"kind": kind, **value}
        return tree


@cache
def _choice_fields(section: type[Section]) -> dict[str, str | None]:
    """Return the keys of a table that hold registered names, with their default names if any."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in section.model_fields.items()
        if Choice in (field.annotation, *get_args(field.annotation))
    }
    return {name: default.kind if default else None for name, default in defaults.items()}


def expand_name(text: str) -> dict[str, Any]:
    """Return what a name alone stands for: ``"parquet:images"`` gives a path with it.

    Examples
    --------
    >>> expand_name("parquet:images/birds")
    {'kind': 'parquet', 'path': 'images/birds'}
    """
    kind, colon, path = text.partition(":")
    return {"kind": kind, "path": path} if colon else {"kind": kind}


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


class Misreport(Section):
    """Nodes that report one epsilon and inject the noise of a smaller one.

    Where the mechanism asks for costs, they report a higher cost than their own, and inject the
    noise of what they sell.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of nodes that do so; their number is rounded to the nearest whole one."""
    factor: Annotated[float, Field(gt=1, le=1e6)] = 1.5
    """Reported over spent epsilon: they pay ``rho / factor`` for a unit of what they report. Or
    reported over true cost."""


Row = Annotated[int, Field(ge=0)]
Listed = Annotated[tuple[Row, ...], Field(strict=False, min_length=1)]


class Coalitions(Section):
    """Nodes that agree: of each coalition the cheapest node alone reports."""

    size: Annotated[int, Field(ge=2)] = 2
    """How many nodes a coalition has, which are drawn from the seed."""
    number: Count = 1
    """How many coalitions there are."""
    rows: Annotated[Listed, Field(min_length=2)] | None = None
    """Rows of the nodes of a single coalition, in place of size and number."""

    @model_validator(mode="after")
    def _require_different_rows(self) -> Coalitions:
        _require_different(self.rows)
        return self


class Sybils(Section):
    """Nodes that come as several: each of their identities sells an equal part of their epsilon.

    A contest pays for the sum, which the node chooses; other mechanisms treat each identity as a
    node of its own.
    """

    identities: Annotated[int, Field(ge=2, le=1000)] = 2
    """As how many such a node comes."""
    number: Count = 1
    """How many nodes do so, which are drawn from the seed."""
    rows: Listed | None = None
    """Their rows, in place of number."""

    @model_validator(mode="after")
    def _require_different_rows(self) -> Sybils:
        _require_different(self.rows)
        return self


def _require_different(rows: tuple[int, ...] | None) -> None:
    for row in rows or ():
        if (rows or ()).count(row) > 1:
            raise ValueError(f"rows: {row} stands twice.")


class Churn(Section):
    """Nodes that come and go while the market plays, and costs that drift."""

    arrivals: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability with which an empty place is taken by a newcomer in a round. There are
    ``n_nodes`` places, all taken at first."""
    departures: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability with which a node goes away for good in a round."""
    drift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of what chance adds to a node's ln(rho) in a round."""
    reversion: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of its distance to the node's first ln(rho) that is made up for in a round; with zero,
    ln(rho) is a random walk."""
    until: Count | None = None
    """Last round of all this, after which the market can come to rest; without it there is none."""

    @property
    def moves(self) -> bool:
        """Whether anything changes at all."""
        return self.departures > 0 or self.drift > 0


Start = Literal["random", "cold", "warm"]


class Exit(Section):
    """When nodes leave, and whether they come back."""

    criterion: Literal["best-response", "loss"] = "best-response"
    """A reason to leave: staying out is best (as the learning rule sees it), or the present report
    loses money."""
    patience: Count = 3
    """For how many rounds in a row there must be a reason before a node leaves."""
    reentry: bool = True
    """Whether a node that left comes back when entering pays."""


class Group(Section):
    """A part of the nodes, and in what it differs: what it leaves out is as for all nodes.

    Nodes of a group are neighbours: the first group holds the first rows, and so on. They move
    among the nodes of other groups, in one order.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)]
    """What the group is called in tables and figures; each name stands once."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all nodes; the number of nodes is rounded to a whole one."""
    n_nodes: Annotated[int, Field(ge=0)] | None = None
    """How many nodes, in place of a share. One group may leave out both, and takes the rest."""
    rho: Choice | None = None
    """The distribution of the group's costs, in place of that in [population.rho]."""
    misreport: Misreport | None = None
    """Which of its nodes misreport, in place of [population.misreport]."""
    learning: Choice | None = None
    """How its nodes adapt, in place of [learning]."""
    exit: Exit | None = None
    """When its nodes leave, in place of [exit]; keys that are left out here have their defaults."""
    start: Start | None = None
    """Its first reports, in place of rounds.start."""
    total_epsilon: Positive | None = None
    """The most that each of its nodes sells over all rounds, in place of population.total_epsilon.
    """
    node_class: ClassName | None = None
    """The class of its nodes, in place of population.node_class."""

    @model_validator(mode="after")
    def _require_one_size(self) -> Group:
        if self.share is not None and self.n_nodes is not None:
            raise ValueError("takes a share or n_nodes, not both.")
        return self


class Population(Section):
    """Who plays."""

    n_nodes: Annotated[int, Field(ge=2)] = 50
    """How many edge nodes there are; at least two."""
    rho: Choice = _choice("lognormal")
    """The law of the unit privacy costs, in currency per unit of epsilon."""
    cost: Literal["linear", "power", "sqrt", "exponential"] | None = None
    """What epsilon costs every node: "linear" rho eps, as in the paper, which is the default;
    "power" rho eps^2, "sqrt" 2 rho sqrt(eps), or "exponential" rho (e^eps - 1)."""
    epsilon_max: (
        Positive
        | Annotated[tuple[Positive, ...], Field(strict=False)]
        | Annotated[str, Field(pattern=r"^column:.+$")]
        | None
    ) = None
    """The most that a node can sell: one number for all, one for each node, or a column of the file
    with the costs, such as "column:cap". Without it nothing limits them."""
    misreport: Misreport | None = None
    """Without this table all nodes are honest."""
    coalitions: Coalitions | None = None
    """Without this table every node reports for itself."""
    sybils: Sybils | None = None
    """Without this table every node comes as one."""
    churn: Churn | None = None
    """Without this table the same nodes stay, and cost the same, in all rounds."""
    total_epsilon: Positive | None = None
    """The most epsilon that each node sells over all rounds, the sum of its reports: its last sale
    is what is left, and then it leaves for good. Without it there is no limit."""
    node_class: ClassName | None = None
    """A class derived from EdgeNode in one of the plug-ins of imports: "my_nodes.py:MyNode", or
    "my_package.nodes:MyNode". Its nodes act as it says."""
    groups: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)] | None = None
    """Parts of the nodes that differ in more than their costs; without it all are alike."""

    @property
    def group_sizes(self) -> list[int]:
        """How many nodes each group holds; they sum to ``n_nodes`` in a scenario that was checked.

        Shares are added up before they are rounded, so that shares with the sum one fill the
        population.
        """
        groups, ends, covered = self.groups or (), [0], 0.0
        sizes = []
        for group in groups:
            if group.share is not None:
                covered += group.share
                ends.append(round(covered * self.n_nodes))
                sizes.append(ends[-1] - ends[-2])
            else:
                sizes.append(group.n_nodes or 0)
        rest = max(self.n_nodes - sum(sizes), 0)
        return [
            rest if group.share is None and group.n_nodes is None else size
            for group, size in zip(groups, sizes, strict=True)
        ]

    def group_of(self, row: int) -> Group | None:
        """Return the group of a node; None where there are no groups."""
        end = 0
        for group, size in zip(self.groups or (), self.group_sizes, strict=True):
            end += size
            if row < end:
                return group
        return None

    @property
    def node_names(self) -> tuple[str | None, ...] | None:
        """Names of the nodes, None for one without; None alone where no node has one."""
        groups: tuple[Group | None, ...] = self.groups or (None,)
        own = [group.rho for group in groups if group and group.rho]
        if not any(choice.options.get("names") for choice in (self.rho, *own)):
            return None
        shared = _names_of(self.rho)
        found: list[str | None] = []
        for group, size in zip(groups, self.group_sizes or [self.n_nodes], strict=True):
            names = _names_of(group.rho) if group and group.rho else shared
            found += islice(names, size)
        return tuple(found)

    @property
    def total_epsilon_by_group(self) -> dict[str, float]:
        """The limits on what a node sells over all rounds, by group; "" for all."""
        tables = {"": self.total_epsilon} | {g.name: g.total_epsilon for g in self.groups or ()}
        return {name: limit for name, limit in tables.items() if limit is not None}

    @property
    def can_misreport(self) -> bool:
        """Whether a table says that some nodes misreport."""
        own = [group.misreport for group in self.groups or ()]
        return any(lies is not None for lies in (self.misreport, *own))


def _names_of(rho: Choice) -> Iterator[str | None]:
    return iter(rho.options.get("names") or repeat(None))


class Game(Section):
    """The contest that is played once a round."""

    alpha: Positive = 10.0
    """Model-value parameter of the server: it gains beta ln(1 + alpha eps_g)."""
    beta: Positive = 10.0
    """Model-value parameter of the server, in currency."""
    average_over: Literal["active", "population", "effective"] = "active"
    """eps_g averages over the nodes that take part, over all (the paper's printed form), or over
    their effective number, S^2 / sum eps^2."""
    budget: NotNegative | None = None
    """Payment cap B, in currency: of every round with the server rule "fixed", of the first round
    with another one (half of beta without it), and what other mechanisms may spend (B* without it).
    """
    total_budget: Positive | None = None
    """The most that the server pays over all rounds, in currency; without it there is no limit."""
    spending: Literal["uniform", "next-point"] | None = None
    """How the server spreads total_budget: no cap is above an equal share of the money left for
    each of the rounds left, or above the cap at which the next unit of money gains as much as in
    the rounds to come (and no less than itself). Without it the cap is what the server rule says,
    until the money is spent."""
    epsilon_floor: Positive = 1e-6
    """Smallest admissible report, with which a market at rest can start."""
    fixed_cost: NotNegative | None = None
    """What taking part costs a node in a round whatever epsilon is, in currency; nothing without
    it."""
    reserve: NotNegative | None = None
    """The least epsilon that is paid; without it every report is."""


class Rounds(Section):
    """How rounds are played, and when they end."""

    order: Literal["in_turn", "simultaneous"] = "in_turn"
    """In turn each node sees the running total; at once all answer the last round's reports."""
    turns: Literal["random", "fixed"] = "random"
    """In turn: a fresh random permutation each round, or always the same order."""
    payment: Literal["announced", "after-reports"] = "announced"
    """When the server sets its cap: before nodes answer it (section 4.4 of the paper), or from the
    reports of the round, which answer the cap of the round before (its fig. 3)."""
    participation: Share = 1.0
    """Share of nodes that move in a round, drawn afresh each time; the others stand still."""
    start: Start = "random"
    """First reports: around "everybody is like me", the smallest admissible, or the equilibrium."""
    maximum: Count = 1000
    """Rounds after which the market stops, whatever it does."""
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-9
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


class Event(Section):
    """A change of the game between two rounds: a shock."""

    change: Literal["rho", "alpha", "beta", "budget", "misreport"]
    """What changes: unit privacy costs, a model-value parameter of the server, its payment cap, or
    the share of nodes that misreport."""
    round: Count | None = None
    """The round before which it happens."""
    chance: Share | None = None
    """In place of a round: the probability with which it happens before each round."""
    until: Count | None = None
    """Last round before which chance may strike; without it there is none."""
    scale: Positive | None = None
    """What it is multiplied by."""
    value: NotNegative | None = None
    """In place of a scale: what it becomes; of costs that of every node."""
    group: str | None = None
    """Whose costs or misreports change; without it those of all nodes."""

    @model_validator(mode="after")
    def _require_one_of_each(self) -> Event:
        if (self.round is None) == (self.chance is None):
            raise ValueError("needs a round or a chance, and not both.")
        if self.until is not None and self.chance is None:
            raise ValueError("until means nothing without a chance.")
        if (self.scale is None) == (self.value is None):
            raise ValueError("needs a scale or a value, and not both.")
        if self.group is not None and self.change not in ("rho", "misreport"):
            raise ValueError(f"{self.change} belongs to no group.")
        if self.change == "misreport" and (self.value is None or self.value > 1):
            raise ValueError("misreport needs a value from 0 to 1, the share of nodes.")
        if self.change != "misreport" and self.value == 0 and self.change != "budget":
            raise ValueError(f"{self.change} must be positive, but value = 0.")
        return self

    @property
    def last_round(self) -> float:
        """Last round before which it may happen."""
        return (
            math.inf
            if self.round is None and self.until is None
            else (self.round or self.until or 0)
        )


class Check(Section):
    """The server's test of each upload for more noise than was reported."""

    false_alarm: Rare = 1e-6
    """Chance of each honest node to be flagged in the whole training, at most."""


class AdaptiveClipping(Section):
    """A clipping norm that follows a quantile of the norms of what is clipped."""

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of what is clipped that is to lie within the clipping norm."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.2
    """How far the norm's logarithm moves in a round for each unit by which that share is off."""
    noise_share: Annotated[float, Field(ge=1e-6, le=0.99)] = 0.01
    """Share of a node's privacy that the counts of what lies within take; as much less is left for
    what is clipped, so that what is sold stays what is spent."""


class Privacy(Section):
    """What epsilon covers, and how it becomes noise."""

    delta: Rare = 1e-5
    """The probability with which the guarantee of epsilon may fail."""
    calibration: Literal["analytic", "classical"] = "analytic"
    """Exact for every epsilon, or the textbook formula, proven below epsilon = 1 only."""
    currency: Literal["epsilon", "zcdp"] | None = None
    """What nodes sell: "epsilon" at delta, which is the default; or "zcdp", the rho of
    zero-concentrated differential privacy, for which the noise is sensitivity / sqrt(2 rho), and of
    which T rounds cost T times as much. The record shows both."""
    unit: Literal["record", "client"] = "record"
    """Neighbouring data sets differ in one sample, or in all data of a node."""
    neighbours: Literal["replace-one", "zero-out"] = "replace-one"
    """How they differ: it is replaced by another, or by one that contributes nothing."""
    horizon: Literal["round", "training"] = "round"
    """Epsilon is spent in each round, or is the total over the whole training."""
    view: Literal["local", "central"] = "local"
    """Against whom a node's epsilon holds: an observer of its own messages; or the server, if
    secure aggregation shows it nothing but the weighted sum, which the noise of all nodes hides.
    The same epsilon then takes far less noise. The record shows what was spent in both views."""
    quorum: Share = 1.0
    """With view = "central": share of the nodes asked in a round whose updates must arrive for the
    sum to be opened. Each node adds noise enough for the claim to hold with these alone; with fewer
    the round is given up."""
    max_participations: Count | None = None
    """Rounds in which a node takes part at most; then it rests. With horizon = "training" the noise
    covers so many rounds, and without this key as many as a node is expected to take part in,
    rounded up: rounds * participation * (1 - dropping). With horizon = "round" there is no limit
    without it."""
    placement: Choice = _choice("dp-sgd")
    """Where noise is added."""
    clipping_norm: Single = 1.0
    """Largest L2 norm of what is clipped; the first one, if it adapts."""
    adaptive_clipping: AdaptiveClipping | None = None
    """With this table the clipping norm follows a quantile of what is clipped, from round to
    round."""
    noise_of: Literal["nodes", "sum"] = "nodes"
    """Whether noise is drawn for each node, or once a round for the sum of what they send, which
    has the same law and takes a fraction of the time."""
    secure_noise: bool = False
    """Draw noise from the operating system, on a grid: fit for release, and never the same twice.
    Needs the extra "secure"."""
    check: Check | None = None
    """With this table the server flags nodes whose uploads hold more noise than they reported:
    what they send is not aggregated, and they are not paid, from that round on."""


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
    server: Choice = _choice("sgd")
    """How the server moves the net by that average; its learning rate may fall by a schedule."""
    averaging: Choice = _choice("none")
    """Of which rounds' nets the mean is evaluated; it costs no privacy."""
    schedule: Literal["at-equilibrium", "every-round"] = "at-equilibrium"
    """The market first, and then all rounds with the epsilon that it ended with; or a round of the
    market and a round of training in turn (the paper's fig. 3), exits included."""
    rounds: Count = 40
    """Communication rounds T."""
    local_epochs: Count = 1
    """Passes E that a node makes over its own data in a round."""
    batch_size: Count | None = None
    """Samples of a local step; without it a step takes all of the node's samples."""
    participation: Share = 1.0
    """Probability with which a node is asked to train in a round."""
    dropping: Chance = 0.0
    """Probability with which a node that is asked fails before it sends anything."""
    straggling: Chance = 0.0
    """Probability with which what a node sends comes too late: its privacy is spent in vain."""
    learning_rate: Single = 0.5
    """Learning rate of the local steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the local steps within a round."""
    compare: Annotated[tuple[str, ...], Field(strict=False)] = ("no-noise", "random")
    """What is trained beside the market's epsilon: "no-noise", or the name of a mechanism."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the layers' work on gradients: 32 bits, or 16 where processors are faster with them."""
    engine: Literal["auto", "serial", "stacked"] = "auto"
    """Whether nodes train one after another, on a processor, or whole groups of nodes at once, on
    stacked parameters: the same averages to rounding; "auto" suits the device."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where nets are trained: on processors, on a CUDA device, or, with "auto", on the latter where
    there is one and the other settings allow."""
    checkpoint_every: Count = 10
    """After how many rounds a run that is written to a folder keeps where it stands."""


class Value(Section):
    """What the server learns of the value of epsilon from the rounds that it pays for.

    With this table a scenario with ``training.schedule = "every-round"`` is a closed loop: after
    each round of training the server refits alpha and beta to what the net has gained, and prices
    the next round by them. See docs/closed_loop.md for the model.
    """

    frozen: bool = False
    """Measure, but keep alpha and beta of [game], and explore nothing: the market and the training
    are those of the scenario without this table."""
    measure: Literal["accuracy", "loss"] = "accuracy"
    """What a round of training gains: test accuracy, or a lower test loss."""
    price: Positive = 100.0
    """What a unit of it is worth to the server, in currency: with 100, a percentage point of
    accuracy is worth one."""
    prior_alpha: Positive | None = None
    """Median of alpha before the first round; without it game.alpha."""
    prior_beta: Positive | None = None
    """Mode of beta before the first round, in currency; without it game.beta. It is normal, cut off
    at zero."""
    prior_spread: Annotated[float, Field(gt=0, le=5)] = 1.0
    """How uncertain both are: standard deviation of ln(alpha), and of beta as a share of it."""
    prior_depreciation: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the accuracy gained so far that a round loses, before the first round; its standard
    deviation is as large."""
    prior_noise: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Standard deviation of the measured gain of a round around its expected one, before the first
    round; half or twice as much is as likely."""
    window: Annotated[int, Field(ge=0)] = 0
    """How many rounds the fit looks back; zero: all of them."""
    explore: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Size of the trials: the cap of round t is multiplied by exp(explore / sqrt(t)) or divided by
    it, by a fair draw. The server rule "bandit" tries caps by itself."""


class RecordSettings(Section):
    """What is kept."""

    traces: Annotated[str, Field(pattern=r"^(none|sample|all|last:[1-9][0-9]*)$")] = "sample"
    """What is kept of nodes round by round: none; a sample of nodes; all nodes, streamed to disk
    as float32; or "last:K", all nodes in the last K rounds."""
    sample_size: Count = 64
    """How many nodes the sample holds: half take part in closed form and half do not, if there are
    as many, spread evenly over the ranks of rho."""


class Axis(Section):
    """What one key of the scenario goes through: listed values, or a range."""

    values: Annotated[tuple[Any, ...], Field(strict=False)] | None = None
    """Values as they would stand in the scenario; the list alone may stand for the table."""
    low: Finite | None = None
    """Where a range begins."""
    high: Finite | None = None
    """Where it ends; both ends belong to it."""
    n: Count | None = None
    """In the modes grid and zip: how many values the range is divided into."""
    log: bool = False
    """Whether steps are equal in the logarithm, not in the value."""

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            return {"values": tree}
        if not isinstance(tree, Mapping):
            raise ValueError("needs a list of values, or a table with low and high.")
        if tree and not tree.keys() & cls.model_fields.keys():
            raise ValueError('the path of an axis stands in quotes: "game.alpha" = [1.0, 2.0].')
        return tree

    @model_validator(mode="after")
    def _require_list_or_range(self) -> Axis:
        ranged = [name for name in ("low", "high", "n") if getattr(self, name) is not None]
        if self.values is not None:
            if ranged or self.log:
                raise ValueError("takes a list of values, or low and high, not both.")
            if not self.values:
                raise ValueError("needs one value or more.")
        elif self.low is None or self.high is None:
            raise ValueError("needs a list of values, or low and high.")
        elif self.low >= self.high:
            raise ValueError(f"low must lie below high, but {self.low:g} does not.")
        elif self.log and self.low <= 0:
            raise ValueError(f"low must be positive with log = true, but is {self.low:g}.")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Allow the list alone."""
        return {"anyOf": [{"type": "array", "minItems": 1}, handler(core)]}


class SweepSettings(Section):
    """Many runs from one file: axes over keys of the scenario, each point several times."""

    mode: Literal["grid", "zip", "random", "latin-hypercube", "sobol"] = "grid"
    """Every combination of the axes; their first values together, then their second ones, and so
    on; a sample of the space that they span, plain or with every axis evenly covered; or the
    points that tell how much of the outcomes' variance each axis explains (Sobol indices)."""
    n_samples: Count | None = None
    """In the modes random and latin-hypercube: how many points are drawn. In the mode sobol a
    power of two, n, for n (d + 2) points with d axes."""
    replications: Count = 1
    """Runs of each point, with seeds of their own, the same at all points; the first one has the
    scenario's seed."""
    maximum: Annotated[int, Field(ge=1, le=MOST_RUNS)] = 10_000
    """Most runs that the sweep may have; more are refused. It can be raised to a million."""
    keep: Literal["result", "record"] = "result"
    """What is kept of each run: its row in the table, or its whole record too."""
    timeout: Positive | None = None
    """Seconds after which a run is ended, and has failed; without it a run takes what it takes."""
    axes: dict[str, Axis] = Field(default_factory=dict)
    """From the path of a key, such as "population.n_nodes", to what it goes through."""

    @property
    def samples(self) -> bool:
        """Whether points are drawn, and not counted out."""
        return self.mode in ("random", "latin-hypercube", "sobol")

    @model_validator(mode="after")
    def _require_axes_for_mode(self) -> SweepSettings:
        if self.samples and not (self.axes and self.n_samples):
            raise ValueError(f"the mode {self.mode!r} needs n_samples, and one axis or more.")
        if self.mode == "sobol":
            if len(self.axes) < 2:
                raise ValueError("the mode 'sobol' shares variance out among two axes or more.")
            n = self.n_samples or 0
            if n < 2 or n & (n - 1):
                raise ValueError(f"n_samples must be a power of two in the mode 'sobol', not {n}.")
        if not self.samples and self.n_samples:
            raise ValueError(f"n_samples means nothing to the mode {self.mode!r}.")
        for path, axis in self.axes.items():
            if self.samples and axis.n:
                raise ValueError(f"{path}: n means nothing to the mode {self.mode!r}.")
            if not self.samples and axis.values is None and not axis.n:
                raise ValueError(f"{path}: a range needs n in the mode {self.mode!r}.")
        return self


CellName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$", max_length=40)]
BenchMode = Literal["equal-cap", "equal-spending", "equal-epsilon"]


class BenchData(Section):
    """How data are dealt to the nodes, and whether their costs follow them."""

    partition: str | dict[str, Any] | None = None
    """How, in place of [training.partition]."""
    coupling: NotNegative = 0.0
    """How much costlier a node is that has no label in common with the others: a cost as drawn is
    multiplied by 1 + coupling d, d the total variation between the node's label shares and those
    of all, and all are divided by the mean of these factors."""


class BenchTraining(Section):
    """The part of the benchmark in which nets are trained."""

    costs: str
    """One of [bench.costs]."""
    budget: Positive
    """One of budgets."""
    data: str
    """One of [bench.data]."""
    mode: BenchMode = "equal-spending"
    """One of modes."""
    seeds: Count = 3
    """In how many of the populations, from the first on: each is a seed of its own."""
    last: Count = 5
    """Over how many of the last rounds accuracy is averaged."""


class BenchSettings(Section):
    """A benchmark of mechanisms: distributions of costs, budgets and data, at equal terms."""

    mechanisms: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Registered names; without it all of them, the scenario's own first."""
    modes: Annotated[tuple[BenchMode, ...], Field(strict=False, min_length=1)] = (
        "equal-cap",
        "equal-spending",
        "equal-epsilon",
    )
    """How they are compared: each under the cap; each set so that the server spends
    the cap; or each set so that it buys the mean epsilon that the scenario's own mechanism buys
    under the cap."""
    tolerance: Annotated[float, Field(gt=0, le=0.1)] = 0.01
    """Largest relative distance from what is to be equal."""
    replications: Count = 20
    """How many populations are drawn in each cell, the same for all mechanisms and modes."""
    budgets: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    """Payment caps, in currency."""
    costs: dict[CellName, Any] = Field(default_factory=dict)
    """Distributions of costs by name, each in place of [population.rho]; without it that one."""
    data: dict[CellName, BenchData] = Field(default_factory=dict)
    """How data are dealt, by name; without it as [training.partition] says, without coupling."""
    training: BenchTraining | None = None
    """Without this table, or with training.enabled = false, no net is trained."""


class Scenario(Section):
    """One experiment, whole: two equal scenarios give equal records."""

    title: str = ""
    """A line that says what the scenario is about."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED), BeforeValidator(_as_int)] = 0
    """Root of all chance."""
    imports: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Plug-ins that the scenario needs: Python files, "my_rules.py", relative to this file, or
    modules, "my_package.rules". They are imported only where the user allows it (--trust)."""
    population: Population = Population()
    game: Game = Game()
    mechanism: Choice = _choice("stackelberg")
    """How the server prices."""
    compared: dict[str, dict[str, Any]] | None = None
    """Options of the mechanisms that it is compared with, by name, in "training.compare" and in
    "fcfn compare": [compared.static] epsilon = 5.0; without them, their defaults. Those of the
    scenario's own mechanism stand in [mechanism]."""
    server: Choice = _choice("anticipate")
    """How the server learns what to pay."""
    learning: Choice = _choice("best-response")
    """How nodes adapt."""
    rounds: Rounds = Rounds()
    information: Information = Information()
    exit: Exit = Exit()
    events: Annotated[tuple[Event, ...], Field(strict=False)] | None = None
    """Changes of the game while it is played."""
    privacy: Privacy = Privacy()
    training: Training | None = None
    """Without this table no net is trained."""
    value: Value | None = None
    """Without this table alpha and beta of [game] stand, whatever the net gains."""
    record: RecordSettings = RecordSettings()
    sweep: SweepSettings | None = None
    """With this table the file stands for many runs, which "fcfn sweep" carries out."""
    bench: BenchSettings | None = None
    """With this table the file stands for a benchmark of mechanisms, which "fcfn bench" carries
    out."""

    @property
    def cap(self) -> float | None:
        """The payment cap that stands in every round; None where the server chooses it."""
        return None if self.chooses_cap else self.game.budget

    @property
    def keeps_account(self) -> bool:
        """Whether there is a limit on what is paid or sold over all rounds."""
        limits = self.population.total_epsilon_by_group
        return self.game.total_budget is not None or bool(limits)

    @property
    def last_round(self) -> int:
        """The last round that is played: with such a limit no round outlasts the training."""
        training = self.training
        if training is None or not (self.trains and self.keeps_account):
            return self.rounds.maximum
        return min(self.rounds.maximum, training.rounds)

    @property
    def chooses_cap(self) -> bool:
        """Whether the server chooses the cap round by round: in contests that stand for any cap."""
        return self.mechanism.kind in CONTESTS and self.server.kind != "fixed"

    @property
    def trains(self) -> bool:
        """Whether a net is trained."""
        return self.training is not None and self.training.enabled
