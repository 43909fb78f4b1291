"""A change of the public interface shows as a difference, and is accepted by one command."""

import difflib
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from listing import MODULES, REMEDY, list_class, list_interface, listed_lines, signature

import fcfn_abm as fa
from fcfn_abm.errors import MissingExtraError

PACKAGE = Path(fa.__file__).parent


def test_the_public_interface_is_the_one_that_is_listed():
    now = list_interface().splitlines()
    difference = difflib.unified_diff(
        listed_lines(), now, "public_api.txt", "fcfn_abm", n=0, lineterm=""
    )
    changes = "\n".join(difference)
    assert not changes, f"the public interface has changed; {REMEDY}:\n{changes}"


def test_every_package_that_declares_public_names_is_listed():
    declaring = {
        ".".join(path.parent.relative_to(PACKAGE.parent).parts)
        for path in PACKAGE.rglob("__init__.py")
        if re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert declaring == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there_once(name):
    module = import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        with suppress(MissingExtraError):  # an optional dependency is not installed here
            getattr(module, public)


def test_a_listed_function_shows_its_defaults_and_what_is_given_by_name():
    def pay(budget, *, nodes=3, rule=len): ...

    assert signature(pay) == "(budget, *, nodes=3, rule=len)"


def test_a_new_default_and_a_renamed_method_change_a_listed_class():
    class Before:
        def __init__(self, cap=1.0): ...

        def pay(self): ...

    class After:
        def __init__(self, cap=2.0): ...

        def settle(self): ...

    for cls in (Before, After):
        cls.__module__ = "fcfn_abm.example"
    before, after = (list(list_class("Market", cls)) for cls in (Before, After))
    assert set(before) ^ set(after) == {
        *("Market(cap=1.0)", "Market.pay()"),
        *("Market(cap=2.0)", "Market.settle()"),
    }
