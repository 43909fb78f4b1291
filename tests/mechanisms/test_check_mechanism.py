"""The check finds what is planted, passes what is right, and covers every registered mechanism."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.errors import InvalidGameError, RunFailedError, UnknownNameError
from fcfn_abm.mechanisms import MECHANISMS, Claims, Contracts, Mechanism, PricingGame
from fcfn_abm.mechanisms.base import settle
from fcfn_abm.mechanisms.check import PROPERTIES, measure_game
from fcfn_abm.mechanisms.random_games import SIZES, draw_game
from fcfn_abm.registry import OptionError
from fcfn_abm.report.claims import check_text, claims_table
from fcfn_abm.rng import stream

EVERYTHING = Claims(
    budget_balanced=True,
    individually_rational=("nodes",),
    incentive_compatible=("cost",),
    monotone=True,
    anonymous=True,
    scale_invariant=True,
)
NEEDS = {  # options of mechanisms that cannot do without
    "myerson-cap": {"distribution": {"kind": "lognormal", "median": 1.0, "sigma": 1.0}}
}
FEW = 15


class Auction(Mechanism):
    """Buys what `buy` says, from reported costs."""

    reports: ClassVar[Literal["epsilon", "cost"]] = "cost"
    claims: ClassVar[Claims] = EVERYTHING

    def buy(self, bids, budget):
        raise NotImplementedError

    def outcome(self, game, rng):  # noqa: ARG002
        return settle("auction", game, *self.buy(game.bids, game.cap))

    def offer(self, game, rng):  # noqa: ARG002
        return Contracts(*self.buy(game.bids, game.cap))


class SecondPrice(Auction):
    """One unit from the cheapest, at the next report or the cap: truthful."""

    def buy(self, bids, budget):
        epsilon, payment = np.zeros_like(bids), np.zeros_like(bids)
        first = int(np.argmin(bids))
        if bids[first] <= budget:
            epsilon[first] = 1.0
            payment[first] = self.price(bids[first], np.delete(bids, first), budget)
        return epsilon, payment

    def price(self, bid, others, budget):  # noqa: ARG002
        return min(budget, others.min(initial=np.inf))


class PayAsBid(SecondPrice):
    """The same, and the winner is paid what it reports."""

    def price(self, bid, others, budget):  # noqa: ARG002
        return bid


class Query(Auction):
    """The auction of Ghosh and Roth: the k cheapest sell 1 / (n - k) each."""

    next_bid = True  # paid by the report of the first node that does not sell

    def buy(self, bids, budget):
        n = bids.size
        epsilon, payment = np.zeros_like(bids), np.zeros_like(bids)
        order = np.argsort(bids, kind="stable")
        ranked = bids[order]
        k = max((j for j in range(1, n) if ranked[j - 1] / (n - j) <= budget / j), default=0)
        if k:
            epsilon[order[:k]] = 1.0 / (n - k)
            bid = ranked[k] if self.next_bid else ranked[k - 1]
            payment[order[:k]] = min(budget / k, bid / (n - k))
        return epsilon, payment


class QueryByOwnBid(Query):
    """A planted fault: payments depend on the report of a node that sells."""

    next_bid = False


class PaysEveryWinner(Auction):
    """A planted fault: nodes that tie are all paid, with what one of them may cost."""

    def buy(self, bids, budget):
        wins = (bids == bids.min()) & (bids <= budget)
        return wins.astype(float), np.where(wins, budget, 0.0)


class Underpays(SecondPrice):
    """Pays less than it costs to whoever wins."""

    def price(self, bid, others, budget):  # noqa: ARG002
        return 0.5 * bid


class FavoursTheFirst(SecondPrice):
    """The first node sells, whatever it costs."""

    def buy(self, bids, budget):
        epsilon, payment = np.zeros_like(bids), np.zeros_like(bids)
        epsilon[0], payment[0] = budget / bids[0], budget
        return epsilon, payment


class KnowsTheCurrency(Auction):
    """A fee of one unit of currency, whatever that is."""

    def buy(self, bids, budget):  # noqa: ARG002
        return np.full_like(bids, 0.0), np.full_like(bids, 1.0)


class BuysTheDearest(Auction):
    """One unit from the node of the highest cost."""

    def buy(self, bids, budget):
        epsilon, payment = np.zeros_like(bids), np.zeros_like(bids)
        last = int(np.argmax(bids))
        epsilon[last], payment[last] = 1.0, budget
        return epsilon, payment


class NotANumber(SecondPrice):
    """Breaks down without an error."""

    def outcome(self, game, rng):
        right = super().outcome(game, rng)
        return replace(right, payment=right.payment * np.nan) if game.rho.size > 2 else right


class DividesByZero(Auction):
    """Breaks down with one."""

    def buy(self, bids, budget):
        return bids, budget * (1 // 0)


class Refuses(Auction):
    """Takes three nodes and no other number."""

    def buy(self, bids, budget):  # noqa: ARG002
        if bids.size != 3:
            raise InvalidGameError(f"three nodes are needed, but there are {bids.size}.")
        return np.zeros_like(bids), np.zeros_like(bids)


class Untested(Mechanism):
    """Claims something of contracts, and has none."""

    claims: ClassVar[Claims] = Claims(incentive_compatible=("contract",))

    def outcome(self, game, rng):  # noqa: ARG002
        return settle("untested", game, np.zeros_like(game.rho), np.zeros_like(game.rho))

    def offer(self, game, rng):  # noqa: ARG002
        return Contracts(np.zeros_like(game.rho))


@pytest.fixture
def plug_in():
    """Register mechanisms as a user's file does, and take them out again."""
    before = dict(MECHANISMS._entries)

    def register(mechanism):
        class PlugIn(mechanism):
            pass

        return MECHANISMS.register("plug-in")(PlugIn)

    yield register
    MECHANISMS._entries.clear()
    MECHANISMS._entries.update(before)


def row(found, name):
    return next(one for one in found.properties if one.name == name)


def failing(found):
    return {one.name for one in found.properties if one.claimed and one.verdict != "holds"}


@pytest.mark.parametrize("name", list(MECHANISMS))
def test_every_registered_mechanism_keeps_its_claims(name):
    found = fa.check_mechanism(name, FEW, **NEEDS.get(name, {}))
    assert failing(found) == set(), check_text(found.facts()).plain


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ic-mle", {"constraint": "printed"}),
        ("yang", {"agency_knows_cap": True}),
        ("random", {"low": 2.0, "high": 3.0}),
        ("static", {"epsilon": 0.1}),
    ],
)
def test_claims_hold_with_other_options(name, options):
    found = fa.check_mechanism(name, FEW, seed=1, **options)
    assert failing(found) == set(), check_text(found.facts()).plain


def test_claims_of_what_does_not_exist_are_refused():
    with pytest.raises(
        ValueError, match="may contain only nodes, server, agency, but contains 'node'"
    ):
        Claims(individually_rational=("node",))
    with pytest.raises(ValueError, match="must be a list of names, but is 'cost'"):
        Claims(incentive_compatible=("cost"))  # a text, and no tuple


def test_claims_depend_on_options():
    def claims(name, **options):
        return MECHANISMS.create(name, options).claims

    assert claims("ic-mle").incentive_compatible == ("contract",)
    assert claims("ic-mle", constraint="printed").incentive_compatible == ()
    assert claims("yang").individually_rational == ("nodes", "server", "agency")
    assert claims("yang", variant="printed") == Claims()
    assert claims("yang", variant="printed", payment="shared-cap").budget_balanced


def test_the_equations_of_yang_as_printed_know_no_cap():
    game = PricingGame(np.array([0.001, 0.001]), alpha=10.0, beta=10.0, budget=1.0)

    def over_the_cap(payment):
        options = {"variant": "printed", "payment": payment}
        return measure_game(MECHANISMS.create("yang", options), game)["budget balance"].size

    assert over_the_cap("purchase") > 0.5
    assert over_the_cap("shared-cap") <= 1e-15


@pytest.mark.parametrize("right", [SecondPrice, Query])
def test_a_truthful_auction_passes(right, plug_in):
    plug_in(right)
    found = fa.check_mechanism("plug-in", 200)
    assert failing(found) == set(), check_text(found.facts()).plain
    assert all(one.n_games for one in found.properties)


@pytest.mark.parametrize(
    ("wrong", "fails"),
    [
        (PayAsBid, {"incentive compatibility in cost"}),
        (QueryByOwnBid, {"incentive compatibility in cost"}),
        (PaysEveryWinner, {"budget balance", "incentive compatibility in cost"}),
        (
            Underpays,
            {"individual rationality of nodes", "incentive compatibility in cost"},
        ),
        (FavoursTheFirst, {"anonymity", "incentive compatibility in cost"}),
        (KnowsTheCurrency, {"budget balance", "scale invariance"}),
        (
            BuysTheDearest,
            {
                "individual rationality of nodes",
                "incentive compatibility in cost",
                "monotonicity in cost",
            },
        ),
    ],
)
def test_what_is_planted_is_found_with_an_example(wrong, fails, plug_in):
    plug_in(wrong)
    found = fa.check_mechanism("plug-in", 100)
    assert fails <= failing(found)
    text = check_text(found.facts()).plain
    for name in fails:
        sentence = f"{name[0].upper()}{name[1:]} is claimed, but fails. Smallest counterexample:"
        assert sentence in text
        example = row(found, name).example
        assert example.size > row(found, name).tolerance
        assert len(example.rho) <= 3
        game = PricingGame(
            np.array(example.rho),
            example.alpha,
            example.beta,
            example.budget,
            example.average_over,
        )
        again = measure_game(wrong(), game)[name]
        assert again.size == pytest.approx(example.size, rel=1e-9)


def test_the_example_of_a_pay_as_bid_auction_is_right(plug_in):
    plug_in(PayAsBid)
    found = fa.check_mechanism("plug-in", 100)
    assert failing(found) == {"incentive compatibility in cost"}
    example = row(found, "incentive compatibility in cost").example
    assert len(example.rho) == 1  # alone, it may ask for up to the cap
    says = r"Node 0 reports a cost of (\S+): utility (\S+) in place of 0\."
    report, after = map(float, re.fullmatch(says, example.says).groups())
    assert example.rho[0] < report <= example.budget
    assert after == pytest.approx(report - example.rho[0], rel=1e-4)


def test_the_example_of_a_cap_exceeded_in_ties_is_a_tie_of_two(plug_in):
    plug_in(PaysEveryWinner)
    example = row(fa.check_mechanism("plug-in", 100), "budget balance").example
    assert len(example.rho) == 2
    assert example.rho[0] == example.rho[1]
    assert example.says == (
        f"The server pays {2 * example.budget:.6g}; the cap is {example.budget:.6g}."
    )


def test_a_game_of_three_shows_what_a_false_cost_gains_in_the_contest():
    game = PricingGame(np.ones(3), alpha=1.0, beta=10.0, budget=1.0)
    found = measure_game(MECHANISMS.create("stackelberg"), game)
    gain = found["incentive compatibility in cost"]
    assert gain.size == pytest.approx(1 / 8 - 1 / 9, rel=1e-12)  # of the one unit that is paid
    assert gain.says == ("Node 0 reports a cost of 0.666667: utility 0.125 in place of 0.111111.")
    assert found["incentive compatibility in epsilon"].size <= 1e-15


def test_a_coalition_of_two_that_leaves_the_contest_to_one_gains_what_the_closed_form_says():
    # costs 1, 1, 1: alone against one rival a node has 1/4, against two 1/9
    game = PricingGame(np.ones(3), alpha=1.0, beta=10.0, budget=1.0)
    found = measure_game(MECHANISMS.create("stackelberg"), game)["coalitions of 2"]
    assert found.size == pytest.approx(1 / 4 - 2 / 9, rel=1e-12)
    assert "stay out, all but the cheapest" in found.says


def test_a_node_that_appears_as_two_gains_what_the_closed_form_says():
    # of n equal nodes each has 1 / n^2: as two of four it has 2 / 16 in place of 1 / 9
    game = PricingGame(np.ones(3), alpha=1.0, beta=10.0, budget=1.0)
    found = measure_game(MECHANISMS.create("stackelberg"), game)["split identities"]
    assert found.size == pytest.approx(1 / 8 - 1 / 9, rel=1e-12)
    assert found.says == (
        "Node 0 appears as two, and both report a cost of 1: utility 0.125 in place of 0.111111."
    )


def test_a_contest_off_its_equilibrium_is_found():
    class Off(MECHANISMS["stackelberg"]):
        def outcome(self, game, rng):
            right = super().outcome(game, rng)
            epsilon = right.epsilon * 1.01
            return settle("off", game, epsilon, right.payment)

    game = PricingGame(np.array([1.0, 1.2, 1.3]), alpha=1.0, beta=10.0, budget=1.0)
    assert measure_game(Off(), game)["incentive compatibility in epsilon"].size > 1e-6


def test_contracts_that_nodes_would_exchange_are_found():
    game = PricingGame(np.array([1.0, 2.0]), alpha=1.0, beta=10.0, budget=6.0)
    menu = MECHANISMS.create("ic-mle", {"constraint": "printed"})
    found = measure_game(menu, game)["incentive compatibility in contracts"]
    # epsilon 3 and 1.5, both for 3: the first node keeps 1.5 of the 6 that are paid
    assert found.size == pytest.approx(1.5 / 6)
    assert found.says == (
        "Node 0 takes the contract of node 1 (epsilon 1.5, payment 3): utility 1.5 in place of 0."
    )


def test_what_is_not_a_number_is_no_success(plug_in):
    plug_in(NotANumber)
    found = fa.check_mechanism("plug-in", 20)
    assert failing(found) == {"valid outcomes"}
    assert 0 < row(found, "budget balance").n_games < 20
    assert "payments are (nan, nan, nan)" in row(found, "valid outcomes").example.says
    assert not found.holds
    json.dumps(found.facts(), allow_nan=False)


def test_a_claim_that_no_game_tests_does_not_hold(plug_in):
    plug_in(Untested)
    found = fa.check_mechanism("plug-in", 5)
    assert failing(found) == {"incentive compatibility in contracts"}
    assert "is claimed, but no game tests it" in check_text(found.facts()).plain


def test_a_mechanism_that_breaks_down_is_reported_with_its_game(plug_in):
    plug_in(DividesByZero)
    with pytest.raises(RunFailedError, match=r"'plug-in' raises ZeroDivisionError in the game rho"):
        fa.check_mechanism("plug-in", 5)


def test_games_that_are_refused_have_no_valid_outcome(plug_in):
    plug_in(Refuses)
    found = fa.check_mechanism("plug-in", 60)
    assert failing(found) == {"valid outcomes"}
    valid = row(found, "valid outcomes")
    assert 0 < row(found, "budget balance").n_games == 60 - valid.n_violated < 60
    assert valid.example.says == (
        "The mechanism refuses the game: three nodes are needed, but there are 1."
    )
    assert fa.check_mechanism("plug-in", 5, n_nodes=3).holds
    assert not fa.check_mechanism("plug-in", 5, n_nodes=2).holds


def test_a_seed_gives_the_same_games_whatever_their_number():
    one, two = (fa.check_mechanism("random", 8) for _ in range(2))
    assert one == two
    other = fa.check_mechanism("random", 8, seed=1)
    assert other.properties != one.properties

    def game(seed, index):
        return draw_game(stream(seed, "checked-game", index))

    assert game(3, 5).rho.tolist() == game(3, 5).rho.tolist()
    assert game(3, 5).budget != game(3, 6).budget


def test_random_games_hold_ties_extremes_and_every_size():
    games = [draw_game(stream(0, "checked-game", index)) for index in range(400)]
    assert {game.rho.size for game in games} == set(SIZES)
    assert all((game.rho > 0).all() and game.budget > 0 < game.beta for game in games)
    assert sum(np.unique(game.rho).size < game.rho.size for game in games) > 80
    assert sum(game.rho.max() > 1e5 * game.rho.min() for game in games) > 20
    assert {draw_game(stream(0, "checked-game", 0), 7).rho.size} == {7}


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (UnknownNameError, {"mechanism": "statc"}, "Did you mean 'static'"),
        (OptionError, {"mechanism": "static", "epsilon": -1.0}, "epsilon: input should be greater"),
        (OptionError, {"mechanism": "static", "lwo": 1.0}, "it takes epsilon"),
        (
            InvalidGameError,
            {"games": 0},
            "games must be a whole number from 1 to 1,000,000, but is 0",
        ),
        (
            InvalidGameError,
            {"n_nodes": 0},
            "n_nodes must be a whole number from 1 to 100, but is 0",
        ),
        (InvalidGameError, {"seed": -1}, "a seed must lie from 0"),
    ],
)
def test_mistakes_get_a_sentence(error, call, words):
    with pytest.raises(error, match=words):
        fa.check_mechanism(**({"mechanism": "static"} | call))


def test_the_command_prints_a_table_and_its_exit_code_is_the_verdict(plug_in):
    run = CliRunner()
    fine = run.invoke(app, ["check-mechanism", "static", "--games", "20"])
    assert fine.exit_code == 0
    assert "static: 20 random games, seed 0" in fine.stdout
    assert "Every claim holds." in fine.stdout
    assert re.search(r"budget balance +yes +holds +0 of 20 +0\n", fine.stdout)

    plug_in(PayAsBid)
    wrong = run.invoke(app, ["check-mechanism", "plug-in", "--games", "20", "--json"])
    assert wrong.exit_code == 1
    facts = json.loads(wrong.stdout)
    assert facts["holds"] is False
    assert facts["properties"][0]["name"] == PROPERTIES[0]
    options = ["--set", "mechanism.epsilon=3", "--nodes", "2", "--seed", "4", "--json"]
    other = run.invoke(app, ["check-mechanism", "static", "--games", "2", *options])
    assert json.loads(other.stdout)["options"] == {"epsilon": 3}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["statc"], "Did you mean 'static'"),
        (["static", "--games", "0"], "games must be a whole number from"),
        (["static", "--set", "epsilon=3"], "must name an option of the mechanism"),
        (["static", "--set", "mechanism.games=3"], "has no such option"),
        (["static", "--set", "mechanism.epsilon=-3"], "epsilon: input should be greater than 0"),
    ],
)
def test_the_command_ends_with_2_after_a_mistake(args, words):
    done = CliRunner().invoke(app, ["check-mechanism", *args])
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_the_docs_show_the_claims_of_every_mechanism():
    page = Path("docs/mechanisms.md").read_text(encoding="utf-8")
    table = claims_table({n: MECHANISMS.create(n).claims.facts() for n in MECHANISMS})
    assert f"| {' | '.join(['name', *table.head[1:]])} |" in page
    for name, *cells in table.rows:
        line = f"| `{name}` | {' | '.join(cells)} |"
        assert line in page, f"docs/mechanisms.md lacks this row of its table of claims:\n{line}"
