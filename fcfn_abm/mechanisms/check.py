"""Checks of a mechanism's claims on random games: deviations, and how much they gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fcfn_abm.errors import FcfnError, RunFailedError, abbreviate, as_count
from fcfn_abm.mechanisms.base import MECHANISMS, Contest, Contracts, Mechanism, Outcome, PricingGame
from fcfn_abm.mechanisms.claims import Choice, Claims, Party
from fcfn_abm.mechanisms.random_games import draw_game
from fcfn_abm.process.progress import progress_bar
from fcfn_abm.rng import require_seed, stream
from fcfn_abm.scenario.schema import LARGEST, SMALLEST

type Floats = npt.NDArray[np.float64]
type Verdict = Literal["holds", "fails", "not tested"]

MOST_GAMES, MOST_NODES = 1_000_000, 100

VALID = "valid outcomes"
BUDGET = "budget balance"
RATIONAL: dict[Party, str] = {
    "nodes": "individual rationality of nodes",
    "server": "individual rationality of the server",
    "agency": "individual rationality of the agency",
}
COMPATIBLE: dict[Choice, str] = {
    "cost": "incentive compatibility in cost",
    "epsilon": "incentive compatibility in epsilon",
    "contract": "incentive compatibility in contracts",
}
MONOTONE = "monotonicity in cost"
ANONYMOUS = "anonymity"
SCALE = "scale invariance"
COALITIONS = {size: f"coalitions of {size}" for size in (2, 5, 10)}
SPLIT = "split identities"
PROPERTIES = (
    VALID,
    BUDGET,
    *RATIONAL.values(),
    *COMPATIBLE.values(),
    MONOTONE,
    ANONYMOUS,
    SCALE,
    *COALITIONS.values(),
    SPLIT,
)
"""Properties that are measured, in the order of the tables; no mechanism can claim the last
ones."""

_STRICT = {VALID, BUDGET, *RATIONAL.values()}  # no optimization: rounding errors only
_MOST_DEVIATORS = 4  # nodes per game that try all deviations
_BESIDE = np.array([1.0 - 1e-9, 1.0, 1.0 + 1e-9])
_FACTORS = np.array(
    [
        *(0.01, 0.1, 0.25, 0.5, 2 / 3, 0.8, 0.9, 0.99, 0.999, 0.9999),
        *(1.0001, 1.001, 1.01, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0, 100.0),
    ]
)
_STEPS = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)  # factors for a coalition's reported costs
_STAYS_OUT = 1000.0  # times the highest cost


@dataclass(frozen=True)
class Violation:
    """Size of the violation of a property in a game."""

    size: float
    """Share of the payments (of epsilon, if that is compared); zero if the property holds."""
    says: str = ""
    """Description, in a sentence."""


@dataclass(frozen=True)
class Example:
    """A game in which a property fails."""

    rho: tuple[float, ...]
    """Unit privacy costs, in currency per unit of epsilon."""
    budget: float
    """Payment cap, in currency."""
    alpha: float
    """Model-value parameter of the server, per unit of epsilon."""
    beta: float
    """Model-value parameter of the server, in currency."""
    average_over: str
    """Nodes over which the mean epsilon is averaged."""
    size: float
    """Size of the violation (:class:`Violation`)."""
    says: str
    """Description, in a sentence; nodes are counted from 0."""


@dataclass(frozen=True)
class PropertyCheck:
    """Result of random games for one property."""

    name: str
    """One of :data:`PROPERTIES`."""
    claimed: bool
    """Whether the mechanism claims it."""
    n_games: int
    """Number of games in which it was measured."""
    n_violated: int
    """Number of these games in which it fails."""
    size: float
    """The largest violation (:class:`Violation`)."""
    tolerance: float
    """Largest violation with which it counts as holding."""
    example: Example | None
    """Smallest game found in which it fails; simplified if the property is claimed."""

    @property
    def verdict(self) -> Verdict:
        """Whether it holds in all games in which it was measured."""
        if self.n_games == 0:
            return "not tested"
        return "fails" if self.n_violated else "holds"


@dataclass(frozen=True)
class MechanismCheck:
    """Result of random games for a mechanism and its claims."""

    mechanism: str
    """Registered name."""
    options: dict[str, Any]
    """Options that differ from the defaults."""
    claims: Claims
    """Its claims with these options."""
    n_games: int
    """Number of games drawn."""
    seed: int
    """Seed of the games."""
    properties: tuple[PropertyCheck, ...]
    """One per property that is claimed or was measured."""

    @property
    def holds(self) -> bool:
        """Whether every claim was tested and holds."""
        return all(one.verdict == "holds" for one in self.properties if one.claimed)

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; infinite numbers become None."""
        rows = []
        for one in self.properties:
            row = {**asdict(one), "verdict": one.verdict}
            for each in (row, row["example"] or {}):
                if math.isinf(each.get("size", 0.0)):
                    each["size"] = None
            rows.append(row)
        claims = self.claims.facts()
        return {**asdict(self), "claims": claims, "properties": rows, "holds": self.holds}


def check_mechanism(
    mechanism: str,
    games: int = 1000,
    seed: int = 0,
    *,
    n_nodes: int | None = None,
    progress: bool = False,
    **options: Any,
) -> MechanismCheck:
    """Check the claims of a mechanism on random games.

    Parameters
    ----------
    mechanism : str
        A registered name.
    games : int, default 1000
        Number of games (:func:`~fcfn_abm.mechanisms.random_games.draw_game`).
    seed : int, default 0
        Seed of the games; the k-th game of a seed is always the same.
    n_nodes : int, optional
        Number of nodes in every game, for a mechanism whose options fix it. By default 1 to 12.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    **options
        Options of the mechanism.

    Returns
    -------
    MechanismCheck
        One row per property: whether it is claimed, whether it holds, the largest violation, and
        the smallest game found in which it fails. ``holds`` summarizes the claims.

    Raises
    ------
    UnknownNameError, OptionError
        If there is no such mechanism, or it does not have an option.
    InvalidGameError
        If a number is outside its range.
    RunFailedError
        If the mechanism raises an error that is not one of this package.

    Notes
    -----
    In each game up to four nodes report costs on a grid around their own, and at and next to every
    node's cost. A mechanism that asks for epsilon is treated as one that asks for costs and
    computes epsilon for the nodes. Epsilon is varied if payments are shared by epsilon, with the
    others' epsilon fixed; contracts are exchanged if they have payments of their own. Coalitions
    report costs together, and a node appears as two nodes with its cost: these gains are measured,
    but no mechanism claims that there are none. The results are lower bounds of the possible gains.

    Every game must have a valid outcome: a mechanism that refuses a game fails. A false report that
    it refuses is not available to a node. The mechanism's own random draws are the same before and
    after a false report.

    Examples
    --------
    >>> found = check_mechanism("stackelberg", games=20)
    >>> found.holds
    True
    >>> [one.verdict for one in found.properties if one.name == "incentive compatibility in cost"]
    ['fails']
    """
    games, seed = as_count("games", games, most=MOST_GAMES), require_seed(seed)
    if n_nodes is not None:
        n_nodes = as_count("n_nodes", n_nodes, most=MOST_NODES)
    tested = MECHANISMS.create(mechanism, options)
    tallies = {name: _Tally(name, tested.claims) for name in PROPERTIES}
    with progress_bar(total=games, desc="checking", unit="game", shown=progress) as bar:
        for index in range(games):
            rng = stream(seed, "checked-game", index)
            game, chance = draw_game(rng, n_nodes), int(rng.integers(2**63))
            for name, violation in _measure(mechanism, tested, game, chance).items():
                tallies[name].add(game, chance, violation)
            bar.update()
    for tally in tallies.values():
        if tally.claimed:
            tally.simplify(mechanism, tested)
    return MechanismCheck(
        mechanism=mechanism,
        options=options,
        claims=tested.claims,
        n_games=games,
        seed=seed,
        properties=tuple(t.result() for t in tallies.values() if t.claimed or t.n_games),
    )


def measure_game(mechanism: Mechanism, game: PricingGame, seed: int = 0) -> dict[str, Violation]:
    """Measure the violation of each property in one game.

    Parameters
    ----------
    mechanism : Mechanism
        With its options.
    game : PricingGame
        With costs and a payment cap.
    seed : int, default 0
        Seed of the mechanism's own draws, and of the choice of deviating nodes, if not all deviate.

    Returns
    -------
    dict
        Maps those of :data:`PROPERTIES` that can be measured to a :class:`Violation`.
    """
    return _Trial(mechanism, game, seed).measure()


def _measure(name: str, mechanism: Mechanism, game: PricingGame, seed: int) -> dict[str, Violation]:
    """Do the same; a refused game has no valid outcome, and other errors report their game."""
    try:
        return measure_game(mechanism, game, seed)
    except FcfnError as error:
        return {VALID: Violation(math.inf, f"The mechanism refuses the game: {error}")}
    except MemoryError:
        raise
    except Exception as error:
        raise RunFailedError(
            f"The mechanism {name!r} raises {type(error).__name__} in the game rho = "
            f"{_format_list(game.rho)}, budget = {game.cap:g}, alpha = {game.alpha:g}, beta = "
            f"{game.beta:g}, or after a false report in it: {abbreviate(str(error))}"
        ) from error


def _list_claimed(claims: Claims) -> set[str]:
    """Return the claimed properties; valid outcomes are required of every mechanism."""
    claimed = {
        BUDGET: claims.budget_balanced,
        MONOTONE: claims.monotone,
        ANONYMOUS: claims.anonymous,
        SCALE: claims.scale_invariant,
    }
    return {
        VALID,
        *(name for name, is_claimed in claimed.items() if is_claimed),
        *(RATIONAL[party] for party in claims.individually_rational),
        *(COMPATIBLE[choice] for choice in claims.incentive_compatible),
    }


class _Tally:
    """Counts the games in which a property fails, and keeps the smallest of them."""

    def __init__(self, name: str, claims: Claims) -> None:
        self.name = name
        self.claimed = name in _list_claimed(claims)
        self.tolerance = claims.tolerance * (1e-3 if name in _STRICT else 1.0)
        self.n_games = self.n_violated = 0
        self.size = 0.0
        self.worst: tuple[PricingGame, int, Violation] | None = None

    def add(self, game: PricingGame, seed: int, found: Violation) -> None:
        self.n_games += 1
        self.size = max(self.size, found.size)
        if found.size <= self.tolerance:
            return
        self.n_violated += 1
        if self.worst is None or _rank(game, found) < _rank(self.worst[0], self.worst[2]):
            self.worst = game, seed, found

    def simplify(self, name: str, mechanism: Mechanism) -> None:
        """Replace the worst game by simpler ones, as long as the property fails in them."""
        while self.worst is not None:
            game, seed, _ = self.worst
            for simpler in _simpler_games(game):
                try:
                    found = _measure(name, mechanism, simpler, seed).get(self.name)
                except RunFailedError:
                    continue
                if found is not None and found.size > self.tolerance:
                    self.worst = simpler, seed, found
                    break
            else:
                return

    def result(self) -> PropertyCheck:
        example = None
        if self.worst is not None:
            game, _, found = self.worst
            example = Example(
                rho=tuple(game.rho.tolist()),
                budget=float(game.cap),
                alpha=game.alpha,
                beta=game.beta,
                average_over=game.average_over,
                size=found.size,
                says=found.says,
            )
        return PropertyCheck(
            name=self.name,
            claimed=self.claimed,
            n_games=self.n_games,
            n_violated=self.n_violated,
            size=self.size,
            tolerance=self.tolerance,
            example=example,
        )


def _rank(game: PricingGame, found: Violation) -> tuple[int, float]:
    return game.rho.size, -found.size


def _simpler_games(game: PricingGame) -> Iterator[PricingGame]:
    """Yield games with one node less, then games with rounder numbers."""
    for node in range(game.rho.size if game.rho.size > 1 else 0):
        yield replace(game, rho=np.delete(game.rho, node))
    for digits in (1, 2, 3):
        rho = np.array([_round(cost, digits) for cost in game.rho])
        if (rho != game.rho).any() and all(_round(c, digits - 1) != c for c in game.rho):
            yield replace(game, rho=rho)
        for field in ("budget", "beta", "alpha"):
            value = getattr(game, field)
            if value != _round(value, digits) and value != _round(value, digits - 1):
                rounded: Any = {field: _round(value, digits)}
                yield replace(game, **rounded)


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}") if digits else math.nan


class _Trial:
    """One game: the mechanism's outcome, and the consequences of false reports."""

    def __init__(self, mechanism: Mechanism, game: PricingGame, seed: int) -> None:
        self.mechanism, self.game, self.seed = mechanism, game, seed
        self.truth = self._outcome(game)
        self.utility = self._utilities(self.truth)
        self.found: dict[str, Violation] = {}
        self.rng = np.random.default_rng([seed, game.rho.size])
        n = game.rho.size
        self.deviators = (
            np.arange(n)
            if n <= _MOST_DEVIATORS
            else np.sort(self.rng.choice(n, _MOST_DEVIATORS, replace=False))
        )

    def measure(self) -> dict[str, Violation]:
        self._check_outcome()
        if self.found[VALID].size:
            return self.found
        self._report_costs()
        self._change_epsilon()
        self._exchange_contracts()
        self._reorder()
        self._rescale()
        self._collude()
        self._split()
        return self.found

    def _outcome(self, game: PricingGame) -> Outcome:
        return self.mechanism.outcome(game, np.random.default_rng(self.seed))

    def _play(self, reports: Floats, rho: Floats | None = None) -> Outcome | None:
        """Return the outcome after reports of costs; None if the mechanism refuses them."""
        reports = np.clip(reports, SMALLEST, LARGEST)
        if self.mechanism.reports == "cost":
            rho = self.game.rho if rho is None else rho
            game = replace(self.game, rho=rho, reported_cost=reports)
        else:
            game = replace(self.game, rho=reports)
        try:
            return self._outcome(game)
        except FcfnError:
            return None

    def _utilities(self, outcome: Outcome) -> Floats:
        """Return the nodes' utilities at their true costs."""
        return outcome.payment - self.game.rho * outcome.epsilon

    def _payments(self, *outcomes: Outcome) -> float:
        """Return the scale of violations: the larger of total payment and total cost."""
        return max(
            max(float(np.abs(one.payment).sum()), float(self.game.rho @ one.epsilon[: self.n]))
            for one in (self.truth, *outcomes)
        )

    @property
    def n(self) -> int:
        return self.game.rho.size

    def _add(self, name: str, excess: float, scale: float, say: Callable[[], str]) -> None:
        """Keep a violation if it is the largest; ``excess`` is zero or negative without one."""
        if excess <= 0:
            size = 0.0
        else:  # also NaN
            size = excess / scale if 0 < scale < math.inf else math.inf
            size = math.inf if math.isnan(size) else size
        if name not in self.found or size > self.found[name].size:
            self.found[name] = Violation(size, say() if size else "")

    def _check_outcome(self) -> None:
        one, game = self.truth, self.game
        numbers = np.concatenate([one.epsilon, one.payment, [one.server_payment]])
        valid = (
            one.epsilon.shape == one.payment.shape == game.rho.shape
            and bool(np.isfinite(numbers).all())
            and bool((one.epsilon >= 0).all())
        )
        self._add(
            VALID,
            0.0 if valid else math.inf,
            1.0,
            lambda: (
                f"Epsilon is {_format_list(one.epsilon)}, payments are {_format_list(one.payment)}."
            ),
        )
        if not valid:
            return
        self._add(
            BUDGET,
            one.server_payment - game.cap,
            max(one.server_payment, game.cap),
            lambda: f"The server pays {one.server_payment:.6g}; the cap is {game.cap:.6g}.",
        )
        worst = int(np.argmin(self.utility))
        self._add(
            RATIONAL["nodes"],
            -float(self.utility[worst]),
            self._payments(),
            lambda: (
                f"Node {worst} is paid {one.payment[worst]:.6g} for an epsilon of "
                f"{one.epsilon[worst]:.6g}, which costs it "
                f"{game.rho[worst] * one.epsilon[worst]:.6g}."
            ),
        )
        value = one.server_utility + one.server_payment
        self._add(
            RATIONAL["server"],
            -one.server_utility,
            max(one.server_payment, value),
            lambda: f"The server pays {one.server_payment:.6g} for a value of {value:.6g}.",
        )
        if one.agency_utility or "agency" in self.mechanism.claims.individually_rational:
            self._add(
                RATIONAL["agency"],
                -one.agency_utility,
                max(one.server_payment, self._payments()),
                lambda: (
                    f"The agency gets {one.server_payment:.6g} and pays "
                    f"{one.payment.sum():.6g} to the nodes."
                ),
            )

    def _report_costs(self) -> None:
        """Let each deviator report costs on a grid and next to every node's; measure gains."""
        rho = self.game.rho
        for node in self.deviators:
            beside = np.multiply.outer(rho, _BESIDE).ravel()
            reports = np.unique(np.concatenate([rho[node] * _FACTORS, beside]))
            sold: list[tuple[float, float]] = []  # report and epsilon
            for report in reports:
                changed = rho.copy()
                changed[node] = report
                outcome = self.truth if report == rho[node] else self._play(changed)
                if outcome is None:
                    continue
                sold.append((float(report), float(outcome.epsilon[node])))
                after = float(self._utilities(outcome)[node])
                self._gain(
                    COMPATIBLE["cost"], [node], f"reports a cost of {report:.6g}", after, outcome
                )
            self._check_monotone(node, sold)

    def _check_monotone(self, node: int, sold: list[tuple[float, float]]) -> None:
        largest = max(float(self.truth.epsilon.max()), *(epsilon for _, epsilon in sold))
        low_cost, least = sold[0]
        for cost, epsilon in sold:
            self._add(
                MONOTONE,
                epsilon - least,
                largest,
                lambda at=(low_cost, least, cost, epsilon): (  # type: ignore[misc]
                    f"Node {node} sells an epsilon of {at[1]:.6g} at a cost of {at[0]:.6g}, and of "
                    f"{at[3]:.6g} at a cost of {at[2]:.6g}."
                ),
            )
            if epsilon < least:
                low_cost, least = cost, epsilon

    def _gain(
        self, name: str, nodes: list[int], does: str, after: float, *outcomes: Outcome
    ) -> None:
        """Compare what nodes have together with what they have when truthful."""
        before = float(self.utility[nodes].sum())
        who = "Node" if len(nodes) == 1 else "Nodes"
        self._add(
            name,
            after - before,
            self._payments(*outcomes),
            lambda: (
                f"{who} {', '.join(map(str, nodes))} {does}: "
                f"{'utility' if len(nodes) == 1 else 'utilities together'} {after:.6g} in place of "
                f"{before:.6g}."
            ),
        )

    def _offer(self) -> Contest | Contracts:
        return self.mechanism.offer(self.game, np.random.default_rng(self.seed))

    def _change_epsilon(self) -> None:
        """Let each deviator sell another epsilon, if the payments are shared by epsilon."""
        if self.mechanism.reports != "epsilon" or self.n < 2:  # a single node has no competition
            return
        offer = self._offer()
        if isinstance(offer, Contracts) and offer.fee is not None:
            return
        given = offer.pool if isinstance(offer, Contest) else None
        pool = self.game.cap if given is None else given
        epsilon, rho = self.truth.epsilon, self.game.rho
        for node in self.deviators:
            others = float(epsilon.sum() - epsilon[node])
            amounts = np.array([epsilon[node], others, pool / rho[node]])
            tried = np.unique(np.multiply.outer(amounts, [0.0, *_FACTORS, 1.0]))
            for amount in tried[np.isfinite(tried)]:
                changed = epsilon.copy()
                changed[node] = amount
                paid = float(offer.payment(changed, pool)[node])
                after = paid - float(rho[node] * amount)
                does = f"sells an epsilon of {amount:.6g} in place of {epsilon[node]:.6g}"
                self._gain(COMPATIBLE["epsilon"], [node], does, after)

    def _exchange_contracts(self) -> None:
        """Let each node take every other node's contract, if contracts have payments."""
        if self.mechanism.reports != "epsilon":
            return
        offer = self._offer()
        if not isinstance(offer, Contracts) or offer.fee is None or not offer.epsilon.any():
            return
        fee = np.where(offer.epsilon > 0, offer.fee, 0.0)
        utility = fee - np.multiply.outer(self.game.rho, offer.epsilon)
        for node, contract in enumerate(np.argmax(utility, axis=1)):
            does = (
                f"takes the contract of node {contract} (epsilon {offer.epsilon[contract]:.6g}, "
                f"payment {fee[contract]:.6g})"
            )
            self._gain(COMPATIBLE["contract"], [node], does, float(utility[node, contract]))

    def _reorder(self) -> None:
        """Permute the nodes: except for equal costs, no epsilon or payment may change."""
        for order in (np.arange(self.n)[::-1], self.rng.permutation(self.n)):
            self._compare_reordered(order)

    def _compare_reordered(self, order: npt.NDArray[np.intp]) -> None:
        other = self._outcome(replace(self.game, rho=self.game.rho[order]))
        back = np.argsort(order)
        epsilon, payment = other.epsilon[back], other.payment[back]
        words = f"In the order {', '.join(map(str, order))}, node"
        self._compare(
            ANONYMOUS,
            self.utility,
            payment - self.game.rho * epsilon,
            self._payments(other),
            lambda node, before, after: (
                f"{words} {node} has a utility of {after:.6g} in place of {before:.6g}."
            ),
        )
        one = self.truth
        mine = np.lexsort((one.payment, one.epsilon, self.game.rho))
        theirs = np.lexsort((payment, epsilon, self.game.rho))
        for what, before, after, scale in (
            ("sells an epsilon of", one.epsilon, epsilon, float(one.epsilon.max(initial=0.0))),
            ("is paid", one.payment, payment, self._payments(other)),
        ):
            self._compare(
                ANONYMOUS,
                before[mine],
                after[theirs],
                scale,
                lambda place, before, after, what=what: (  # type: ignore[misc]
                    f"{words} {mine[place]} {what} {after:.6g} in place of {before:.6g}."
                ),
            )

    def _rescale(self) -> None:
        """Change the currency unit, by a power of two so that nothing is rounded."""
        for unit in (1 / 128, 128.0):
            self._compare_rescaled(unit)

    def _compare_rescaled(self, unit: float) -> None:
        game = self.game
        budget = None if game.budget is None else game.budget * unit
        other = self._outcome(
            replace(game, rho=game.rho * unit, beta=game.beta * unit, budget=budget)
        )
        one = self.truth
        for what, before, after, scale in (
            ("sells an epsilon of", one.epsilon, other.epsilon, float(one.epsilon.max(initial=0))),
            ("is paid", one.payment, other.payment / unit, self._payments()),
        ):
            self._compare(
                SCALE,
                before,
                after,
                scale,
                lambda node, before, after, what=what: (  # type: ignore[misc]
                    f"With costs, cap and beta multiplied by {unit:g}, node {node} {what} "
                    f"{after:.6g} in place of {before:.6g} (in the old unit)."
                ),
            )

    def _compare(
        self,
        name: str,
        before: Floats,
        after: Floats,
        scale: float,
        say: Callable[[int, float, float], str],
    ) -> None:
        difference = np.abs(after - before)
        place = int(np.argmax(difference))
        self._add(
            name,
            float(difference[place]),
            scale,
            lambda: say(place, float(before[place]), float(after[place])),
        )

    def _collude(self) -> None:
        """Let coalitions report costs together, and add their utilities."""
        rho = self.game.rho
        for size, name in COALITIONS.items():
            if size > self.n:
                continue
            members = np.sort(self.rng.choice(self.n, size, replace=False))
            inside = np.isin(np.arange(self.n), members)
            cheapest = members[np.argmin(rho[members])]
            plays = {f"report {step:g} times their costs": rho * step for step in _STEPS}
            plays["all report the highest cost of the game"] = np.full(self.n, rho.max())
            plays["stay out, all but the cheapest"] = np.where(
                np.arange(self.n) == cheapest, rho, _STAYS_OUT * rho.max()
            )
            for does, reports in plays.items():
                outcome = self._play(np.where(inside, reports, rho))
                if outcome is not None:
                    after = float(self._utilities(outcome)[members].sum())
                    self._gain(name, members.tolist(), does, after, outcome)

    def _split(self) -> None:
        """Let a node appear as two, and add their utilities at its cost."""
        rho = self.game.rho
        for node in self.deviators:
            twice = np.append(rho, rho[node])
            for factor in (1.0, 0.5, 2.0):
                reports = twice.copy()
                reports[[node, -1]] *= factor
                outcome = self._play(reports, twice)
                if outcome is None:
                    continue
                both = [node, self.n]
                utility = outcome.payment[both] - rho[node] * outcome.epsilon[both]
                does = f"appears as two, and both report a cost of {reports[node]:.6g}"
                self._gain(SPLIT, [node], does, float(utility.sum()), outcome)


def _format_list(values: npt.ArrayLike) -> str:
    return f"({', '.join(f'{value:.6g}' for value in np.asarray(values).ravel())})"
