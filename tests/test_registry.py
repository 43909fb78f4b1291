import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Annotated, Literal, Protocol, Self

import pytest
from pydantic import Field, model_validator

from fcfn_abm.build import REGISTRIES
from fcfn_abm.errors import FcfnError, UnknownNameError
from fcfn_abm.registry import OptionError, Registry


class Tune(Protocol):
    def play(self) -> str: ...


@pytest.fixture
def tunes():
    registry = Registry[Tune]("tune")

    @registry.register("march")
    class March(Tune):
        """A march."""

        tempo: Annotated[float, Field(gt=0)] = 120.0
        """Beats per minute."""
        mode: Literal["major", "minor"] = "major"

        @model_validator(mode="after")
        def _check(self) -> Self:
            if self.mode == "minor" and self.tempo > 200:
                raise ValueError("A sad march is slow.")
            return self

        def play(self) -> str:
            return f"{self.mode} {self.tempo:g}"

    @registry.register("song")
    class Song(Tune):
        words: str

    @registry.register("silence")
    class Silence(Tune):
        pass

    return registry


def test_an_entry_is_built_by_name_with_its_options(tunes):
    assert tunes.create("march").play() == "major 120"
    assert tunes.create("march", {"tempo": 60, "mode": "minor"}).play() == "minor 60"
    assert tunes.create("march") == tunes["march"]()
    assert tunes.create("silence", None) == tunes.create("silence", {})


def test_names_come_in_the_order_of_registration(tunes):
    assert list(tunes) == ["march", "song", "silence"]
    assert tunes.options("march") == ["tempo", "mode"]
    assert tunes.options("silence") == []


def test_a_name_is_taken_once_but_by_the_same_class_defined_again(tunes):
    def define(name):
        @tunes.register(name)
        class Waltz(Tune):
            pass

        return Waltz

    assert define("waltz") is not tunes["march"]
    again = define("waltz")
    assert tunes["waltz"] is again
    with pytest.raises(ValueError, match=r"tune .march. is already .*March"):
        define("march")


def test_an_entry_does_not_change_once_built(tunes):
    march = tunes.create("march")
    with pytest.raises(FrozenInstanceError):
        march.tempo = 90.0


def test_the_options_handed_in_are_left_as_they_are(tunes):
    options = {"tempo": 60}
    assert tunes.create("march", options).tempo == 60.0
    assert options == {"tempo": 60}


@pytest.mark.parametrize("use", ["create", "options", "json_schema", "__getitem__"])
def test_an_unknown_name_is_refused_with_a_suggestion(tunes, use):
    with pytest.raises(UnknownNameError) as caught:
        getattr(tunes, use)("mrach")
    expected = "no tune called 'mrach'. Did you mean 'march'? Known: march, silence, song."
    assert str(caught.value) == f"There is {expected}"


@pytest.mark.parametrize(
    ("name", "options", "option", "message"),
    [
        (
            "march",
            {"tempoo": 3},
            "tempoo",
            "the tune 'march' has no such option; it takes tempo, mode. Did you mean 'tempo'?",
        ),
        ("march", {"x": 3}, "x", "the tune 'march' has no such option; it takes tempo, mode."),
        ("silence", {"x": 3}, "x", "the tune 'silence' has no such option; it takes no options."),
        ("march", {"tempo": -1}, "tempo", "input should be greater than 0, but it is -1."),
        ("march", {"mode": "dur"}, "mode", "input should be 'major' or 'minor', but it is 'dur'."),
        ("march", {"mode": "minor", "tempo": 201}, "options", "a sad march is slow."),
        ("song", {}, "words", "is required."),
        ("song", {"words": {}}, "words", "input should be a valid string"),
    ],
)
def test_a_wrong_option_is_named_and_what_is_allowed_is_said(tunes, name, options, option, message):
    with pytest.raises(OptionError) as caught:
        tunes.create(name, options)
    assert (caught.value.option, caught.value.reason) == (option, message)
    assert str(caught.value) == f"{option}: {message}"
    assert isinstance(caught.value, FcfnError)
    assert isinstance(caught.value, ValueError)


def test_the_schema_documents_each_option(tunes):
    schema = tunes.json_schema("march")
    assert schema["properties"]["tempo"]["default"] == 120.0
    assert schema["properties"]["tempo"]["description"] == "Beats per minute."
    assert schema["properties"]["mode"]["enum"] == ["major", "minor"]
    assert schema["additionalProperties"] is False
    assert tunes.json_schema("song")["required"] == ["words"]


def test_two_registries_do_not_share_entries(tunes):
    assert list(Registry[Tune]("tune")) == []
    assert len(list(tunes)) == 3


@pytest.mark.parametrize("path", REGISTRIES)
def test_every_registered_name_is_in_the_shipped_schema(path):
    schema = Path("scenarios/scenario.schema.json").read_text(encoding="utf-8")
    constants = set(re.findall(r'"const": "([^"]+)"', schema))
    missing = sorted(set(REGISTRIES[path]) - constants)
    assert not missing, (
        f"{missing} registered as {REGISTRIES[path].what}, but not in the schema: "
        "run 'fcfn scenarios schema > scenarios/scenario.schema.json'"
    )
