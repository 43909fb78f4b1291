"""The replication: each verdict is held to its numbers, and these to numbers had in other ways."""

from __future__ import annotations

import math
from fractions import Fraction

import pandas as pd
import pytest
from scipy.stats import norm

import fcfn_zhou2023 as zhou
from fcfn_zhou2023 import base, claims, nodes, privacy, training

pytestmark = pytest.mark.slow

SETTING = base.Setting()
LIGHT = [name for name, study in zhou.FIGURES.items() if not study.heavy]
VERDICTS = {
    "fig4-equilibrium": "holds under reading alpha-1",
    "fig4-break-even": "holds under reading alpha-1",
    "fig4-utility": "holds under reading alpha-1",
    "fig4-peak": "holds",
    "fig5-limit": "holds",
    "fig6-slope": "holds",
    "fig7-limit": "holds under reading sum",
    "fig8-trade": "holds",
    "fig8-epsilon": "holds",
    "fig9-optimum": "holds",
    "fig9-slopes": "holds under reading interval",
    "fig10-rent": "holds",
    "fig11-rule": "holds under reading again-and-again",
    "fig11-outliers": "holds under reading five-outliers",
    "fig11-dear": "holds",
    "fig12-learn": "holds",
    "fig12-converge": "holds under reading answer-in-turn, at-once-damped, total-alone",
    "fig13-static": "holds under reading one-deviates",
    "fig13-random": "holds under reading one-deviates",
    "fig14-ic-mle": "holds under reading own-spending, fixed-contract, two-types, "
    "two-types-mean-over-all",
    "fig14-yang": "holds",
    "fig14-honest": "holds under reading with-prime",
    "fig14-agency": "holds under reading three-party",
    "fig15-ic-mle": "holds under reading fixed-contract, two-types, two-types-mean-over-all",
    "fig15-yang": "holds",
    "fig16-ic-mle": "holds under reading two-types",
    "fig16-yang": "holds",
    "fig16-private": "holds under reading thousand-nodes",
    "fig16-total": "holds under reading one-round",
}
FEWER = {  # fewer points and draws than the shipped scenarios have
    "fig9": {"axes": {"game.budget": {"low": 1.0, "high": 80.0, "n": 80}}},
    "fig11": {"axes": {"population.n_nodes": [1000]}, "replications": 3},
    "fig13": {"axes": {"population.n_nodes": [10, 50, 100]}, "replications": 30},
}


@pytest.fixture(scope="module")
def values():
    return {name: _values_of(name) for name in LIGHT}


def _values_of(name):
    study = zhou.FIGURES[name]
    scenarios = study.load(SETTING)
    if name in FEWER:
        scenarios = {reading: _with_sweep(s, FEWER[name]) for reading, s in scenarios.items()}
    return study.compute(scenarios, SETTING)


def _with_sweep(scenario, sweep):
    settings = type(scenario.sweep).model_validate({**scenario.sweep.model_dump(), **sweep})
    return scenario.model_copy(update={"sweep": settings})


def rows_of(name, frame):
    return {row.claim.name: row for row in claims.settled(zhou.FIGURES[name].judge(frame))}


def holds(name, frame, claim, reading):
    found = rows_of(name, frame)[claim].findings
    return next(finding.holds for finding in found if finding.reading == reading)


@pytest.mark.parametrize("claim", [c for c, e in claims.claims().items() if e.figure != "fig17"])
def test_each_verdict_follows_from_numbers_of_today(claim, values):
    figure = claims.claims()[claim].figure
    row = rows_of(figure, values[figure])[claim]
    assert row.verdict == VERDICTS[claim]
    assert {finding.reading for finding in row.findings} == set(row.claim.readings)
    assert all(finding.numbers for finding in row.findings)


def test_all_claims_have_a_known_status_and_a_reading_that_is_there():
    for claim in claims.claims().values():
        assert claim.status in ("printed", "described", "implied")
        assert claim.figure in zhou.FIGURES
        assert claim.plain in ("", *claim.readings)
        assert (claim.status == "printed") <= bool(claim.values)


SWAP = {"stackelberg": "ic-mle", "ic-mle": "stackelberg"}


def swapped(frame):
    return frame.assign(series=frame["series"].replace(SWAP))


def changed(frame, change, **where):
    frame = frame.copy()
    here = base.pick(frame, **where).index
    assert len(here)
    frame.loc[here, "value"] = change(frame.loc[here, "value"])
    return frame


@pytest.mark.parametrize(
    ("claim", "reading", "tamper"),
    [
        (
            "fig4-equilibrium",
            "alpha-1",
            lambda f: changed(f, lambda v: 1.0001 * v, panel="brute force", quantity="epsilon"),
        ),
        (
            "fig4-break-even",
            "alpha-1",
            lambda f: changed(f, lambda v: v + 0.01, quantity="break_even"),
        ),
        (
            "fig4-utility",
            "alpha-1",
            lambda f: changed(
                f, lambda v: 1.0001 * v, panel="brute force", quantity="node_utility"
            ),
        ),
        ("fig4-peak", "alpha-1", lambda f: changed(f, lambda v: -v, panel="node")),
        ("fig5-limit", "fig4-market", lambda f: changed(f, lambda v: 0.99 * v, quantity="budget")),
        ("fig5-limit", "fig4-market", lambda f: changed(f, lambda v: 0 * v + v.max(),
                                                        quantity="budget")),
        ("fig6-slope", "fig4-market", lambda f: changed(f, lambda v: 1.01 * v, quantity="budget")),
        ("fig7-limit", "mean", lambda f: changed(f, lambda v: 10 - 1e-4 / (1 + v.index),
                                                 quantity="budget")),
        ("fig8-trade", "fig4-market", lambda f: changed(f, lambda v: 2 * v,
                                                        quantity="trade_index")),
        ("fig8-trade", "fig4-market", lambda f: changed(f, lambda v: v.where(v > 5, 0.0),
                                                        quantity="tried_budget")),
        ("fig8-epsilon", "fig4-market", lambda f: changed(f, lambda v: -v, quantity="epsilon")),
        ("fig8-epsilon", "fig4-market", lambda f: changed(f, lambda v: 0 * v + 1,
                                                          quantity="epsilon")),
        (
            "fig9-optimum",
            "fig4-market",
            lambda f: changed(f, lambda v: v + 3, quantity="best_budget"),
        ),
        ("fig9-slopes", "slopes", lambda f: changed(f, lambda v: 0 * v + 1, panel="")),
        ("fig10-rent", "fig4-market", lambda f: changed(f, lambda v: 2 * v, quantity="budget")),
        ("fig10-rent", "fig4-market", lambda f: changed(f, lambda v: v * (1 + 1e-5),
                                                        quantity="node_utility")),
        ("fig11-rule", "once", lambda f: changed(f, lambda v: 0 * v, quantity="n_once_violating")),
        ("fig11-outliers", "even-spread", lambda f: changed(f, lambda v: 968 + 0 * v,
                                                           quantity="n_outliers")),
        ("fig11-dear", "long-tail", lambda f: changed(f, lambda v: v[::-1].to_numpy(),
                                                      panel="nodes", quantity="epsilon")),
        ("fig12-learn", "infer-costs", lambda f: changed(f, lambda v: 0 * v, quantity="converged")),
        ("fig13-static", "everybody", lambda f: changed(f, lambda v: v - 1, series="static")),
        ("fig14-ic-mle", "one-type", swapped),
        ("fig14-honest", "as-printed", lambda f: changed(f, lambda v: -v,
                                                         quantity="gain_by_lying")),
        ("fig14-agency", "as-printed", lambda f: changed(f, lambda v: 0 * v + 1,
                                                         quantity="solved")),
        ("fig15-ic-mle", "two-types", swapped),
        ("fig16-ic-mle", "exact-round", swapped),
        ("fig16-private", "fig4-epsilon", lambda f: changed(f, lambda v: 0 * v,
                                                            quantity="true_delta")),
        ("fig16-total", "all-rounds", lambda f: changed(f, lambda v: 0 * v, panel="total")),
    ],
)  # fmt: skip
def test_other_numbers_give_another_finding(claim, reading, tamper, values):
    figure = claims.claims()[claim].figure
    frame = values[figure]
    assert holds(figure, tamper(frame), claim, reading) != holds(figure, frame, claim, reading)


def test_the_printed_numbers_solve_the_printed_equations_exactly():
    n, rho, beta = 100, Fraction(1, 1000), 10
    cap = beta - n * n * rho / (n - 1)  # (41) with alpha = 1
    epsilon = cap * (n - 1) / (n * n * rho)  # (29)
    assert (cap, epsilon) == (
        claims.expected("fig4-equilibrium")["budget"],
        claims.expected("fig4-equilibrium")["epsilon"],
    )
    break_even = claims.expected("fig4-break-even")["break_even"]
    assert cap * break_even / (break_even + (n - 1) * epsilon) == rho * break_even
    assert cap / n - rho * epsilon == claims.expected("fig4-utility")["node_utility"]


def test_the_equilibrium_leaves_a_node_less_than_a_static_epsilon_of_all(values):
    frame = base.pick(values["fig13"], reading="everybody")
    for n in (10, 50, 100):
        assert base.curve(frame, series="stackelberg")[n] == pytest.approx(1 / n**2)
        assert base.curve(frame, series="static")[n] == pytest.approx(1 / n - 0.01, abs=1e-12)
        drawn = base.pick(frame, series="random", x=n)["value"]
        assert abs(drawn.mean() - (1 / n - 0.0505)) < 4 * drawn.sem() + 1e-12


def test_one_node_alone_does_worse_with_any_other_epsilon(values):
    frame = base.pick(values["fig13"], reading="one-deviates")
    for n in (10, 50, 100):
        others = (n - 1) * (n - 1) / (n * n * 0.001)
        static = 10 / (10 + others) - 0.01
        assert base.curve(frame, series="static")[n] == pytest.approx(static)
        assert static < 1 / n**2


def test_the_contest_buys_one_part_in_n_less_than_the_contract(values):
    frame = base.pick(values["fig15"], reading="one-type")
    ours, theirs = (base.curve(frame, series=s, quantity="epsilon") for s in SWAP)
    for n in (10, 50, 100):
        assert theirs[n] == pytest.approx(1 / (n * 0.001))
        assert ours[n] == pytest.approx(theirs[n] * (n - 1) / n)


def test_noise_is_the_printed_formula_times_the_sensitivity_of_a_mean(values):
    frame = base.pick(values["fig16"], panel="EMNIST", reading="printed-round")
    found = base.curve(frame, series="stackelberg", quantity="noise_std")
    for n in (10, 50, 100, 1000):
        epsilon = (n - 1) / (n * n * 0.001)
        sigma = math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon
        assert found[n] == pytest.approx(sigma * 2 * n / privacy.IMAGES["EMNIST"])
    lasting = base.pick(values["fig16"], panel="EMNIST", reading="printed-training")
    ratio = base.curve(lasting, series="stackelberg", quantity="noise_std") / found
    assert ratio.to_numpy() == pytest.approx(math.sqrt(200))


def test_without_incentives_a_cheap_node_gains_the_whole_difference_of_costs(values):
    frame = base.pick(values["fig14"], panel="rules", quantity="gain_by_lying")
    gain = base.number(frame, reading="as-printed")
    dear = gain / (0.0015 - 0.0005)  # p = c eps for both, so the gain is (c' - c) eps'
    cheap = (1.0 - 50 * 0.0015 * dear) / (50 * 0.0005)  # what is left of the cap

    def slope(epsilon):
        half = epsilon / 2
        return 1 / (math.tanh(half) * math.sinh(half) ** 2)

    assert slope(dear) / slope(cheap) == pytest.approx(3, rel=1e-4)  # as their costs are


def log_delta(epsilon, mu):
    """Return ln(delta) of a Gaussian release (Balle and Wang 2018), the textbook way, in logs."""
    first, second = (
        norm.logcdf(mu / 2 - epsilon / mu),
        epsilon + norm.logcdf(-mu / 2 - epsilon / mu),
    )
    return first + math.log1p(-math.exp(second - first))


def test_ten_a_round_are_about_520_after_200_rounds(values):
    total = base.curve(values["fig16"], panel="total", series="ten", quantity="epsilon_total")
    assert log_delta(10.0, 1 / _sigma_of_ten()) == pytest.approx(math.log(1e-5), abs=1e-6)
    mu = math.sqrt(200) / _sigma_of_ten()
    assert log_delta(total[200], mu) == pytest.approx(math.log(1e-5), abs=1e-6)
    assert total[200] == pytest.approx(520, abs=1)


def _sigma_of_ten():
    low, high = 0.1, 10.0
    while high - low > 1e-14:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if log_delta(10.0, 1 / middle) > math.log(1e-5) else (low, middle)
        )
    return high


def test_the_printed_noise_promises_nothing_at_the_printed_equilibrium(values):
    sigma = math.sqrt(2 * math.log(1.25 / 1e-5)) / 98
    found = base.pick(values["fig16"], panel="claimed", reading="fig4-epsilon")
    assert found["x"].to_numpy() == pytest.approx(98)
    true = base.number(found, quantity="true_epsilon")
    assert math.exp(log_delta(98.0, 1 / sigma)) > 0.999999
    assert log_delta(true, 1 / sigma) == pytest.approx(math.log(1e-5), abs=1e-6)
    assert true > 280


def test_the_cap_falls_with_the_number_of_nodes_when_the_mean_counts(values):
    cap = base.curve(values["fig7"], reading="mean", quantity="budget")
    for n in cap.index:
        assert cap[n] == pytest.approx(max(0, 10 - n * n * 0.001 / (n - 1)), abs=1e-9)


def trainings(ours, rival, seeds=3):
    """Return made-up accuracies of two mechanisms, a seed each."""
    return base.table(
        [
            base.rows("accuracy", level, panel=data, reading=noise, series=arm, x=15.0,
                      replication=seed)
            for data in ("EMNIST", "CIFAR-10")
            for noise in training.READINGS
            for arm, accuracy in (("stackelberg", ours), ("ic-mle", rival), ("yang", rival))
            for seed, level in zip(range(seeds), accuracy, strict=True)
        ]
    )  # fmt: skip


def test_a_better_net_counts_only_where_seeds_tell_it_apart():
    clear = rows_of("fig17", trainings((0.50, 0.51, 0.52), (0.30, 0.31, 0.33)))
    assert clear["fig17-ic-mle"].verdict == "holds"
    noisy = rows_of("fig17", trainings((0.50, 0.30, 0.40), (0.45, 0.38, 0.30)))
    assert noisy["fig17-yang"].verdict == "does not hold"
    assert set(clear) == {n for n, c in claims.claims().items() if c.figure == "fig17"}


def test_without_data_the_digits_stand_in_and_are_labelled(tmp_path, monkeypatch):
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    scenarios = training.load(SETTING)
    assert {name.split("|")[0] for name in scenarios} == {training.STAND_IN}
    assert {scenario.training.data.kind for scenario in scenarios.values()} == {"digits"}
    assert all(scenario.training.rounds <= 20 for scenario in scenarios.values())


def test_in_full_the_nets_are_trained_at_the_size_of_the_paper(tmp_path):
    for scenario in training.load(base.Setting(size="full", out=tmp_path)).values():
        settings = scenario.training
        assert (scenario.population.n_nodes, settings.rounds) == (1000, 200)
        assert (settings.local_epochs, settings.batch_size) == (5, 128)
        assert (settings.learning_rate, settings.momentum) == (0.1, 0.9)
        assert settings.data.options["split"] == "paper"


def test_a_training_that_is_there_is_not_done_again(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("FCFN_DATA", str(tmp_path))
    small = base.scenario_of("fig17", [
        *training.FAST, "training.data.kind=digits", "population.n_nodes=4", "training.rounds=2",
    ])  # fmt: skip
    setting = base.Setting(out=tmp_path)
    monkeypatch.setattr(training, "N_SEEDS", {"fast": 2})
    scenarios = {"digits|printed-round": small}
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
    assert len(again) == 2
    last = base.pick(first, quantity="accuracy", x=2.0)
    assert sorted(last["series"].unique()) == ["ic-mle", "no-noise", "stackelberg", "yang"]
    assert last["replication"].nunique() == 2


def test_the_draws_of_a_static_node_do_not_depend_on_the_reading():
    assert list(nodes.NAMES) == ["stackelberg", "static", "random"]
    with pytest.raises(TypeError, match="columns are"):
        base.rows("epsilon", 1.0, serie="ours")
    with pytest.raises(LookupError, match="0 values"):
        base.number(base.rows("epsilon", 1.0), quantity="budget")
