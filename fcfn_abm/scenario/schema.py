"""The scenario: one frozen, strict tree that describes an experiment completely."""

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
"""Range of costs, money and epsilon. Epsilon (money / cost) then fits into the float32 of traces,
and no product or ratio in the formulas leaves float64."""
_TRAINS_FROM, _TRAINS_TO = 1e-30, 1e30  # nets compute in float32
_RAREST = 1e-100
CONTESTS = ("stackelberg", "tullock", "weighted")
"""Mechanisms whose contest works for any cap, so that the server may choose a new one each
round."""
MOST_RUNS = 1_000_000
"""Limit of one sweep: all its runs are checked, and held in memory, before the first one starts."""


def _as_int(value: Any) -> Any:
    """Convert NumPy integers to int; return everything else unchanged."""
    is_other = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if is_other else value


def _require_between(requirement: str, low: float, high: float = math.inf) -> AfterValidator:
    """Return a check of non-zero values; pydantic's own bound would print all zeros of 1e-18."""

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
    """Return the keys of a table that hold registered names, with default names (None: none)."""
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in section.model_fields.items()
        if Choice in (field.annotation, *get_args(field.annotation))
    }
    return {name: default.kind if default else None for name, default in defaults.items()}


def expand_name(text: str) -> dict[str, Any]:
    """Return the table that a bare name stands for; ``"parquet:images"`` includes a path.

    Examples
    --------
    >>> expand_name("parquet:images/birds")
    {'kind': 'parquet', 'path': 'images/birds'}
    """
    kind, colon, path = text.partition(":")
    return {"kind": kind, "path": path} if colon else {"kind": kind}


class Choice(Section):
    """A registered name, ``kind``, with the options of the entry as further keys."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    kind: str
    """A registered name."""

    @property
    def options(self) -> dict[str, Any]:
        """All keys except ``kind``."""
        return dict(self.model_extra or {})


def _choice(kind: str, **options: Any) -> Any:
    return Field(default_factory=lambda: Choice(kind=kind, **options))


class Misreport(Section):
    """Nodes that report a larger epsilon than the one their noise provides.

    Where the mechanism asks for costs instead, these nodes report a higher cost than their own, and
    add the noise of the epsilon that they sell.
    """

    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the nodes that misreport, from 0 to 1; their number is rounded to the nearest
    integer."""
    factor: Annotated[float, Field(gt=1, le=1e6)] = 1.5
    """Reported epsilon divided by spent epsilon, so that a unit of reported epsilon costs such a
    node ``rho / factor``. Where costs are reported: reported cost divided by true cost."""


Row = Annotated[int, Field(ge=0)]
Listed = Annotated[tuple[Row, ...], Field(strict=False, min_length=1)]


class Coalitions(Section):
    """Nodes that collude: in each coalition only the node with the lowest cost reports."""

    size: Annotated[int, Field(ge=2)] = 2
    """Number of nodes in each coalition; the members are drawn from the seed."""
    number: Count = 1
    """Number of coalitions."""
    rows: Annotated[Listed, Field(min_length=2)] | None = None
    """Row numbers (from 0) of the members of a single coalition, in place of size and number."""

    @model_validator(mode="after")
    def _require_different_rows(self) -> Coalitions:
        _require_different(self.rows)
        return self


class Sybils(Section):
    """Nodes with several identities; each identity sells an equal part of their epsilon.

    A contest pays for the sum, which the node chooses; other mechanisms treat each identity as a
    separate node.
    """

    identities: Annotated[int, Field(ge=2, le=1000)] = 2
    """Number of identities of each such node."""
    number: Count = 1
    """Number of nodes with several identities; they are drawn from the seed."""
    rows: Listed | None = None
    """Row numbers (from 0) of these nodes, in place of number."""

    @model_validator(mode="after")
    def _require_different_rows(self) -> Sybils:
        _require_different(self.rows)
        return self


def _require_different(rows: tuple[int, ...] | None) -> None:
    for row in rows or ():
        if (rows or ()).count(row) > 1:
            raise ValueError(f"rows: {row} is listed twice.")


class Churn(Section):
    """Nodes that arrive and depart during the market, and costs that drift."""

    arrivals: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability per round that an empty place is taken by a new node. There are ``n_nodes``
    places, and all are taken in the first round."""
    departures: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability per round that a node departs for good."""
    drift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of the random change of a node's ln(rho) per round; 0 keeps costs
    constant."""
    reversion: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the distance to a node's initial ln(rho) that is removed per round; with 0, ln(rho)
    is a random walk."""
    until: Count | None = None
    """Last round with arrivals, departures and drift; the market can converge only after it. By
    default they never end."""

    @property
    def moves(self) -> bool:
        """Whether any node departs, or any cost drifts."""
        return self.departures > 0 or self.drift > 0


Start = Literal["random", "cold", "warm"]


class Exit(Section):
    """When nodes leave the market, and whether they can return."""

    criterion: Literal["best-response", "loss"] = "best-response"
    """Reason to leave: the best response is to stay out, as the learning rule estimates it
    ("best-response"), or the current report loses money ("loss")."""
    patience: Count = 3
    """Number of consecutive rounds with a reason to leave before a node leaves."""
    reentry: bool = True
    """Whether a node that left returns when taking part pays again."""


class Group(Section):
    """A group of nodes and its own settings; keys that are left out are as for all nodes.

    Groups are contiguous: the first group holds the first rows, and so on. The nodes of all groups
    move in one common order.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=40)]
    """Name of the group in tables and figures; must be unique."""
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all nodes, from 0 to 1; the number of nodes is rounded to an integer."""
    n_nodes: Annotated[int, Field(ge=0)] | None = None
    """Number of nodes, in place of share. One group may leave out both keys and takes the remaining
    nodes."""
    rho: Choice | None = None
    """Distribution of the group's unit privacy costs, in place of [population.rho]."""
    misreport: Misreport | None = None
    """Which nodes of the group misreport, in place of [population.misreport]."""
    learning: Choice | None = None
    """Learning rule of the group's nodes, in place of [learning]."""
    exit: Exit | None = None
    """When nodes of the group leave, in place of [exit]; keys that are left out have the defaults
    of the schema, not the values of [exit]."""
    start: Start | None = None
    """First reports of the group's nodes, in place of rounds.start."""
    total_epsilon: Positive | None = None
    """Largest epsilon that each node of the group sells over all rounds, in place of
    population.total_epsilon."""
    node_class: ClassName | None = None
    """Class of the group's nodes, in place of population.node_class."""

    @model_validator(mode="after")
    def _require_one_size(self) -> Group:
        if self.share is not None and self.n_nodes is not None:
            raise ValueError("takes a share or n_nodes, not both.")
        return self


class Population(Section):
    """The nodes: their number, costs, limits and behaviour."""

    n_nodes: Annotated[int, Field(ge=2)] = 50
    """Number of edge nodes."""
    rho: Choice = _choice("lognormal")
    """Distribution of the unit privacy costs rho, in currency per unit of epsilon."""
    cost: Literal["linear", "power", "sqrt", "exponential"] | None = None
    """Privacy cost of selling epsilon: "linear", rho eps (the paper's cost, and the default);
    "power", rho eps^2; "sqrt", 2 rho sqrt(eps); or "exponential", rho (e^eps - 1)."""
    epsilon_max: (
        Positive
        | Annotated[tuple[Positive, ...], Field(strict=False)]
        | Annotated[str, Field(pattern=r"^column:.+$")]
        | None
    ) = None
    """Largest epsilon that a node can sell per round: one number for all nodes, a list with one
    number per node, or a column of the costs file, such as "column:cap". By default there is no
    limit."""
    misreport: Misreport | None = None
    """Nodes that misreport. Without this table all nodes report truthfully."""
    coalitions: Coalitions | None = None
    """Nodes that collude. Without this table every node reports for itself."""
    sybils: Sybils | None = None
    """Nodes with several identities. Without this table every node has one identity."""
    churn: Churn | None = None
    """Arrivals, departures and drifting costs. Without this table nodes and costs stay the same in
    all rounds."""
    total_epsilon: Positive | None = None
    """Largest epsilon that each node sells over all rounds, as the sum of its reports. The last
    sale is cut to the rest, and then the node leaves for good. By default there is no limit."""
    node_class: ClassName | None = None
    """Class of the nodes, derived from EdgeNode, from one of the plug-ins in imports:
    "my_nodes.py:MyNode" or "my_package.nodes:MyNode". By default EdgeNode itself."""
    groups: Annotated[tuple[Group, ...], Field(strict=False, min_length=1)] | None = None
    """Groups of nodes with their own costs, learning rules and other settings. By default there are
    no groups."""

    @property
    def group_sizes(self) -> list[int]:
        """Number of nodes of each group; the sizes sum to ``n_nodes`` in a checked scenario.

        Shares are accumulated before they are rounded, so that shares that sum to one fill the
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
        """Return the group of a node, or None if there are no groups."""
        end = 0
        for group, size in zip(self.groups or (), self.group_sizes, strict=True):
            end += size
            if row < end:
                return group
        return None

    @property
    def node_names(self) -> tuple[str | None, ...] | None:
        """Names of the nodes (None for a node without one), or None if no node has a name."""
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
        """Whether a table makes some nodes misreport."""
        own = [group.misreport for group in self.groups or ()]
        return any(lies is not None for lies in (self.misreport, *own))


def _names_of(rho: Choice) -> Iterator[str | None]:
    return iter(rho.options.get("names") or repeat(None))


class Game(Section):
    """The game of every round: the server's value, its money, and the terms of sale."""

    alpha: Positive = 10.0
    """Model-value parameter of the server, per unit of epsilon: its value is beta ln(1 + alpha
    eps_g)."""
    beta: Positive = 10.0
    """Model-value parameter of the server, in currency: its value is beta ln(1 + alpha eps_g)."""
    average_over: Literal["active", "population", "effective"] = "active"
    """Which nodes the mean eps_g covers: the nodes that take part ("active"); all nodes
    ("population", the paper's printed form); or their effective number, S^2 / sum eps^2, with S the
    sum of all eps ("effective")."""
    budget: NotNegative | None = None
    """Payment cap B, in currency per round: of every round with the server rule "fixed", of the
    first round with other rules (default: half of beta). With a mechanism other than a contest, the
    most that the server may spend (default: the equilibrium cap B*)."""
    total_budget: Positive | None = None
    """Largest sum that the server pays over all rounds, in currency. By default there is no
    limit."""
    spending: Literal["uniform", "next-point"] | None = None
    """How the server spreads total_budget over the rounds. "uniform": no cap exceeds an equal share
    of the money left for each round left. "next-point": no cap exceeds the point at which the next
    unit of money gains as much as in the rounds to come, and at least its own amount. By default
    the server rule alone sets the cap until the money is spent."""
    epsilon_floor: Positive = 1e-6
    """Smallest report of a node that takes part, in epsilon; a market in which nobody reports can
    restart from it."""
    fixed_cost: NotNegative | None = None
    """Cost of taking part in a round, in currency, independent of epsilon. By default there is
    none."""
    reserve: NotNegative | None = None
    """Smallest epsilon that is paid. By default every report is paid."""


class Rounds(Section):
    """How rounds are played, and when the market ends."""

    order: Literal["in_turn", "simultaneous"] = "in_turn"
    """"in_turn": nodes move one after another and see the running total; "simultaneous": all nodes
    move at once and see the last round's reports."""
    turns: Literal["random", "fixed"] = "random"
    """Order of moves with order = "in_turn": a new random permutation each round, or the same order
    in all rounds."""
    payment: Literal["announced", "after-reports"] = "announced"
    """When the server sets the cap of a round: before the nodes move ("announced", section 4.4 of
    the paper), or after their reports, which then answer the previous round's cap ("after-reports",
    its fig. 3)."""
    participation: Share = 1.0
    """Share of the nodes that move in a round, drawn again each round; the others keep their
    reports."""
    start: Start = "random"
    """First reports: "random", the symmetric equilibrium at the node's own cost times a uniform
    factor from 0.5 to 1.5; "cold", game.epsilon_floor; "warm", the equilibrium."""
    maximum: Count = 1000
    """Largest number of rounds; the market stops after it even if it has not converged."""
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-9
    """The market converges when exploitability and the relative changes of reports and cap stay at
    or below this value."""
    patience: Count = 3
    """Number of consecutive rounds for which the market must stay within the tolerance."""


class Information(Section):
    """What nodes observe of the other nodes."""

    reports: Literal["full", "aggregate"] = "full"
    """Public reports: every report ("full"), or only their sum ("aggregate"). The cap and the
    number of participants are always public."""
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Relative error of observations, as the standard deviation of a log-normal factor with mean
    one, drawn again each round. With "full" each report has one error, the same for all readers;
    with "aggregate" each node has its own error on the sum."""


class Event(Section):
    """A change of the game between two rounds (a shock)."""

    change: Literal["rho", "alpha", "beta", "budget", "misreport"]
    """What changes: the unit privacy costs, a model-value parameter of the server, its payment cap,
    or the share of nodes that misreport."""
    round: Count | None = None
    """Round before which the change happens."""
    chance: Share | None = None
    """Probability with which the change happens before each round, in place of round."""
    until: Count | None = None
    """Last round before which the change can happen by chance. By default there is none."""
    scale: Positive | None = None
    """Factor by which the quantity is multiplied."""
    value: NotNegative | None = None
    """New value, in place of scale; for rho the cost of every node, for misreport a share from 0 to
    1."""
    group: str | None = None
    """Group whose costs or misreports change. By default those of all nodes."""

    @model_validator(mode="after")
    def _require_one_of_each(self) -> Event:
        if (self.round is None) == (self.chance is None):
            raise ValueError("needs either round or chance.")
        if self.until is not None and self.chance is None:
            raise ValueError("until needs chance.")
        if (self.scale is None) == (self.value is None):
            raise ValueError("needs either scale or value.")
        if self.group is not None and self.change not in ("rho", "misreport"):
            raise ValueError(f"group is allowed for rho and misreport only, not for {self.change}.")
        if self.change == "misreport" and (self.value is None or self.value > 1):
            raise ValueError("misreport needs a value between 0 and 1, the share of nodes.")
        if self.change != "misreport" and self.value == 0 and self.change != "budget":
            raise ValueError(f"{self.change} must be positive, but value = 0.")
        return self

    @property
    def last_round(self) -> float:
        """Last round before which the change can happen."""
        return (
            math.inf
            if self.round is None and self.until is None
            else (self.round or self.until or 0)
        )


class Check(Section):
    """Detection of uploads that carry more noise than the node reported."""

    false_alarm: Rare = 1e-6
    """Largest probability that a truthful node is flagged at any time in the training."""


class AdaptiveClipping(Section):
    """A clipping norm that follows a quantile of the norms of what is clipped."""

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Target share of norms that lie within the clipping norm, between 0 and 1."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Change of the clipping norm's logarithm per round, per unit of difference between observed
    and target share."""
    noise_share: Annotated[float, Field(ge=1e-6, le=0.99)] = 0.01
    """Share of a node's privacy that the private counts of norms within the clipping norm use. The
    updates get the rest, so that the total equals the epsilon that the node sold."""


class Privacy(Section):
    """What epsilon protects, and how it is turned into noise."""

    delta: Rare = 1e-5
    """Probability delta of (epsilon, delta)-differential privacy, between 0 and 1."""
    calibration: Literal["analytic", "classical"] = "analytic"
    """Calibration of Gaussian noise: "analytic" is exact for every epsilon; "classical" is the
    textbook formula, which is proven for epsilon below 1 only."""
    currency: Literal["epsilon", "zcdp"] | None = None
    """What nodes sell: "epsilon" at delta (the default), or "zcdp", the rho of zero-concentrated
    differential privacy. The noise is then sensitivity / sqrt(2 rho), and T rounds cost T times as
    much as one. The record shows both."""
    unit: Literal["record", "client"] = "record"
    """Protected unit: neighbouring data sets differ in one sample ("record"), or in all data of a
    node ("client")."""
    neighbours: Literal["replace-one", "zero-out"] = "replace-one"
    """Neighbouring relation: the protected unit is replaced by another one, or by one that
    contributes nothing."""
    horizon: Literal["round", "training"] = "round"
    """Whether epsilon is spent in each round, or is the total of the whole training."""
    view: Literal["local", "central"] = "local"
    """Observer against whom a node's epsilon holds: one who sees the node's own messages ("local"),
    or the server that sees only the weighted sum, by secure aggregation, and the noise of all nodes
    ("central"). "central" needs far less noise for the same epsilon. The record shows the spending
    in both views."""
    quorum: Share = 1.0
    """With view = "central": share of a round's selected nodes whose updates must arrive before the
    sum is opened. Each node adds enough noise for the guarantee to hold with this share alone; with
    fewer updates the round is discarded."""
    max_participations: Count | None = None
    """Largest number of rounds in which a node takes part in the training. With horizon =
    "training" the noise is calibrated to this number (default: the expected number, rounds *
    participation * (1 - dropping), rounded up). With horizon = "round" there is no limit by
    default."""
    placement: Choice = _choice("dp-sgd")
    """Where noise is added."""
    clipping_norm: Single = 1.0
    """Largest L2 norm after clipping; with adaptive clipping, the norm of the first round."""
    adaptive_clipping: AdaptiveClipping | None = None
    """Adapt the clipping norm from round to round to a quantile of the norms. Without this table it
    is constant."""
    noise_of: Literal["nodes", "sum"] = "nodes"
    """Whether noise is drawn for each node, or once per round for the sum of the updates, which has
    the same distribution and takes a fraction of the time."""
    secure_noise: bool = False
    """Draw noise from the operating system's random source, on a grid: suited for release, and not
    reproducible. Needs the extra "secure"."""
    check: Check | None = None
    """Flag nodes whose uploads carry more noise than they reported; from that round on their
    updates are not aggregated, and they are not paid. Without this table nothing is checked."""


class Training(Section):
    """The federated training in which the sold epsilon is spent."""

    enabled: bool = True
    """Whether nets are trained at all."""
    data: Choice = _choice("digits")
    """Data set of labelled images."""
    net: Choice = _choice("digits-cnn")
    """Neural network."""
    partition: Choice = _choice("dirichlet")
    """How samples are distributed over the nodes."""
    aggregation: Choice = _choice("uniform")
    """How the server weights the nodes' updates."""
    server: Choice = _choice("sgd")
    """How the server applies the averaged update; its learning rate can follow a schedule."""
    averaging: Choice = _choice("none")
    """Which rounds' nets are averaged for evaluation; averaging costs no privacy."""
    schedule: Literal["at-equilibrium", "every-round"] = "at-equilibrium"
    """"at-equilibrium": play the market first, then train all rounds with its final epsilon.
    "every-round": alternate rounds of the market and of training (the paper's fig. 3), including
    exits."""
    rounds: Count = 40
    """Number of communication rounds T."""
    local_epochs: Count = 1
    """Number of passes E over a node's own data per round."""
    batch_size: Count | None = None
    """Number of samples per local step. By default a step uses all of the node's samples."""
    participation: Share = 1.0
    """Probability with which a node is selected for a round of training."""
    dropping: Chance = 0.0
    """Probability with which a selected node fails before it sends its update."""
    straggling: Chance = 0.0
    """Probability with which an update arrives too late: its privacy is spent, but it is not
    used."""
    learning_rate: Single = 0.5
    """Learning rate of the local steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the local steps within a round."""
    compare: Annotated[tuple[str, ...], Field(strict=False)] = ("no-noise", "random")
    """Trainings to compare with the market's epsilon: "no-noise", or names of mechanisms."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Floating-point format of the layers' gradients: 32 bits, or 16 bits where the processor is
    faster with them."""
    engine: Literal["auto", "serial", "stacked"] = "auto"
    """Train nodes one after another ("serial", on processors), or whole groups of nodes at once on
    stacked parameters ("stacked"); the averages are the same up to rounding. "auto" chooses by the
    device."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where nets are trained: "cpu", "cuda", or "auto", which uses a CUDA device if there is one
    and the other settings allow it."""
    checkpoint_every: Count = 10
    """Number of rounds between checkpoints of a run that is written to a folder."""


class Value(Section):
    """How the server learns the value of epsilon from the training rounds that it pays for.

    With this table a scenario with ``training.schedule = "every-round"`` is a closed loop: after
    each round of training the server refits alpha and beta to the observed gain of the net, and
    prices the next round with them. See docs/closed_loop.md for the model.
    """

    frozen: bool = False
    """Measure only: alpha and beta of [game] stay in use, and nothing is explored, so that market
    and training are those of the scenario without this table."""
    measure: Literal["accuracy", "loss"] = "accuracy"
    """Gain of a round of training: the rise in test accuracy, or the fall in test loss."""
    price: Positive = 100.0
    """Value of one unit of gain to the server, in currency; with 100, one percentage point of
    accuracy has the value 1."""
    prior_alpha: Positive | None = None
    """Prior median of alpha, per unit of epsilon. By default game.alpha."""
    prior_beta: Positive | None = None
    """Prior mode of beta, in currency. By default game.beta. The prior is normal, truncated at
    zero."""
    prior_spread: Annotated[float, Field(gt=0, le=5)] = 1.0
    """Prior uncertainty of both: standard deviation of ln(alpha), and standard deviation of beta
    relative to its mode."""
    prior_depreciation: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Prior mean, and standard deviation, of the share of the accuracy gained so far that a round
    loses."""
    prior_noise: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Prior scale of the noise: standard deviation of a round's measured gain around its
    expectation. Half and twice this value are equally likely."""
    window: Annotated[int, Field(ge=0)] = 0
    """Number of past rounds that the fit uses; 0 uses all rounds."""
    explore: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Size of trial changes of the cap: round t's cap is multiplied or divided, with equal
    probability, by exp(explore / sqrt(t)). The server rule "bandit" explores by itself."""


class RecordSettings(Section):
    """What a record keeps."""

    traces: Annotated[str, Field(pattern=r"^(none|sample|all|last:[1-9][0-9]*)$")] = "sample"
    """Per-node values of each round that are kept: "none"; "sample", those of a sample of nodes;
    "all", those of all nodes, streamed to disk as float32; or "last:K", those of all nodes in the
    last K rounds."""
    sample_size: Count = 64
    """Number of nodes in the sample: half of them active in the closed form and half not, if there
    are enough of both, evenly spaced over the ranks of rho."""


class Axis(Section):
    """Values of one key of the scenario: a list, or a range."""

    values: Annotated[tuple[Any, ...], Field(strict=False)] | None = None
    """Values, as they would be written in the scenario. A list alone may replace this table."""
    low: Finite | None = None
    """Start of a range, inclusive."""
    high: Finite | None = None
    """End of a range, inclusive."""
    n: Count | None = None
    """Number of values in the range; for the modes "grid" and "zip"."""
    log: bool = False
    """Whether the values are evenly spaced on a logarithmic scale, not on a linear one."""

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            return {"values": tree}
        if not isinstance(tree, Mapping):
            raise ValueError("needs a list of values, or a table with low and high.")
        if tree and not tree.keys() & cls.model_fields.keys():
            raise ValueError('the path of an axis must be quoted: "game.alpha" = [1.0, 2.0].')
        return tree

    @model_validator(mode="after")
    def _require_list_or_range(self) -> Axis:
        ranged = [name for name in ("low", "high", "n") if getattr(self, name) is not None]
        if self.values is not None:
            if ranged or self.log:
                raise ValueError("takes either a list of values, or low and high.")
            if not self.values:
                raise ValueError("needs at least one value.")
        elif self.low is None or self.high is None:
            raise ValueError("needs a list of values, or low and high.")
        elif self.low >= self.high:
            raise ValueError(f"low must be below high, but low = {self.low:g}.")
        elif self.log and self.low <= 0:
            raise ValueError(f"low must be positive with log = true, but is {self.low:g}.")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Also allow a plain list."""
        return {"anyOf": [{"type": "array", "minItems": 1}, handler(core)]}


class SweepSettings(Section):
    """Many runs from one file: axes over keys of the scenario, with replications of each point."""

    mode: Literal["grid", "zip", "random", "latin-hypercube", "sobol"] = "grid"
    """How points are formed from the axes: "grid", every combination; "zip", the first values
    together, then the second values, and so on; "random" or "latin-hypercube", a plain or a
    stratified random sample; "sobol", the design from which Sobol indices (the share of variance
    that each axis explains) are estimated."""
    n_samples: Count | None = None
    """Number of points with mode "random" or "latin-hypercube". With "sobol" a power of two, n,
    which gives n (d + 2) points for d axes."""
    replications: Count = 1
    """Runs of each point, with different seeds, which are the same at all points; the first one
    uses the scenario's seed."""
    maximum: Annotated[int, Field(ge=1, le=MOST_RUNS)] = 10_000
    """Largest number of runs that is accepted; can be raised to 1,000,000."""
    keep: Literal["result", "record"] = "result"
    """What is kept of each run: its row of the results table, or also its full record."""
    timeout: Positive | None = None
    """Seconds after which a run is stopped and counted as failed. By default there is no limit."""
    axes: dict[str, Axis] = Field(default_factory=dict)
    """Maps the path of a key, such as "population.n_nodes", to its values."""

    @property
    def samples(self) -> bool:
        """Whether points are drawn at random."""
        return self.mode in ("random", "latin-hypercube", "sobol")

    @model_validator(mode="after")
    def _require_axes_for_mode(self) -> SweepSettings:
        if self.samples and not (self.axes and self.n_samples):
            raise ValueError(f"the mode {self.mode!r} needs n_samples and at least one axis.")
        if self.mode == "sobol":
            if len(self.axes) < 2:
                raise ValueError("the mode 'sobol' needs at least two axes.")
            n = self.n_samples or 0
            if n < 2 or n & (n - 1):
                raise ValueError(f"n_samples must be a power of two in the mode 'sobol', not {n}.")
        if not self.samples and self.n_samples:
            raise ValueError(f"n_samples has no effect in the mode {self.mode!r}.")
        for path, axis in self.axes.items():
            if self.samples and axis.n:
                raise ValueError(f"{path}: n has no effect in the mode {self.mode!r}.")
            if not self.samples and axis.values is None and not axis.n:
                raise ValueError(f"{path}: a range needs n in the mode {self.mode!r}.")
        return self


CellName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$", max_length=40)]
BenchMode = Literal["equal-cap", "equal-spending", "equal-epsilon"]


class BenchData(Section):
    """How data are distributed over the nodes, and whether costs depend on them."""

    partition: str | dict[str, Any] | None = None
    """Partition of the data, in place of [training.partition]."""
    coupling: NotNegative = 0.0
    """Strength of the dependence of costs on data: a node's drawn cost is multiplied by 1 +
    coupling d, where d is the total variation distance between its label shares and the overall
    ones; all costs are then divided by the mean of these factors. 0 keeps costs and data
    independent."""


class BenchTraining(Section):
    """The cells of the benchmark for which nets are trained."""

    costs: str
    """Name of an entry of [bench.costs]."""
    budget: Positive
    """One of bench.budgets, in currency per round."""
    data: str
    """Name of an entry of [bench.data]."""
    mode: BenchMode = "equal-spending"
    """One of bench.modes."""
    seeds: Count = 3
    """Number of populations to train with, from the first on; each has its own seed."""
    last: Count = 5
    """Number of final rounds over which accuracy is averaged."""


class BenchSettings(Section):
    """A benchmark of mechanisms over costs, budgets and data, under equal terms."""

    mechanisms: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Names of mechanisms. By default all registered ones, the scenario's own first."""
    modes: Annotated[tuple[BenchMode, ...], Field(strict=False, min_length=1)] = (
        "equal-cap",
        "equal-spending",
        "equal-epsilon",
    )
    """Terms of the comparison: all mechanisms with the same cap ("equal-cap"); each tuned so that
    the server spends the cap ("equal-spending"); or each tuned so that it buys the same mean
    epsilon as the scenario's own mechanism does under the cap ("equal-epsilon")."""
    tolerance: Annotated[float, Field(gt=0, le=0.1)] = 0.01
    """Largest relative deviation from the quantity that is to be equal."""
    replications: Count = 20
    """Number of populations drawn per cell, the same for all mechanisms and modes."""
    budgets: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    """Payment caps, in currency per round."""
    costs: dict[CellName, Any] = Field(default_factory=dict)
    """Distributions of costs by name, each in place of [population.rho]. By default that one
    alone."""
    data: dict[CellName, BenchData] = Field(default_factory=dict)
    """Distributions of data by name. By default [training.partition] alone, without coupling."""
    training: BenchTraining | None = None
    """Trainings of the benchmark. Without this table, or with training.enabled = false, no net is
    trained."""


class Scenario(Section):
    """One experiment: two equal scenarios give equal records."""

    title: str = ""
    """One line that describes the scenario."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED), BeforeValidator(_as_int)] = 0
    """Seed of all random numbers."""
    imports: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """Plug-ins that the scenario needs: Python files, such as "my_rules.py", relative to this file,
    or modules, such as "my_package.rules". They are imported only if the user allows it
    (--trust)."""
    population: Population = Population()
    game: Game = Game()
    mechanism: Choice = _choice("stackelberg")
    """Mechanism by which the server sets payments."""
    compared: dict[str, dict[str, Any]] | None = None
    """Options of the mechanisms in training.compare and "fcfn compare", by name: [compared.static]
    epsilon = 5.0. Options that are left out have their defaults. Those of the scenario's own
    mechanism belong in [mechanism]."""
    server: Choice = _choice("anticipate")
    """Rule by which the server learns its payment cap."""
    learning: Choice = _choice("best-response")
    """Rule by which nodes adapt their epsilon."""
    rounds: Rounds = Rounds()
    information: Information = Information()
    exit: Exit = Exit()
    events: Annotated[tuple[Event, ...], Field(strict=False)] | None = None
    """Changes of the game during the market (shocks)."""
    privacy: Privacy = Privacy()
    training: Training | None = None
    """Training of a net with the sold epsilon. Without this table no net is trained."""
    value: Value | None = None
    """Learning of alpha and beta from the training. Without this table those of [game] are used
    throughout."""
    record: RecordSettings = RecordSettings()
    sweep: SweepSettings | None = None
    """Makes the file a sweep of many runs, for "fcfn sweep"."""
    bench: BenchSettings | None = None
    """Makes the file a benchmark of mechanisms, for "fcfn bench"."""

    @property
    def cap(self) -> float | None:
        """Payment cap of every round, in currency; None if the server chooses it."""
        return None if self.chooses_cap else self.game.budget

    @property
    def keeps_account(self) -> bool:
        """Whether payments or sales over all rounds are limited."""
        limits = self.population.total_epsilon_by_group
        return self.game.total_budget is not None or bool(limits)

    @property
    def last_round(self) -> int:
        """Last round of the market; with such a limit, at most the rounds of the training."""
        training = self.training
        if training is None or not (self.trains and self.keeps_account):
            return self.rounds.maximum
        return min(self.rounds.maximum, training.rounds)

    @property
    def chooses_cap(self) -> bool:
        """Whether the server chooses the cap round by round (contests that work for any cap)."""
        return self.mechanism.kind in CONTESTS and self.server.kind != "fixed"

    @property
    def trains(self) -> bool:
        """Whether a net is trained."""
        return self.training is not None and self.training.enabled
