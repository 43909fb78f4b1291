"""What the commands share: the app, its options, and the printing of errors."""

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
    """A command list with the full first paragraph of each help text; click would cut it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((command.help or "").partition("\n\n")[0].split()))
                    for name, command in self.commands.items()
                ]
            )


INTERRUPTED = 130
"""Exit code after an interrupt, as in shells."""


class App(typer.Typer):
    """A typer app that reports this package's errors in one sentence, with an exit code.

    Typer reports usage errors itself. It would print a traceback for our errors, and nothing for an
    interrupt.
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
        """Register a command that reports the errors of this package in one line.

        ``help`` is an argument because ``python -OO`` drops docstrings.
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
        except OSError as error:  # such as a folder without permission, or a name that is too long
            if error.filename is None:  # of a pipe, a socket, a process
                print_message(f"system error: {error.strerror or error}.")
                raise typer.Exit(1) from None
            print_message(f"{abbreviate(str(error.filename))}: {error.strerror}.")
            raise typer.Exit(2) from None
        except MemoryError:
            print_message("not enough memory.")
            raise typer.Exit(1) from None
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(report_interrupt(*interrupt.args)) from None

    return run


def choose_name(scenario: Path) -> str:
    """Return the name for results of a scenario file: its stem, or "scenario" if it is empty."""
    stem = scenario.stem
    return stem if stem.strip(".") and stem != ".toml" else "scenario"


def is_costs_file(path: Path) -> bool:
    """Whether an argument names a file of costs, rather than a scenario."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def report_interrupt(
    message: str = "interrupted; no incomplete result was left in the output folder.",
) -> int:
    """Report what remains after an interrupt, and return the exit code."""
    print_message(message)
    clear_interrupt_mark()
    return INTERRUPTED


app = App("Agent-based simulation of incentive mechanisms for private federated learning.")

ScenarioFile = Annotated[
    Path,
    typer.Argument(
        help="A scenario file (.toml), or the name of a bundled scenario such as quickstart.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value: game.alpha=20. Can be repeated."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        help="Import a plug-in: my_rules.py, my_package.rules. Can be repeated.",
        show_default=False,
    ),
]
Trust = Annotated[bool, typer.Option("--trust", help="Import the plug-ins named in the scenario.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads for training.", show_default="one per core")
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Run on a Dask cluster: the address of its scheduler, or local:4.",
        show_default=False,
    ),
]
Resources = Annotated[
    list[str] | None,
    typer.Option("--resource", help="Resource required of a Dask worker: GPU=1. Can be repeated."),
]
ClusterTimeout = Annotated[
    float | None,
    typer.Option("--cluster-timeout", help="Seconds to wait for the cluster.", show_default="30"),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column with the costs, for a file of costs.", show_default="rho, or cost"),
]
NameColumn = Annotated[
    str | None,
    typer.Option(
        help="Column with the nodes' names, for a file of costs.", show_default="name, or node"
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only the path of the results, without progress."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_PLAIN = re.compile(  # float() also accepts 1_0 and non-ASCII digits
    r"[+-]?(nan|inf|([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?)"  # bounds reject nan and inf
)


def numbers(text: str, option: str) -> list[float]:
    """Parse the numbers of an option."""
    parts = [part.strip(" ") for part in text.split(",")]
    if not all(map(_PLAIN.fullmatch, parts)):
        raise InvalidScenarioError(
            "must be numbers separated by commas, such as 0.1,1,10.", file=f"{option} {text}"
        )
    return [float(part) for part in parts]


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))
