"""What every public function says to a bad argument: a sentence of ours, and no other exception."""

import contextlib
import pathlib

import numpy as np
import pandas as pd
import pytest
from plugins_of_tests import forget_plugins

import fcfn_abm as fa
from fcfn_abm import game

TINY = {
    "seed": 1,
    "game": {"budget": 2.0},
    "population": {"n_nodes": 3},
    "rounds": {"maximum": 4},
}
SWEEP = {
    **TINY,
    "record": {"traces": "all"},
    "sweep": {"keep": "record", "axes": {"game.alpha": [1.0, 2.0]}},
}
SOBOL = {
    **TINY,
    "sweep": {
        "mode": "sobol",
        "n_samples": 2,
        "axes": {"game.alpha": {"low": 1.0, "high": 2.0}, "game.beta": {"low": 1.0, "high": 2.0}},
    },
}
BENCH = {
    **TINY,
    "bench": {"budgets": [2.0], "replications": 2, "mechanisms": ["stackelberg", "random"]},
}
RHO, ALPHA_BETA = [1.0, 1.2], {"alpha": 10.0, "beta": 10.0}

BAD = {
    "empty list": [],
    "empty tuple": (),
    "empty dict": {},
    "list of None": [None],
    "rows": [[1.0, 2.0], [3.0, 4.0]],
    "rows of several lengths": [[1.0], [2.0, 3.0]],
    "cube": np.ones((2, 2, 2)),
    "set": {1},
    "text": "no such name",
    "number as text": "1",
    "empty text": "",
    "text with NUL": "a\0b",
    "text that is not UTF-8": "\udcff",
    "bytes": b"x",
    "array of text": np.array(["a", "b"]),
    "array of dates": np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"),
    "masked": np.ma.masked_array([1.0, 2.0], mask=[True, False]),
    "NaN": np.nan,
    "infinity": np.inf,
    "negative": -1.0,
    "zero": 0,
    "fraction": 3.5,
    "true": True,
    "complex": 1j,
    "larger than floats": 10**400,
    "too long to print": 10**5000,
    "object": object(),
    "class": int,
    "function": len,
    "path": pathlib.Path("nowhere"),
    "frame": pd.DataFrame({"a": [1]}),
}
TRAINING = pd.DataFrame({"round": [1, 2], "arm": ["game", "game"], "accuracy": [0.1, 0.2]})
ARMS = [{"name": "game", "n_nodes": 3, "private": True, "node_utility": 1.0, "n_losing": 0}]
LEDGER = pd.DataFrame({"round": [1], "epsilon_round": [0.1], "epsilon_total": [0.1]})


class Made:
    """What several tests read: a record, a sweep, a market, made once."""

    def __init__(self, folder):
        self.folder = folder
        self.scenario = fa.Scenario.model_validate(TINY)
        self.record = fa.run_scenario(self.scenario, folder / "record")
        self.stored = fa.read_record(folder / "record")
        self.sweep = fa.run_sweep(fa.Scenario.model_validate(SWEEP), folder / "sweep")
        self.sobol = fa.run_sweep(fa.Scenario.model_validate(SOBOL), folder / "sobol")
        self.bench = fa.run_bench(fa.Scenario.model_validate(BENCH), folder / "bench")
        self.comparison = fa.compare_mechanisms(self.scenario, ["random"], replications=1)
        self.market = fa.PrivacyMarket(self.scenario)
        self.fixed = fa.PrivacyMarket(
            fa.Scenario.model_validate({**TINY, "server": {"kind": "fixed"}})
        )
        self.costs = folder / "costs.csv"
        self.costs.write_text("name,rho\na,0.1\nb,0.2\n")
        self.plugin = folder / "my_rules.py"
        self.plugin.write_text("X = 1\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    yield Made(tmp_path_factory.mktemp("made"))
    forget_plugins()


def doors(made):
    """Return every public function, and arguments that are right but for what the test changes."""
    scenario = made.scenario
    trains = fa.Scenario.model_validate({**TINY, "training": {"rounds": 1}})
    return {
        "bayes_nash_equilibrium": {
            "types": [0.5, 3.0],
            "probabilities": [0.5, 0.5],
            "n_nodes": 3,
            "budget": 1.0,
        },
        "best_response": {"rho": RHO, "others": [1.0, 1.0], "budget": 1.0, "epsilon_floor": 1e-6},
        "calibrate_value": {  # of one epsilon there is no fit, and nothing is trained
            "scenario": trains,
            "epsilons": [1.0],
            "seeds": 1,
            "value": 1.0,
            "out": None,
            "workers": 1,
        },
        "check_mechanism": {"mechanism": "random", "games": 1, "seed": 0, "n_nodes": 3},
        "compare_mechanisms": {
            "scenario": scenario,
            "mechanisms": ["random"],
            "replications": 1,
            "out": None,
        },
        "contest_equilibrium": {"rho": RHO, "budget": 1.0, "terms": fa.Terms()},
        "exploitability": {"epsilon": [1.0, 1.0], "rho": RHO, "budget": 1.0, "epsilon_floor": 1e-6},
        "export_plan": {"record": made.record, "out": None, "format": "json"},
        "gaussian_delta": {"epsilon": 1.0, "sigma": 1.0, "sensitivity": 1.0},
        "gaussian_epsilon": {"sigma": 1.0, "delta": 1e-5, "sensitivity": 1.0},
        "gaussian_sigma": {
            "epsilon": 1.0,
            "delta": 1e-5,
            "sensitivity": 1.0,
            "calibration": "analytic",
        },
        "import_plugin": {"source": made.plugin, "folder": None},
        "load_costs": {"path": made.costs, "overrides": (), "column": "rho", "name_column": "name"},
        "load_scenario": {"path": "quickstart", "overrides": (), "imports": ()},
        "nash_equilibrium": {"rho": RHO, "budget": 1.0},
        "node_utility": {"epsilon": [1.0, 1.0], "rho": RHO, "budget": 1.0, "fixed_cost": 0.0},
        "payments": {"epsilon": [1.0, 1.0], "budget": 1.0},
        "price": dict(
            mechanism="stackelberg",
            rho=RHO,
            **ALPHA_BETA,
            budget=1.0,
            average_over="active",
            reported_cost=RHO,
            rng=1,
        ),
        "read_record": {"path": made.record.path},
        "read_sweep": {"path": made.sweep.path},
        "run_scenario": {"scenario": scenario, "out": None, "workers": 1},
        "read_bench": {"path": made.bench.path},
        "run_bench": {"scenario": made.bench.scenario, "out": made.bench.path, "workers": None},
        "run_sweep": {"scenario": made.sweep.scenario, "out": made.sweep.path, "executor": None},
        "search_best_cap": dict(rho=RHO, **ALPHA_BETA, terms=fa.Terms(), average_over="active"),
        "server_utility": dict(mean_epsilon=1.0, **ALPHA_BETA, paid=1.0),
        "stackelberg_equilibrium": dict(rho=RHO, **ALPHA_BETA, average_over="active"),
        "write_report": {
            "path": made.record.path,
            "out": None,
            "form": "md",
            "figures": "svg",
        },
        "Claims": {"individually_rational": ("nodes",), "incentive_compatible": ("cost",)},
        "PrivacyMarket": {
            "scenario": scenario,
            "rho": [1.0, 1.1, 1.2],
            "rng": 1,
            "population": None,
            "node_class": None,
            "n_nodes": 3,
            "alpha": 10.0,
            "beta": 10.0,
            "budget": 2.0,
            "seed": 1,
        },
        "Terms": {
            "cost": "linear",
            "epsilon_max": np.inf,
            "fixed_cost": 0.0,
            "reserve": 0.0,
            "epsilon_floor": 1e-6,
        },
    }


def methods(made):
    """Return methods of public classes, figures, and functions of `fcfn_abm.game`, likewise."""
    record, sweep, frame = made.record, made.sweep, made.sweep.frame()
    return {
        "PrivacyMarket.run_until": (made.market.run_until, {"end_time": 1}),
        "PrivacyMarket.set_rho": (made.market.set_rho, {"rows": [0, 1], "values": 1.0}),
        "PrivacyMarket.set_game": (made.fixed.set_game, dict(**ALPHA_BETA, budget=2.0)),
        "Record.traces_of": (made.stored.traces_of, {"nodes": [0], "columns": ["epsilon"]}),
        "Record.write": (record.write, {"path": "new"}),
        "Sweep.record": (sweep.record, {"run": 0}),
        "Sweep.sensitivity": (made.sobol.sensitivity, {"outcomes": ["welfare"]}),
        "plot.accuracy": (
            fa.plot.accuracy,
            {"training": TRAINING, "arms": ARMS, "data_label": "digits"},
        ),
        "plot.calibration": (fa.plot.calibration, {"frame": TRAINING, "run": {"fit": {}}}),
        "plot.comparison": (fa.plot.comparison, {"frame": made.comparison}),
        "plot.convergence": (
            fa.plot.convergence,
            {"rounds": record.rounds, "traces": record.traces, "total_epsilon": 1.0},
        ),
        "plot.equilibrium": (fa.plot.equilibrium, {"game": fa.nash_equilibrium(RHO, 1.0)}),
        "plot.ledger": (fa.plot.ledger, {"ledger": LEDGER, "delta": 1e-5}),
        "plot.participation": (
            fa.plot.participation,
            {"rounds": record.rounds, "nodes": record.nodes},
        ),
        "plot.rho_against_epsilon": (
            fa.plot.rho_against_epsilon,
            {"nodes": record.nodes, "threshold": 1.0},
        ),
        "plot.sweep_outcome": (
            fa.plot.sweep_outcome,
            {"frame": frame, "axis": "game.alpha", "outcome": "welfare", "by": None},
        ),
        "plot.sweep_overview": (
            fa.plot.sweep_overview,
            {"frame": frame, "axes": ["game.alpha"], "outcomes": ["welfare"], "all_axes": None},
        ),
        "game.averaged_nodes": (
            game.averaged_nodes,
            {"average_over": "active", "epsilon": [1.0, 1.0]},
        ),
        "game.epsilon_ceiling": (game.epsilon_ceiling, {"rho": RHO, "budget": 1.0}),
        "game.privacy_cost_ceiling": (game.privacy_cost_ceiling, {**ALPHA_BETA, "n_nodes": 3}),
        "game.social_optimum": (
            game.social_optimum,
            {"rho": RHO, **ALPHA_BETA, "average_over": "active"},
        ),
        "game.tullock_equilibrium": (
            game.tullock_equilibrium,
            {"rho": RHO, "budget": 1.0, "exponent": 0.9},
        ),
        "game.welfare": (
            game.welfare,
            {"epsilon": RHO, "rho": RHO, "payment": RHO, **ALPHA_BETA, "average_over": "active"},
        ),
        "plot.utilities": (
            fa.plot.utilities,
            {"rounds": record.rounds, "equilibrium": record.run["equilibrium"]},
        ),
    }


RESULTS = {  # classes that these functions return: nobody makes one of bad arguments
    "BayesNashEquilibrium",
    "Benchmark",
    "Comparison",
    "ContestEquilibrium",
    "Equilibrium",
    "FcfnError",
    "MechanismCheck",
    "Outcome",
    "Plugin",
    "Record",
    "StackelbergEquilibrium",
    "Sweep",
    "ValueCalibration",
}
ELSEWHERE = {"Scenario", "env", "plot"}  # pydantic's own errors; an extra; a module, below
FUNCTIONS = sorted(set(fa.__all__) - RESULTS - ELSEWHERE)
METHODS = [
    "PrivacyMarket.run_until",
    "PrivacyMarket.set_game",
    "PrivacyMarket.set_rho",
    "Record.traces_of",
    "Record.write",
    "Sweep.record",
    "Sweep.sensitivity",
    "game.averaged_nodes",
    "game.epsilon_ceiling",
    "game.privacy_cost_ceiling",
    "game.social_optimum",
    "game.tullock_equilibrium",
    "game.welfare",
    *(f"plot.{name}" for name in fa.plot.__all__),
]
REFUSED = {"calibrate_value", "export_plan", "plot.calibration"}  # right ones would train


def say_what_escapes(function, arguments):
    """Return what a function raises that is no error of ours, for each bad argument."""
    escaped = []
    for name in arguments:
        for kind, bad in BAD.items():
            try:
                function(**{**arguments, name: bad})
            except fa.FcfnError as error:
                if not str(error).strip() or "\n" in str(error):
                    escaped.append(f"{name} = {kind}: no sentence: {error}")
            except Exception as error:
                escaped.append(f"{name} = {kind}: {type(error).__name__}: {error}")
    return escaped


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_refuses_a_bad_argument_in_a_sentence(name, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, arguments = getattr(fa, name), doors(made)[name]
    if name not in REFUSED:
        function(**arguments)  # so that the bad argument is what is refused
    assert not say_what_escapes(function, arguments)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_or_a_figure_refuses_a_bad_argument_in_a_sentence(
    name, made, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    function, arguments = methods(made)[name]
    if name not in REFUSED:
        function(**arguments)
    assert not say_what_escapes(function, arguments)


def test_an_environment_refuses_bad_arguments_in_a_sentence(made):
    pytest.importorskip("pettingzoo")
    assert not say_what_escapes(fa.env, {"scenario": made.scenario, "rho": [1.0, 1.1, 1.2]})
    market = fa.env(made.scenario)
    assert not say_what_escapes(market.reset, {"seed": 1})
    market.reset(seed=1)
    assert not say_what_escapes(market.step, {"actions": dict.fromkeys(market.agents, 0.5)})
    for bad in BAD.values():
        with contextlib.suppress(fa.FcfnError):
            market.step(dict.fromkeys(market.agents, bad))
        market.reset(seed=1)


def test_every_bad_number_is_refused_where_one_number_is_asked_for():
    accepted = []
    for kind in set(BAD) - {"fraction", "true", "zero"}:
        try:
            fa.node_utility([1.0, 1.0], RHO, BAD[kind])
        except fa.FcfnError:
            continue
        accepted.append(kind)
    assert accepted == []
