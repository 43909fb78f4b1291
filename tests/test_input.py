"""What users give as numbers, as chance and as seeds: taken as NumPy does, or refused."""

import io

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

import fcfn_abm as fa
from fcfn_abm.cli import app
from fcfn_abm.dp import gaussian_sigma
from fcfn_abm.dp.accounting import spent_epsilon
from fcfn_abm.dp.check import max_upload_norm
from fcfn_abm.errors import FcfnError, InvalidGameError, as_floats
from fcfn_abm.game import social_optimum, welfare
from fcfn_abm.population import (
    RHO_DISTRIBUTIONS,
    Population,
    draw_misreport_factors,
    draw_newcomer_costs,
    draw_rho,
    draw_turnover,
    drift_costs,
)
from fcfn_abm.rng import LARGEST_SEED, as_generator, as_seed, stream

SMALL = fa.Scenario.model_validate({"population": {"n_nodes": 4}})
COSTS = [0.1, 0.2, 0.0001, 0.12]
TAKES_COSTS = {  # by the name of the argument
    "nash_equilibrium": ("rho", lambda x: fa.nash_equilibrium(x, budget=4.0)),
    "stackelberg_equilibrium": ("rho", lambda x: fa.stackelberg_equilibrium(x, 1.0, 10.0)),
    "best_response": ("rho", lambda x: fa.best_response(x, 1.0, 4.0)),
    "best_response to others": ("others", lambda x: fa.best_response(1.0, x, 4.0)),
    "payments": ("epsilon", lambda x: fa.payments(x, 4.0)),
    "node_utility": ("rho", lambda x: fa.node_utility([1.0] * 4, x, 4.0)),
    "exploitability": ("epsilon", lambda x: fa.exploitability(x, [1.0] * 4, 4.0)),
    "welfare": (
        "payment",
        lambda x: welfare([1.0] * 4, [1.0] * 4, payment=x, alpha=1.0, beta=10.0),
    ),
    "social_optimum": ("rho", lambda x: social_optimum(x, 1.0, 10.0)),
    "price": ("rho", lambda x: fa.price("random", x, alpha=1.0, beta=10.0, rng=1)),
    "reported costs": (
        "reported_cost",
        lambda x: fa.price("ic-mle", [1.0] * 4, alpha=1.0, beta=10.0, reported_cost=x),
    ),
    "PrivacyMarket": ("rho", lambda x: fa.PrivacyMarket(SMALL, rho=x)),
    "Population": ("true_rho", lambda x: Population.of(x)),
    "gaussian_sigma": ("epsilon", lambda x: gaussian_sigma(x, 1e-5)),
    "spent_epsilon": ("noise_multiplier", lambda x: spent_epsilon(x, 3, 1e-5)),
    "max_upload_norm": ("noise_std", lambda x: max_upload_norm(9, x, 1.0, 1e-6)),
}


@pytest.mark.parametrize("name", TAKES_COSTS)
def test_a_masked_value_is_missing_and_never_played_with_the_number_below(name):
    argument, function = TAKES_COSTS[name]
    masked = np.ma.masked_array(COSTS, mask=[0, 0, 1, 0])
    with pytest.raises(FcfnError, match=rf"^{argument} has missing.*{argument}\[2\] is masked"):
        function(masked)
    with pytest.raises(FcfnError, match=argument):
        function([0.1, np.ma.masked, 0.2, 0.3])
    function(np.ma.masked_array(COSTS, mask=False))  # nothing is masked


@pytest.mark.parametrize("name", TAKES_COSTS)
def test_text_that_is_no_number_is_named_with_its_place(name):
    argument, function = TAKES_COSTS[name]
    for texts in (["0.1", "0,2", "x", "1"], pd.Series(["0.1", "0,2", "x", "1"])):
        with pytest.raises(FcfnError, match=rf"^{argument} must hold.*{argument}\[1\] is '0,2'\.$"):
            function(texts)


def test_a_table_with_decimal_commas_is_refused_by_the_column_that_holds_them():
    table = pd.read_csv(io.StringIO('﻿"node";"rho"\n"1";0,1\n"2";0,2\n'), sep=";")
    with pytest.raises(InvalidGameError, match=r"^rho must hold numbers, but rho\[0\] is '0,1'\.$"):
        fa.nash_equilibrium(table["rho"], budget=4.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0.1", "rho must be a number, but is '0.1'"),
        ([1.0, [2.0, 3.0]], r"rho\[1\] is \[2.0, 3.0\]"),
        ([1.0, 2j], "rho must hold real numbers, but has type complex128"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "rho must hold real numbers"),
        (pd.Series([1, pd.NA], dtype=object), r"rho\[1\] is <NA>"),
        ([1, 10**400], r"rho\[1\] is 1000"),
        ([{"rho": 1.0}], r"rho\[0\] is \{'rho': 1.0\}"),
    ],
    ids=str,
)
def test_what_is_no_row_of_numbers_is_refused_in_one_sentence(value, words):
    with pytest.raises(InvalidGameError, match=words) as refused:
        as_floats("rho", value)
    assert "\n" not in str(refused.value)


def test_numbers_of_every_kind_are_taken_as_they_are():
    floats = np.array([1.0, 2.0])
    assert as_floats("rho", floats) is floats
    for same in ([1, 2], (1.0, 2), ["1", "2.0"], pd.Series([1, 2], dtype="Int64"), floats[:, None]):
        assert_array_equal(as_floats("rho", same).ravel(), floats)


# Chance

SEEDLIKE = {
    "int": lambda: 7,
    "np.int64": lambda: np.int64(7),
    "list": lambda: [7, 8],
    "SeedSequence": lambda: np.random.SeedSequence(7, spawn_key=(1,)),
    "BitGenerator": lambda: np.random.PCG64(7),
    "Generator": lambda: np.random.default_rng(7),
    "RandomState": lambda: np.random.RandomState(7),
}
DRAWS = {
    "price": lambda rng: fa.price("random", COSTS, alpha=1.0, beta=10.0, rng=rng).epsilon,
    "draw_rho": lambda rng: draw_rho(RHO_DISTRIBUTIONS.create("lognormal"), 5, rng),
    "draw_misreport_factors": lambda rng: draw_misreport_factors(30, 0.5, 2.0, rng),
    "draw_turnover": lambda rng: draw_turnover(np.ones(30, dtype=bool), 1.0, 0.5, rng)[1],
    "draw_newcomer_costs": lambda rng: draw_newcomer_costs(
        RHO_DISTRIBUTIONS.create("lognormal"), 30, 5, rng
    ),
    "drift_costs": lambda rng: drift_costs(np.zeros(5), 1.0, 0.1, rng),
}


@pytest.mark.parametrize("kind", SEEDLIKE)
@pytest.mark.parametrize("name", DRAWS)
def test_draws_take_what_numpy_takes_and_are_those_of_numpys_generator(name, kind):
    draw = DRAWS[name]
    expected = draw(np.random.default_rng(SEEDLIKE[kind]()))
    assert_array_equal(draw(SEEDLIKE[kind]()), expected)


@pytest.mark.parametrize("kind", SEEDLIKE)
def test_equal_sources_of_chance_give_equal_markets(kind):
    first, again = (fa.PrivacyMarket(SMALL, rng=SEEDLIKE[kind]()) for _ in range(2))
    first.step()
    again.step()
    assert_array_equal(first.epsilon, again.epsilon)
    assert_array_equal(first.columns.rho, again.columns.rho)


def test_whole_numbers_of_any_kind_are_the_seed_of_the_scenario():
    own = fa.PrivacyMarket(SMALL.model_copy(update={"seed": 7}))
    for seed in (7, np.int64(7), np.uint8(7)):
        assert_array_equal(fa.PrivacyMarket(SMALL, rng=seed).columns.rho, own.columns.rho)
        assert fa.Scenario(seed=seed).seed == 7


@pytest.mark.parametrize(
    "wrong", [-1, 1.5, "seven", [-1], [1.5], {}, object()], ids=lambda wrong: type(wrong).__name__
)
def test_what_numpy_does_not_take_is_refused_in_one_sentence(wrong):
    for take in (as_generator, as_seed, *DRAWS.values(), lambda r: fa.PrivacyMarket(SMALL, rng=r)):
        with pytest.raises(InvalidGameError, match=r"^(rng|a seed) must") as refused:
            take(wrong)
        assert "\n" not in str(refused.value)


# Seeds


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**64, "7", None, 1.0])
def test_a_stream_has_a_seed_of_63_bits(seed):
    with pytest.raises(InvalidGameError, match="a seed must"):
        stream(seed, "market")
    stream(LARGEST_SEED, "market")


COMMANDS = ("run", "sweep", "compare", "calibrate", "view", "audit", "equilibrium")


@pytest.mark.parametrize("seed", [2**63, 2**64, -1])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_seed_that_no_table_can_hold_before_it_runs(
    tmp_path, command, seed
):
    file = tmp_path / "s.toml"
    text = f"seed = {seed}\n[population]\nn_nodes = 12\n[training]\nrounds = 1\n"
    file.write_text(text + ("[sweep]\nreplications = 2\n" if command == "sweep" else ""))
    done = CliRunner().invoke(app, [command, str(file)])
    assert done.exit_code == 2
    assert f"s.toml, seed: input should be {'greater' if seed < 0 else 'less'}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.toml"]


def test_the_largest_seed_is_swept_and_read_back(tmp_path):
    tree = {"seed": LARGEST_SEED, "population": {"n_nodes": 12}, "sweep": {"replications": 2}}
    sweep = fa.run_sweep(fa.Scenario.model_validate(tree), tmp_path / "out")
    assert fa.read_sweep(tmp_path / "out").frame()["seed"].iloc[0] == LARGEST_SEED
    assert sweep.frame()["seed"].iloc[0] == LARGEST_SEED
