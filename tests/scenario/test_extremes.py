"""Numbers at the end of 64 bits: refused in one sentence, or played with finite results.

Pytest turns warnings into errors, so none of NumPy's comes before the sentence.
"""

import numpy as np
import pytest

import fcfn_abm as fa
from fcfn_abm.build import scenario_schema
from fcfn_abm.errors import FcfnError, InvalidGameError, InvalidScenarioError
from fcfn_abm.game import exploitability, payments, privacy_cost, server_utility
from fcfn_abm.mechanisms import price
from fcfn_abm.population import require_sized
from fcfn_abm.scenario.schema import LARGEST, SMALLEST

SHORT = ["population.n_nodes=5", "rounds.maximum=8", "training.enabled=false"]
OUTSIDE = [1e308, 1e200, 1e160, 1e-200, 1e-308, 5e-324]
MONEY = "from 1e-18 to 1e+18"
SIZED = [  # a number of ordinary size, and what else must be said for it to stand
    ("game.alpha", []),
    ("game.beta", []),
    ("game.budget", ["server.kind=fixed"]),
    ("game.epsilon_floor", ["rounds.start=cold"]),
    ("population.rho.median", ["population.rho.kind=lognormal"]),
    ("population.rho.value", ["population.rho.kind=constant"]),
    ("population.rho.high", ["population.rho.kind=uniform"]),
    ("population.rho.minimum", ["population.rho.kind=pareto"]),
    ("population.rho.low", ["population.rho.kind=two-group"]),
    ("population.rho.factor", ["population.rho.kind=outliers"]),
    ("mechanism.low", ["mechanism.kind=random"]),
    ("mechanism.high", ["mechanism.kind=random"]),
    ("mechanism.epsilon", ["mechanism.kind=static"]),
]


def loaded(*overrides):
    return fa.load_scenario("quickstart", [*SHORT, *overrides])


def require_finite(record):
    for frame in (record.rounds.drop(columns="change"), record.nodes):
        numbers = frame.select_dtypes("number").to_numpy(dtype=float, na_value=0.0)
        assert np.isfinite(numbers).all()


@pytest.mark.parametrize("value", OUTSIDE)
@pytest.mark.parametrize(("key", "others"), SIZED)
def test_what_no_money_is_counted_in_is_refused_in_one_sentence(key, others, value):
    with pytest.raises(InvalidScenarioError) as caught:
        loaded(*others, f"{key}={value!r}")
    message = str(caught.value)
    *_, name = key.split(".")
    assert f"] {name}: must " in message
    assert MONEY in message
    assert message.endswith(f"but it is {value!r}.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["population.misreport.factor=1e308"], "less than or equal to 1000000"),
        (["privacy.clipping_norm=1e308"], r"must lie from 1e-30 to 1e\+30"),
        (["training.learning_rate=5e-324"], r"must lie from 1e-30 to 1e\+30"),
        (["privacy.delta=5e-324"], "delta: must not be smaller than 1e-100"),
        (["privacy.check.false_alarm=1e-308"], "must not be smaller than 1e-100"),
        (["learning.gain=5e-324"], "must not be smaller than 1e-18"),
        (["learning.kind=replicator", "learning.gain=5e-324"], "not be smaller than 1e-18"),
        (["learning.kind=aggregate", "learning.largest_step=1e308"], "equal to 1000000"),
        (["server.kind=gradient", "server.finest_step=1e308"], "must not exceed first_step"),
        (["sweep.axes={'game.alpha' = {low = -1e308, high = 1e308, n = 3}}"], r"axes.* low: must"),
    ],
)
def test_other_numbers_have_bounds_of_their_own(overrides, words):
    with pytest.raises(InvalidScenarioError, match=words):
        loaded(*overrides)


@pytest.mark.parametrize("value", [*OUTSIDE, SMALLEST, LARGEST])
@pytest.mark.parametrize(
    "key", ["rounds.tolerance", "rounds.participation", "information.noise", "server.settled"]
)
def test_numbers_that_are_only_compared_may_have_any_size(key, value):
    try:
        scenario = loaded(f"{key}={value!r}")
    except InvalidScenarioError as error:
        assert value > 1
        assert "input should be less than or equal to" in str(error)  # noqa: PT017
    else:
        require_finite(fa.run_scenario(scenario))


@pytest.mark.parametrize("order", ["in_turn", "simultaneous"])
@pytest.mark.parametrize(
    "kind",
    [
        "best-response",
        "gradient",
        "replicator",
        "fictitious-play",
        "estimate",
        "aggregate",
        "exp3",
        "q-learning",
    ],
)
@pytest.mark.parametrize(
    ("cap", "cost"), [(LARGEST, SMALLEST), (SMALLEST, LARGEST), (LARGEST, LARGEST)]
)
def test_all_rules_play_at_the_bounds(order, kind, cap, cost):
    scenario = loaded(
        "server.kind=fixed",
        "rounds.start=cold",
        f"learning.kind={kind}",
        f"rounds.order={order}",
        f"game.budget={cap!r}",
        f"game.beta={LARGEST!r}",
        f"game.alpha={LARGEST!r}",
        f"game.epsilon_floor={cap!r}",
        f"population.rho={{kind = 'two-group', low = {cost!r}, high = {cost!r}}}",
    )
    record = fa.run_scenario(scenario)
    require_finite(record)
    assert (record.rounds["budget"] == cap).all()  # a fixed cap stays, however small
    assert record.traces["epsilon"].max() < np.finfo(np.float32).max


@pytest.mark.parametrize("mechanism", ["random", "static", "ic-mle", "yang"])
@pytest.mark.parametrize("cost", [SMALLEST, LARGEST])
def test_all_mechanisms_play_at_the_bounds(mechanism, cost):
    extremes = {"random": ["mechanism.high=1e18"], "static": ["mechanism.epsilon=1e18"]}
    scenario = loaded(
        f"mechanism.kind={mechanism}",
        *extremes.get(mechanism, []),
        f"population.rho={{kind = 'constant', value = {cost!r}}}",
    )
    try:
        record = fa.run_scenario(scenario)
    except FcfnError as error:
        assert "is out of range for" in str(error)  # noqa: PT017
    else:
        require_finite(record)


def test_costs_that_chance_or_lies_make_extreme_are_refused():
    with pytest.raises(InvalidScenarioError, match=r"\[population.rho\]: rho must lie from 1e-18"):
        loaded("population.rho.kind=lognormal", "population.rho.sigma=20", "population.n_nodes=50")
    with pytest.raises(InvalidScenarioError, match=r"rho\[\d\] = 1e-24 \(5 of 5 values\)"):
        loaded(
            "population.rho={kind = 'constant', value = 1e-18}",
            "population.misreport={share = 1.0, factor = 1e6}",
        )
    for rho in ([1.0, 1.0, 1e200], [1.0, 5e-324, 1.0]):
        with pytest.raises(InvalidGameError, match=rf"rho must lie {MONEY[:12]}"):
            fa.PrivacyMarket(fa.load_scenario("quickstart", ["population.n_nodes=3"]), rho=rho)
        with pytest.raises(InvalidGameError, match="rho must lie from"):
            price("random", rho, alpha=1.0, beta=1.0)
    with pytest.raises(InvalidGameError, match=r"budget must not exceed 1e\+18, but is 1e\+200"):
        price("random", [1.0, 1.0], alpha=1.0, beta=1.0, budget=1e200)
    with pytest.raises(InvalidGameError, match=r"^beta must lie from 1e-18 to 1e\+18, but is 1e-2"):
        require_sized(beta=1e-20)
    require_sized(rho=[SMALLEST, LARGEST])


def test_costs_that_drift_for_ever_stay_within_bounds():
    scenario = loaded(
        "population.churn={drift = 1.0, reversion = 0.0, departures = 0.1, arrivals = 1.0}",
        "population.n_nodes=200",
        "population.rho={kind = 'constant', value = 1e18}",
        "rounds.maximum=60",
    )
    record = fa.run_scenario(scenario)
    require_finite(record)
    rho = record.nodes["rho"]
    assert rho.max() <= LARGEST * (1 + 1e-9)
    assert (rho >= 0.99 * LARGEST).any()  # stopped there
    assert rho.min() < LARGEST / 100  # and free to go the other way


def test_the_schema_tells_the_bounds():
    game = scenario_schema()["$defs"]["Game"]["properties"]
    assert game["alpha"]["minimum"] == SMALLEST
    assert game["alpha"]["maximum"] == LARGEST
    assert game["budget"]["anyOf"][0]["maximum"] == LARGEST


@pytest.mark.parametrize(
    "call",
    [
        lambda: payments([1e308, 1e308], 1.0),
        lambda: privacy_cost([1e200, 1.0], [1e200, 1.0]),
        lambda: server_utility(1.0, 1e10, 1e308, 0.0),
        lambda: exploitability([1e308, 1e308], [1.0, 1.0], 1.0),
        lambda: exploitability([1e200, 1e200], [1e200, 1.0], 1.0),
        lambda: exploitability([1.0, 1.0], [1e10, 1.0], 5e-324),
    ],
)
def test_formulas_refuse_what_has_no_number_for_an_answer(call):
    with pytest.raises(InvalidGameError, match="overflows a 64-bit float"):
        call()


def test_a_pull_past_the_largest_number_keeps_a_node_out():
    assert fa.best_response(1e200, 1e200, 1.0) == 0.0
    assert exploitability([0.0, 1e-300], [1e300, 1.0], 1e-300, epsilon_floor=1e-310) >= 0.0
