"""What the commands have in common: the app, its options, and how errors are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fcfn_abm.cli.terminal import print_message, say
from fcfn_abm.errors import FcfnError, InvalidScenarioError, RunFailedError, abbreviate
from fcfn_abm.process.interrupts import clear_interrupt_mark, obey_interrupts


class _Group(TyperGroup):
    """A list of commands that tells the first sentence of each whole; click's own cuts it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((command.help or "").partition("\n\n")[0].split()))
                    for name, command in self.commands.items()
                ]
            )


INTERRUPTED = 130
"""Exit code, as shells have it."""


class App(typer.Typer):
    """A typer app whose commands turn our errors into one sentence and an exit code.

    Typer itself sees to usage errors; it would print a traceback for ours, and end an
    interrupted command without a word.
    """

    def __init__(self, help: str) -> None:  # noqa: A002 - typer's name
        super().__init__(
            cls=_Group,
            help=help,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def command(self, name: str | None = None, **kwargs: Any) -> Callable[..., Any]:
        """Register a command, which prints the errors of this package in one line.

        Its ``help`` is a text of its own, since ``python -OO`` drops docstrings.
        """
        register = super().command(name, **kwargs)
        return lambda function: register(_report_errors(function))


def _report_errors(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with obey_interrupts():
                function(*args, **kwargs)
        except FcfnError as error:
            print_message(error)
            raise typer.Exit(1 if isinstance(error, RunFailedError) else 2) from None
        except OSError as error:  # a folder that nobody may look into, a name that is too long
            if error.filename is None:  # of a pipe, a socket, a process
                print_message(f"the system says: {error.strerror or error}.")
                raise typer.Exit(1) from None
            print_message(f"{abbreviate(str(error.filename))}: {error.strerror}.")
            raise typer.Exit(2) from None
        except MemoryError:
            print_message("there is not enough memory for this.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(report_interrupt(*interrupt.args)) from None

    return run


def choose_name(scenario: Path) -> str:
    """Return the name of what a scenario file leads to: its own, or "scenario" if it has none."""
    stem = scenario.stem
    return stem if stem.strip(".") and stem != ".toml" else "scenario"


def is_costs_file(path: Path) -> bool:
    """Whether an argument names a file of costs, and not a scenario."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def report_interrupt(
    message: str = "interrupted; nothing unfinished is left under the final name.",
) -> int:
    """Say what an interrupt left, and return the exit code."""
    print_message(message)
    clear_interrupt_mark()
    return INTERRUPTED


app = App("Agent-based simulation of incentive mechanisms for private federated learning.")

ScenarioFile = Annotated[
    Path,
    typer.Argument(
        help="A scenario file, .toml, or the name of a shipped one: quickstart.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value: game.alpha=20. May be repeated."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Import a plug-in first: my_rules.py, my_package.rules. May be repeated.",
        show_default=False,
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Import the plug-ins that the scenario names.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads that train.", show_default="one a core")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Work on a Dask cluster: the address of its scheduler, or local:4.",
        show_default=False,
    ),
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", help="What a Dask worker must have: GPU=1. May be repeated."),
]
ClusterTimeout = Annotated[
    float | None,
    typer.Option(
        "--cluster-timeout", help="Seconds within which the cluster must answer.", show_default="30"
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        help="In a file of costs: the column that holds them.", show_default="rho, or cost"
    ),
]
NameColumn = Annotated[
    str | None,
    typer.Option(
        help="In a file of costs: the column with the nodes' names.", show_default="name, or node"
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only where the results lie, and no progress."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


_PLAIN = re.compile(  # Python's own takes 1_0 for 10, and the digits of all scripts
    r"[+-]?(nan|inf|([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?)"  # a bound refuses nan, inf
)


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of an option."""
    parts = [part.strip(" ") for part in text.split(",")]
    if not all(map(_PLAIN.fullmatch, parts)):
        raise InvalidScenarioError(
            "must be numbers with commas between, such as 0.1,1,10.", file=f"{option} {text}"
        )
    return [float(part) for part in parts]


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    say(json.dumps(value, indent=2, ensure_ascii=False))
