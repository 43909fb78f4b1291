import copy
import pickle

import numpy as np
import pytest

from fcfn_abm import errors
from fcfn_abm.errors import (
    FcfnError,
    InvalidGameError,
    InvalidPrivacyError,
    InvalidScenarioError,
    MissingExtraError,
    OutputError,
    UnknownNameError,
    did_you_mean,
    escape_control_characters,
    require_between,
    require_positive,
)
from fcfn_abm.registry import OptionError


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "no."),
        ({"file": "a.toml"}, "a.toml: no."),
        ({"file": "a.toml", "key": "seed"}, "a.toml, seed: no."),
        ({"file": "a.toml", "table": "game"}, "a.toml, [game]: no."),
        ({"file": "--set x=1", "table": "game", "key": "alpha"}, "--set x=1, [game] alpha: no."),
        ({"table": "game", "key": "alpha"}, "[game] alpha: no."),
        (
            {"file": "a.toml", "table": "churn", "conflict": "[training]"},
            "a.toml, [churn] conflicts with [training]: no.",
        ),
    ],
)
def test_the_message_of_an_invalid_scenario_is_composed_of_its_data(place, message):
    error = InvalidScenarioError("no.", **place)
    assert str(error) == message
    assert error.reason == "no."
    for name in ("file", "table", "key", "conflict"):
        assert getattr(error, name) == place.get(name)


@pytest.mark.parametrize("move", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
@pytest.mark.parametrize(
    "error",
    [
        InvalidScenarioError("no.", file="a.toml", table="game", key="alpha"),
        InvalidScenarioError("long " * 1000, file="a.toml"),
        UnknownNameError("rule", "x", ["y"]),
        OptionError("gain", "is required."),
        OutputError("a: exists."),
        MissingExtraError("needs torch."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_travels_between_processes_whole(error, move):
    moved = move(error)
    assert type(moved) is type(error)
    assert (str(moved), moved.args, vars(moved)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidGameError", ValueError),
        ("InvalidPrivacyError", ValueError),
        ("InvalidScenarioError", ValueError),
        ("InvalidRecordError", ValueError),
        ("InvalidDataError", ValueError),
        ("OutputError", OSError),
        ("MissingExtraError", ImportError),
        ("UnknownNameError", LookupError),
        ("RunFailedError", RuntimeError),
    ],
)
def test_every_error_is_ours_and_the_builtin_that_a_user_would_catch(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, FcfnError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("value", "zero", "sentence"),
    [
        (-0.2, False, "rho must be positive and finite, but is -0.2."),
        (0, False, "rho must be positive and finite, but is 0."),
        (-1, True, "rho must be zero or positive, and finite, but is -1."),
        (np.inf, True, "rho must be zero or positive, and finite, but is inf."),
        (
            [1, -3, np.nan],
            False,
            "rho must be positive and finite, but rho[1] = -3 (2 of 3 values).",
        ),
        (
            [[1.0, 2.0], [np.nan, 0.0]],
            True,
            "rho must be zero or positive, and finite, but rho[1, 0] = nan (1 of 4 values).",
        ),
    ],
)
def test_the_sentence_names_what_where_and_what_is_allowed(value, zero, sentence):
    with pytest.raises(InvalidGameError) as caught:
        require_positive(zero=zero, rho=value)
    assert str(caught.value) == sentence


def test_the_first_wrong_value_of_many_is_the_one_named():
    with pytest.raises(InvalidGameError, match="beta must be positive and finite, but is -1"):
        require_positive(alpha=1.0, beta=-1.0, gamma=-2.0)


@pytest.mark.parametrize("value", [1.0, 5e-324, [1, 2], [], np.float32(3)])
def test_what_is_allowed_passes(value):
    require_positive(rho=value)
    require_positive(zero=True, rho=value, budget=0.0)


def test_the_kind_of_error_is_the_callers_choice():
    with pytest.raises(InvalidPrivacyError):
        require_positive(error=InvalidPrivacyError, sigma=0.0)
    with pytest.raises(InvalidPrivacyError):
        require_between(0, 1, error=InvalidPrivacyError, delta=2.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, np.nan, [0.5, 1.0]])
def test_the_ends_of_an_interval_are_outside(value):
    with pytest.raises(InvalidGameError, match="delta must lie between 0 and 1, but is "):
        require_between(0, 1, delta=value)
    require_between(0, 1, delta=[1e-9, 0.5, 1 - 1e-9])


def test_the_value_outside_the_interval_is_the_one_named():
    with pytest.raises(InvalidGameError, match="delta must lie between 0 and 1, but is 7"):
        require_between(0, 1, delta=[0.5, 7.0, 0.1])


def test_an_unknown_name_comes_with_what_was_meant_and_what_is_known():
    close = UnknownNameError("mechanism", "statik", {"static": 1, "random": 2})
    expected = (
        "There is no mechanism called 'statik'. Did you mean 'static'? Known: random, static."
    )
    assert str(close) == expected
    far = UnknownNameError("mechanism", "xyz", ["static", "random"])
    assert str(far) == "There is no mechanism called 'xyz'. Known: random, static."


def test_suggestions_are_made_for_near_misses_only():
    assert did_you_mean("budgte", ["alpha", "budget"]) == " Did you mean 'budget'?"
    assert did_you_mean("qqq", ["alpha", "budget"]) == ""
    assert did_you_mean("alpha", []) == ""


def test_what_would_steer_a_terminal_is_written_out():
    assert (
        escape_control_characters("a\tb\n\x1b[1m\r\x9b\x7f")
        == "a\tb\n\\u001b[1m\\u000d\\u009b\\u007f"
    )
    assert escape_control_characters("\u202ex\u2066\u2028") == "\\u202ex\\u2066\\u2028"
    assert escape_control_characters("\u8bd5 \u00e4 \U0001f600 \u200d \u202f") == (
        "\u8bd5 \u00e4 \U0001f600 \u200d \u202f"
    )
