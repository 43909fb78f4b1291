"""The replication: its numbers against formulas of their own, and each verdict against its numbers.

The formulas here are written from the paper, in fractions where they are rational, and call nothing
of the program.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import fcfn_zhou2023 as zhou
from fcfn_abm.scenario import shipped_files
from fcfn_zhou2023 import base, claims, clients, methods, noise, training

pytestmark = pytest.mark.slow

SETTING = base.Setting()
LIGHT = [name for name, study in zhou.FIGURES.items() if not study.heavy]
VERDICTS = {
    "learning": "holds under reading infer-costs, answer-in-turn, at-once-damped, total-alone",
    "larger-earns-more": "holds",
    "deviating-earn-less": "holds",
    "noise-formula": "holds",
    "composition": "holds under reading one-round",
    "arbitrage": "holds",
    "value-concave": "holds",
    "client-concave": "holds",
    "client-utility": "holds under reading alpha-1, alpha-10",
    "nash": "holds",
    "rent": "holds",
    "server-concave": "holds",
    "slopes-step": "does not hold",
    "slopes-at-ends": "holds",
    "best-cap": "holds",
    "best-utility": "holds",
    "trade": "holds",
    "ceiling": "holds",
    "rule-48": "holds under reading reapplied",
    "high-costs-leave": "holds",
    "similar-needs": "holds under reading within-0.05-percent",
    "similar-selected": "holds",
    "outliers-harmless": "holds",
    "excluded-are-outliers": "holds under reading five-outliers",
    "fig4-numbers": "holds under reading alpha-1, alpha-10",
    "fig4-shape": "holds",
    "fig4-bound": "holds",
    "fig5-shape": "holds",
    "fig6-falls": "holds",
    "fig6-caps": "holds",
    "fig7-rises-and-falls": "holds",
    "fig7-caps": "holds",
    "fig8-falls": "holds",
    "fig8-caps": "holds",
    "fig9-limit": "holds",
    "fig10-linear": "holds",
    "fig11-rises": "holds",
    "fig12-rises": "holds",
    "parameters": "holds",
    "fig13-static": "holds under reading one-client, one-client-may-leave",
    "fig13-random": "holds under reading one-client, one-client-may-leave",
    "fig13-ic-mle": "holds",
    "fig13-yang": "holds under reading one-client, compensated, three-party",
    "fig13-gap": "holds under reading one-client-may-leave",
    "fig13-yang-lowest": "holds under reading two-types",
    "fig14-ic-mle": "holds",
    "fig14-yang": "holds under reading three-party-n-1000, purchase-n-1000, budget-n-1000, "
    "three-party-n-100, purchase-n-100, budget-n-100",
    "fig15-ic-mle": "holds",
    "fig15-yang": "holds under reading three-party-n-1000, purchase-n-1000, three-party-n-100, "
    "purchase-n-100, budget-n-100",
    "fig16-epsilon-ic-mle": "holds under reading two-types",
    "fig16-epsilon-yang": "holds under reading n-10, n-100, two-types",
    "fig16-noise-ic-mle": "holds under reading two-types",
    "fig16-noise-yang": "holds under reading n-10, n-100, two-types",
    "contracts-honest": "holds under reading prime-on-both",
    "utility-of-both": "holds under reading own-spending, three-party-game",
}
FEWER_DRAWS = {"axes": {"population.n_nodes": [1000]}, "replications": 3}
"""For the participation extra: fewer points and draws than its scenario has."""


@pytest.fixture(scope="module")
def values():
    return {name: _values_of(name) for name in LIGHT}


def _values_of(name):
    study = zhou.FIGURES[name]
    scenarios = study.load(SETTING)
    if name == "extra-participation":
        scenarios = {reading: _with_fewer_draws(s) for reading, s in scenarios.items()}
    return study.compute(scenarios, SETTING)


def _with_fewer_draws(scenario):
    sweep = type(scenario.sweep).model_validate({**scenario.sweep.model_dump(), **FEWER_DRAWS})
    return scenario.model_copy(update={"sweep": sweep})


@pytest.fixture(scope="module")
def ledger(values):
    findings = [f for name in LIGHT for f in zhou.FIGURES[name].judge(values[name])]
    return {row.claim.name: row for row in claims.judge_claims(findings)}


def findings_of(figure, frame):
    return {(f.claim, f.reading): f.holds for f in zhou.FIGURES[figure].judge(frame)}


# the ledger


@pytest.mark.parametrize("claim", list(VERDICTS))
def test_each_verdict_follows_from_the_numbers(claim, ledger):
    row = ledger[claim]
    assert row.verdict == VERDICTS[claim]
    assert {finding.reading for finding in row.findings} == set(row.claim.readings)
    assert all(finding.numbers for finding in row.findings)


def test_every_claim_but_those_that_train_nets_has_a_verdict(ledger):
    trained = {name for name, claim in claims.claims().items() if claim.figure == "fig17"}
    assert set(VERDICTS) == set(ledger) == set(claims.claims()) - trained


def test_all_claims_are_complete():
    for claim in claims.claims().values():
        assert claim.status in ("printed", "implied", "our reading")
        assert claim.figure in zhou.FIGURES
        assert claim.plain in ("", *claim.readings)
        assert all((claim.where, claim.text, claim.setting, claim.why, claim.readings))


def test_what_is_not_stated_and_holds_under_no_reading_is_called_so():
    claim = claims.claims()["fig13-yang"]
    failed = base.Finding(claim.name, "purchase", False, "")
    held = base.Finding(claim.name, "one-client", True, "")
    assert claims.Row(claim, (failed,)).verdict == "not stated"
    assert claims.Row(claim, (held,)).verdict == "holds under reading one-client"
    stated = claims.claims()["fig13-static"]
    assert claims.Row(stated, (failed,)).verdict == "does not hold"


def test_every_figure_of_the_paper_has_a_scenario_of_its_own():
    assert [name for name in zhou.FIGURES if name.startswith("fig")] == [
        f"fig{number}" for number in range(4, 18)
    ]
    shipped = {name.removeprefix("paper/") for name in shipped_files() if "paper/" in name}
    both = {f"fig{n}-cifar10" for n in range(13, 18)}
    extras = {"extra-nodes", "extra-participation", "extra-learning"}
    assert shipped == {f"fig{n:02d}" for n in range(4, 18)} | both | extras


# the tampering: other numbers give another finding


def changed(change, **where):
    def tamper(frame):
        frame = frame.copy()
        here = base.pick(frame, **where).index
        assert len(here)
        frame.loc[here, "value"] = change(frame.loc[here, "value"])
        return frame

    return tamper


def scaled(factor, **where):
    return changed(lambda v: factor * v, **where)


def negated(**where):
    return scaled(-1, **where)


def reversed_values(**where):
    return changed(lambda v: v[::-1].to_numpy(), **where)


def swapped(one, other, reading=None):
    names = {one: other, other: one}

    def tamper(frame):
        here = frame["reading"] == (reading or frame["reading"])
        return frame.assign(series=frame["series"].where(~here, frame["series"].map(
            lambda name: names.get(name, name))))  # fmt: skip

    return tamper


TAMPERED = {
    "learning": ("infer-costs", scaled(0, quantity="converged")),
    "larger-earns-more": ("alpha-1", negated(quantity="payment")),
    "deviating-earn-less": ("long-tail", reversed_values(panel="nodes", quantity="payment",
                                                         reading="long-tail")),
    "noise-formula": ("epsilon-98", scaled(0, panel="claimed", quantity="true_delta")),
    "composition": ("all-rounds", scaled(0, panel="total")),
    "arbitrage": ("as-printed", reversed_values(panel="arbitrage")),
    "value-concave": ("as-printed", changed(lambda v: v**4, quantity="value")),
    "client-concave": ("alpha-1", negated(panel="", quantity="node_utility")),
    "client-utility": ("alpha-1", scaled(1.0001, panel="search", quantity="node_utility")),
    "nash": ("even-spread", changed(lambda v: v + 1e-6, panel="nodes",
                                    quantity="gain_alone")),
    "rent": ("as-printed", scaled(1 + 1e-5, quantity="node_utility")),
    "server-concave": ("as-printed", negated(quantity="server_utility", reading="as-printed")),
    "slopes-step": ("as-printed", changed(lambda v: np.where(np.arange(v.size) < 646, 2, 0),
                                         quantity="slope")),
    "slopes-at-ends": ("as-printed", changed(lambda v: v + 0.01, quantity="slope_at_best")),
    "best-cap": ("as-printed", scaled(1.0001, panel="search", quantity="budget")),
    "best-utility": ("as-printed", scaled(1.0001, panel="search", quantity="server_utility")),
    "trade": ("as-printed", scaled(2, panel="trade", quantity="trade_index")),
    "ceiling": ("even-spread", scaled(0.9, quantity="ceiling")),
    "rule-48": ("once", scaled(0, quantity="n_once_violating")),
    "high-costs-leave": ("long-tail", negated(quantity="best_of_excluded")),
    "similar-needs": ("within-0.05-percent", scaled(0.999, panel="spread", quantity="n_active")),
    "similar-selected": ("even-spread", scaled(100, quantity="variation_active")),
    "outliers-harmless": ("high-cost", changed(lambda v: v + 0.02, panel="outlier")),
    "excluded-are-outliers": ("five-outliers", scaled(20, quantity="n_outliers")),
    "fig4-numbers": ("alpha-1", scaled(1.0001, panel="search", quantity="zero_at")),
    "fig4-shape": ("alpha-1", negated(panel="", quantity="node_utility")),
    "fig4-bound": ("alpha-1", scaled(1.01, panel="bound", quantity="zero_at")),
    "fig5-shape": ("n-100", scaled(1.01, panel="closed form", quantity="budget")),
    "fig6-falls": ("as-printed", reversed_values(quantity="epsilon", series="B = 20")),
    "fig6-caps": ("as-printed", swapped("B = 1", "B = 5")),
    "fig7-rises-and-falls": ("as-printed", changed(lambda v: v + 1, quantity="epsilon", x=1.0)),
    "fig7-caps": ("as-printed", swapped("B = 10", "B = 5")),
    "fig8-falls": ("as-printed", negated(quantity="node_utility")),
    "fig8-caps": ("as-printed", swapped("B = 10", "B = 20")),
    "fig9-limit": ("as-printed", scaled(0.99, quantity="budget")),
    "fig10-linear": ("as-printed", scaled(1.001, quantity="budget")),
    "fig11-rises": ("as-printed", negated(quantity="server_utility")),
    "fig12-rises": ("as-printed", negated(quantity="server_utility")),
    "parameters": ("fig12", changed(lambda v: v + 1e-3, quantity="gain_alone")),
    "fig13-static": ("one-client", changed(lambda v: v + 1, series="static")),
    "fig13-random": ("one-client", changed(lambda v: v + 1, series="random")),
    "fig13-ic-mle": ("all-clients", swapped("stackelberg", "ic-mle", "all-clients")),
    "fig13-yang": ("compensated", swapped("stackelberg", "yang", "all-clients")),
    "fig13-gap": ("one-client-may-leave", changed(lambda v: v - 1, series="random", x=100.0)),
    "fig13-yang-lowest": ("two-types", changed(lambda v: v + 1, series="yang")),
    "fig14-ic-mle": ("n-1000", swapped("stackelberg", "ic-mle")),
    "fig14-yang": ("budget-n-1000", swapped("stackelberg", "yang-budget")),
    "fig15-ic-mle": ("n-1000", changed(lambda v: v + 0.01, series="ic-mle")),
    "fig15-yang": ("budget-n-1000", changed(lambda v: v - 1, series="yang-budget", x=1.0)),
    "fig16-epsilon-ic-mle": ("two-types", scaled(6, series="ic-mle", quantity="epsilon")),
    "fig16-epsilon-yang": ("n-1000", scaled(0.2, series="yang", quantity="epsilon")),
    "fig16-noise-ic-mle": ("n-1000", scaled(1.01, series="ic-mle",
                                            quantity="noise_std_classical")),
    "fig16-noise-yang": ("n-1000", scaled(3, series="yang", quantity="noise_std_classical")),
    "contracts-honest": ("as-extracted", negated(quantity="gain_by_lying")),
    "utility-of-both": ("own-spending", swapped("stackelberg", "other", "own-spending")),
}  # fmt: skip


@pytest.mark.parametrize("claim", list(VERDICTS))
def test_other_numbers_give_another_finding(claim, values, ledger):
    figure = claims.claims()[claim].figure
    reading, tamper = TAMPERED[claim]
    before = {finding.reading: finding.holds for finding in ledger[claim].findings}[reading]
    assert findings_of(figure, tamper(values[figure]))[claim, reading] != before


# figures 4 to 12 against (29) to (42)


def equilibrium(n, rho, budget):
    """Return epsilon (29) and utility (31) of n clients of equal cost."""
    return budget * Fraction(n - 1) / (n * n * rho), Fraction(budget) / (n * n)


def best_cap(n, rho_sum, alpha, beta):
    return Fraction(beta) - n * Fraction(rho_sum) / (Fraction(alpha) * (n - 1))


def best_utility(n, rho_sum, alpha, beta):
    ratio = Fraction(alpha) * Fraction(beta) * (n - 1) / (n * Fraction(rho_sum))
    return float(beta) * math.log(ratio) - float(best_cap(n, rho_sum, alpha, beta))


def at(frame, x, **where):
    frame = base.pick(frame, **where)
    return float(frame.iloc[(frame["x"] - float(x)).abs().argmin()]["value"])


def test_the_printed_numbers_of_figure_4_solve_the_printed_equations_exactly():
    printed = claims.expected("fig4-numbers")
    for alpha, beta in ((Fraction(1), Fraction(10)), (Fraction(10), Fraction(981, 99))):
        cap = best_cap(100, Fraction(1, 10), alpha, beta)
        epsilon, utility = equilibrium(100, Fraction(1, 1000), cap)
        assert (cap, epsilon) == (printed["budget"], printed["epsilon"])
        assert cap / Fraction(1, 1000) - 99 * epsilon == printed["zero_at"]
        assert utility == claims.expected("client-utility")["node_utility"] == Fraction(49, 49500)
    assert best_cap(100, Fraction(1, 10), 10, 10) != printed["budget"]


def test_figure_4_is_the_printed_curve(values):
    line = base.pick(values["fig4"], reading="alpha-1", panel="", quantity="node_utility")
    assert line["x"].min() == 0
    assert line["x"].max() == pytest.approx(float(Fraction(19502, 99)), rel=1e-12)
    cap, others = Fraction(980, 99), 99 * Fraction(98)
    for epsilon, found in zip(line["x"], line["value"], strict=True):
        own = Fraction(epsilon)
        assert found == pytest.approx(float(cap * own / (own + others) - own / 1000), abs=1e-12)
    assert at(line, 98) == pytest.approx(float(Fraction(49, 49500)), rel=1e-9)


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_figure_5_is_the_servers_utility_under_every_cap(n, values):
    line = base.pick(values["fig5"], reading=f"n-{n}", panel="")
    for cap, found in zip(line["x"], line["value"], strict=True):
        epsilon = float(equilibrium(n, Fraction(1, 100), Fraction(cap))[0])
        assert found == pytest.approx(10 * math.log1p(10 * epsilon) - cap, abs=1e-9)
    assert line["value"].max() == pytest.approx(best_utility(n, Fraction(n, 100), 10, 10), rel=1e-9)


def test_figure_5_has_the_check_values_for_100_clients(values):
    form = base.pick(values["fig5"], reading="n-100", panel="closed form")
    assert base.number(form, quantity="budget") == pytest.approx(980 / 99, rel=1e-12)
    assert f"{base.number(form, quantity='server_utility'):.4f}" == "36.0522"


@pytest.mark.parametrize("budget", [1, 5, 10, 20])
def test_figures_6_to_8_are_the_equilibrium_of_equal_clients(budget, values):
    series = f"B = {budget}"
    epsilon = base.pick(values["fig6"], panel="", series=series, quantity="epsilon")
    assert (epsilon["x"].min(), epsilon["x"].max()) == pytest.approx((0.001, 1), rel=1e-12)
    for rho, found in zip(epsilon["x"], epsilon["value"], strict=True):
        assert found == pytest.approx(float(equilibrium(100, Fraction(rho), budget)[0]), rel=1e-9)
    for figure, quantity, place, rho, last in (
        ("fig7", "epsilon", 0, Fraction(1, 100), 1000),
        ("fig8", "node_utility", 1, Fraction(1, 1000), 100),
    ):
        line = base.pick(values[figure], panel="", series=series, quantity=quantity)
        assert (line["x"].min(), line["x"].max()) == (1, last)
        for n, found in zip(line["x"], line["value"], strict=True):
            exact = equilibrium(int(n), rho, budget)[place]
            assert found == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(("rho", "printed"), [(0.001, 198), (1, 0.198)])
def test_figure_6_has_the_check_values(rho, printed, values):
    found = at(values["fig6"], rho, series="B = 20", quantity="epsilon", panel="")
    assert found == pytest.approx(printed, rel=1e-9)


def test_figure_7_starts_at_zero_and_peaks_at_two_clients(values):
    line = base.curve(values["fig7"], panel="", series="B = 1", quantity="epsilon")
    assert (line[1], line[2], line.idxmax()) == (0, pytest.approx(25), 2)
    assert line[1000] == pytest.approx(0.0999, rel=1e-9)


@pytest.mark.parametrize(
    ("figure", "quantity", "x_name"),
    [("fig9", "budget", "alpha"), ("fig10", "budget", "beta"),
     ("fig11", "server_utility", "alpha"), ("fig12", "server_utility", "beta")],
)  # fmt: skip
def test_figures_9_to_12_are_the_servers_optimum(figure, quantity, x_name, values):
    line = base.pick(values[figure], panel="", quantity=quantity)
    first = {"alpha": 0.2, "beta": 1}[x_name]
    assert (line["x"].min(), line["x"].max()) == pytest.approx((first, 100))
    exact = {"budget": best_cap, "server_utility": best_utility}[quantity]
    for x, found in zip(line["x"], line["value"], strict=True):
        alpha, beta = (Fraction(x), 10) if x_name == "alpha" else (10, Fraction(x))
        assert found == pytest.approx(float(exact(100, 1, alpha, beta)), rel=1e-9)


@pytest.mark.parametrize(
    ("figure", "quantity", "x", "printed"),
    [
        ("fig9", "budget", 0.2, "4.9495"), ("fig9", "budget", 100, "9.98990"),
        ("fig11", "server_utility", 0.2, "1.88147"), ("fig11", "server_utility", 1, "13.9354"),
        ("fig11", "server_utility", 10, "36.0522"), ("fig11", "server_utility", 100, "58.9872"),
        ("fig12", "server_utility", 1, "1.39354"), ("fig12", "server_utility", 50, "260.329"),
        ("fig12", "server_utility", 100, "589.872"),
    ],
)  # fmt: skip
def test_figures_9_to_12_have_the_check_values_to_their_digits(
    figure, quantity, x, printed, values
):
    found = at(values[figure], x, panel="", quantity=quantity)
    digits = len(printed.partition(".")[2])
    assert f"{found:.{digits}f}" == printed


def test_the_profit_ends_far_beyond_where_the_printed_interval_does(values):
    found = base.number(values["extra-leader"], panel="search", quantity="last_profit")
    assert f"{found:.3f}" == "64.627"
    epsilon = float(equilibrium(100, Fraction(1, 100), Fraction(found))[0])
    assert 10 * math.log1p(10 * epsilon) == pytest.approx(found, rel=1e-9)


# figure 13


MARKETS = {
    "EMNIST": (10, 10, 1, Fraction(1, 1000), 10),
    "CIFAR-10": (20, 20, 2, Fraction(3, 1000), 5),
}


@pytest.mark.parametrize("data", MARKETS)
@pytest.mark.parametrize("n", [10, 50, 100])
def test_figure_13_is_what_shares_of_the_payment_leave(data, n, values):
    _, _, cap, rho, static = MARKETS[data]
    frame = base.pick(values["fig13"], panel=data, x=float(n))
    everybody = base.pick(frame, reading="all-clients")
    exact = {
        "stackelberg": Fraction(cap, n * n),
        "static": Fraction(cap, n) - rho * static,
        "random": Fraction(cap, n) - rho * Fraction(101, 2),
        "ic-mle": Fraction(0),
    }
    for series, utility in exact.items():
        found = base.number(everybody, series=series)
        assert found == pytest.approx(float(utility), abs=1e-9)
    others = (n - 1) * equilibrium(n, rho, cap)[0]
    alone = base.pick(frame, reading="one-client")
    for series, epsilon in (("static", Fraction(static)), ("ic-mle", Fraction(cap) / (n * rho))):
        exact_alone = cap * epsilon / (epsilon + others) - rho * epsilon
        found = base.number(alone, series=series)
        assert found == pytest.approx(float(exact_alone), rel=1e-9)
        assert exact_alone < Fraction(cap, n * n)


@pytest.mark.parametrize("may_leave", [False, True])
def test_the_mean_of_a_random_client_is_that_of_many_draws(may_leave):
    others, cost, cap = 960.4, 0.001, 1.0
    epsilon = np.random.default_rng(1).uniform(1, 100, 400_000)
    utility = cap * epsilon / (epsilon + others) - cost * epsilon
    drawn = np.maximum(utility, 0) if may_leave else utility
    exact = clients._mean_of_random(others, cost, cap, may_leave=may_leave)
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / math.sqrt(drawn.size)


def test_losers_leave_until_nobody_loses():
    rho = np.full(100, 0.001)
    assert clients._leave(np.full(100, 20.0), rho, 1.0) == pytest.approx(0, abs=1e-15)
    assert clients._leave(np.full(10, 10.0), rho[:10], 1.0) == pytest.approx(0.09)


# figures 14 to 16


@pytest.mark.parametrize(
    ("figure", "data", "gaps"),
    [
        ("fig14", "EMNIST", (8.09, 13.16, 13.93)), ("fig14", "CIFAR-10", (12.71, 25.54, 27.76)),
        ("fig15", "EMNIST", (0.0038, 13.16, 351.99)), ("fig15", "CIFAR-10", (0.384, 7.51, 286.0)),
    ],
)  # fmt: skip
def test_with_1000_clients_the_server_earns_more_at_all_twelve_points(figure, data, gaps, values):
    frame = base.pick(values[figure], panel=data, reading="n-1000")
    ours, theirs = (base.curve(frame, series=s) for s in ("stackelberg", "ic-mle"))
    alpha, beta, cap, rho, _ = MARKETS[data]
    for x, gap in zip((1, 10, 100), gaps, strict=True):
        a, b = (x, beta) if figure == "fig14" else (alpha, x)
        assert ours[x] == pytest.approx(best_utility(1000, 1000 * rho, a, b), rel=1e-9)
        contract = b * math.log1p(a * float(cap / (1000 * rho))) - cap
        assert theirs[x] == pytest.approx(contract, rel=1e-9)
        digits = len(str(gap).partition(".")[2])
        assert round(ours[x] - theirs[x], digits) == gap


@pytest.mark.parametrize(("n", "gap"), [(10, -0.105), (50, -0.020), (100, -0.0099)])
def test_with_fewer_clients_one_point_fails(n, gap, values):
    frame = base.pick(values["fig15"], panel="EMNIST", reading=f"n-{n}", x=1.0)
    found = base.number(frame, series="stackelberg") - base.number(frame, series="ic-mle")
    assert found == pytest.approx(gap, rel=0.02)


PRINTED_YANG = {
    ("EMNIST", 10): (1.3382, 0.1039, 40.17), ("EMNIST", 50): (1.3501, 0.1913, 21.25),
    ("EMNIST", 100): (1.3582, 0.2494, 16.00), ("EMNIST", 1000): (1.4213, 0.6473, 5.381),
    ("CIFAR-10", 10): (1.3324, 0.1202, 70.35), ("CIFAR-10", 50): (1.3392, 0.2228, 37.37),
    ("CIFAR-10", 100): (1.3438, 0.2919, 28.23), ("CIFAR-10", 1000): (1.3790, 0.7803, 9.774),
}  # fmt: skip


@pytest.mark.parametrize(("data", "n"), PRINTED_YANG)
def test_the_equations_of_yang_are_solved(data, n):
    alpha, _, _, rho, _ = MARKETS[data]
    found = methods.solve_yang(np.full(n, float(rho)), alpha)
    epsilon, price, purchase = (x[0] for x in (found.epsilon, found.unit_price, found.amount))
    expected = PRINTED_YANG[data, n]
    assert (epsilon, price, purchase) == pytest.approx(expected, rel=4e-4)
    others = (n - 1) / price
    top = others + 1 + epsilon
    assert purchase == pytest.approx(alpha / (price * (1 + epsilon)) - 1, rel=1e-9)
    assert price == pytest.approx(top / (math.sqrt(alpha * top / float(rho)) - others), rel=1e-9)
    assert epsilon**3 == pytest.approx(alpha / (purchase * price), rel=1e-9)


def test_two_types_of_sellers_solve_them_too():
    rho = np.repeat(methods.TYPES, 50)
    found = methods.solve_yang(rho, 10)
    others = (1 / found.unit_price).sum() - 1 / found.unit_price
    top = others + 1 + found.epsilon
    assert found.unit_price == pytest.approx(top / (np.sqrt(10 * top / rho) - others), rel=1e-9)
    assert found.epsilon**3 == pytest.approx(10 / (found.amount * found.unit_price), rel=1e-9)


def test_with_alpha_1_they_have_no_positive_solution():
    epsilon = np.linspace(0.01, 200, 200_000)
    for rho in (0.001, 0.003):
        for n in (10, 1000):
            assert methods.solve_yang(np.full(n, rho), 1.0) is None
            price = _price_at(epsilon, n, rho)  # (57) in (59): epsilon^3 a p = 1 is never reached
            assert (epsilon**3 * (1 / (1 + epsilon) - price) < 1).all()


def _price_at(epsilon, n, rho):
    """Solve (58) for equal sellers and alpha = 1 by bisection."""
    low, high = np.full_like(epsilon, 1e-9), np.full_like(epsilon, 1e6)
    for _ in range(200):
        price = np.sqrt(low * high)
        top = (n - 1) / price + 1 + epsilon
        above = price * np.sqrt(top / rho) > top + n - 1
        low, high = np.where(above, low, price), np.where(above, price, high)
    return price


@pytest.mark.parametrize("n", [10, 100, 1000])
@pytest.mark.parametrize("data", MARKETS)
def test_figure_16_has_one_part_in_n_less_epsilon_and_the_noise_of_the_formula(data, n, values):
    _, _, cap, rho, _ = MARKETS[data]
    frame = base.pick(values["fig16"], panel=data, reading=f"n-{n}")
    ours = base.number(frame, series="stackelberg", quantity="epsilon")
    theirs = base.number(frame, series="ic-mle", quantity="epsilon")
    assert theirs == pytest.approx(float(cap / (n * rho)), rel=1e-9)
    assert ours == pytest.approx(float(equilibrium(n, rho, cap)[0]), rel=1e-9)
    sigma = math.sqrt(2 * math.log(1.25 / 1e-5)) / ours
    found = base.number(frame, series="stackelberg", quantity="noise_std_classical")
    assert found == pytest.approx(sigma, rel=1e-9)


def test_two_types_of_cost_have_the_check_values(values):
    frame = base.pick(values["fig16"], panel="EMNIST", reading="two-types")
    ours = base.pick(frame, series="stackelberg")
    assert base.number(ours, quantity="n_active") == 50
    assert base.number(ours, quantity="epsilon") == pytest.approx(19.6)
    assert base.number(frame, series="ic-mle", quantity="epsilon") == pytest.approx(3.82, abs=5e-3)


def test_equal_payments_tempt_the_low_cost_type(values):
    found = base.pick(values["fig16"], quantity="gain_by_lying", reading="as-extracted")
    for data, cap in (("EMNIST", 1), ("CIFAR-10", 2)):
        payment = Fraction(cap, 100)
        asked = payment / Fraction(3, 1000)  # of the high-cost type, which earns nothing
        assert base.number(found, panel=data) == pytest.approx(
            float(payment - Fraction(1, 1000) * asked)
        )
    assert noise.TYPES == (0.001, 0.003)


# privacy and participation


def log_delta(epsilon, mu):
    """Return ln(delta) of a Gaussian release (Balle and Wang 2018), the textbook way, in logs."""
    first, second = (
        norm.logcdf(mu / 2 - epsilon / mu),
        epsilon + norm.logcdf(-mu / 2 - epsilon / mu),
    )
    return first + math.log1p(-math.exp(second - first))


def test_ten_a_round_are_about_520_after_200_rounds(values):
    total = base.curve(values["extra-privacy"], panel="total", series="ten")
    low, high = 0.1, 10.0
    while high - low > 1e-14:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if log_delta(10.0, 1 / middle) > math.log(1e-5) else (low, middle)
        )
    mu = math.sqrt(200) / high
    assert log_delta(total[200], mu) == pytest.approx(math.log(1e-5), abs=1e-6)
    assert total[200] == pytest.approx(520, abs=1)


def test_the_printed_noise_protects_next_to_nothing_at_the_printed_equilibrium(values):
    sigma = math.sqrt(2 * math.log(1.25 / 1e-5)) / 98
    found = base.pick(values["extra-privacy"], panel="claimed", reading="epsilon-98")
    assert found["x"].to_numpy() == pytest.approx(98)
    true = base.number(found, quantity="true_epsilon")
    assert math.exp(log_delta(98.0, 1 / sigma)) > 0.999999
    assert log_delta(true, 1 / sigma) == pytest.approx(math.log(1e-5), abs=1e-6)
    assert true > 280


def test_the_cap_falls_with_the_number_of_clients(values):
    cap = base.curve(values["extra-nodes"], quantity="budget")
    for n in cap.index:
        exact = max(0.0, float(best_cap(int(n), Fraction(int(n), 100), 10, 10)))
        assert cap[n] == pytest.approx(exact, abs=1e-9)


# figure 17


def trainings(ours, other, seeds=3):
    """Return made-up accuracies of two mechanisms, a seed each."""
    return base.table(
        [
            base.rows("accuracy", level, panel=data, reading=reading, series=arm, x=15.0,
                      replication=seed)
            for data in ("EMNIST", "CIFAR-10")
            for reading in training.READINGS
            for arm, accuracy in (("stackelberg", ours), ("ic-mle", other), ("yang", other))
            for seed, level in zip(range(seeds), accuracy, strict=True)
        ]
    )  # fmt: skip


def test_a_better_net_counts_only_where_seeds_tell_it_apart():
    study = zhou.FIGURES["fig17"]

    def verdicts(frame):
        return {row.claim.name: row.verdict for row in claims.judge_claims(study.judge(frame))}

    clear = verdicts(trainings((0.50, 0.51, 0.52), (0.30, 0.31, 0.33)))
    assert clear == {"fig17-ic-mle": "holds", "fig17-yang": "holds"}
    noisy = verdicts(trainings((0.50, 0.30, 0.40), (0.45, 0.38, 0.30)))
    assert noisy["fig17-yang"] == "does not hold"


def test_without_data_the_digits_stand_in_and_are_labelled(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    scenarios = training.load(SETTING)
    assert {name.split("|")[0] for name in scenarios} == {training.STAND_IN}
    assert {scenario.training.data.kind for scenario in scenarios.values()} == {"digits"}
    assert all(scenario.training.rounds <= 20 for scenario in scenarios.values())


def test_in_full_the_nets_are_trained_with_the_settings_of_the_paper(tmp_path):
    for name, scenario in training.load(base.Setting(size="full", out=tmp_path)).items():
        settings, game = scenario.training, scenario.game
        assert (scenario.population.n_nodes, settings.rounds) == (1000, 200)
        assert (settings.local_epochs, settings.batch_size) == (5, 128)
        assert (settings.learning_rate, settings.momentum) == (0.1, 0.9)
        assert settings.data.options["split"] == "paper"
        alpha, beta, cap, _, _ = MARKETS[name.split("|")[0]]
        assert (game.alpha, game.beta, game.budget) == (alpha, beta, cap)


def test_a_training_that_is_there_is_not_done_again(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    small = base.scenario_of("fig17", [
        *training.FAST, "training.data.kind=digits", "population.n_nodes=4", "training.rounds=2",
    ])  # fmt: skip
    yang = base.scenario_of("fig17", [
        *training.FAST, "training.data.kind=digits", "population.n_nodes=4", "training.rounds=2",
        "mechanism.kind=static", "mechanism.epsilon=1.3", "training.compare=[]",
    ])  # fmt: skip
    setting = base.Setting(out=tmp_path)
    monkeypatch.setattr(training, "N_SEEDS", {"fast": 2})
    scenarios = {"digits|printed-round": small, "digits|printed-round|yang": yang}
    first = training.compute(scenarios, setting)
    again = []
    run = training.fa.run_scenario

    def noted(scenario, folder, **kwargs):
        again.append(folder)
        return run(scenario, folder, **kwargs)

    monkeypatch.setattr(training.fa, "run_scenario", noted)
    pd.testing.assert_frame_equal(training.compute(scenarios, setting), first)
    assert not again
    monkeypatch.setattr(training, "_code", lambda: "changed since")
    pd.testing.assert_frame_equal(training.compute(scenarios, setting), first)
    assert len(again) == 4
    last = base.pick(first, quantity="accuracy", x=2.0)
    assert sorted(last["series"].unique()) == ["ic-mle", "no-noise", "stackelberg", "yang"]
    assert last["replication"].nunique() == 2
    assert base.number(first, series="yang", quantity="epsilon") == pytest.approx(1.3)


def test_columns_are_known_and_one_number_is_one():
    with pytest.raises(TypeError, match="columns are"):
        base.rows("epsilon", 1.0, serie="ours")
    with pytest.raises(LookupError, match="0 values"):
        base.number(base.rows("epsilon", 1.0), quantity="budget")
