"""The command line: each command parses, calls one public function, and prints.

Results go to stdout; progress and messages to stderr. Exit codes: 0, 1 (the run failed, or an
audit found a claim violated), 2 (the user's mistake), 130 (interrupted).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from fcfn_abm import __version__
from fcfn_abm.errors import FcfnError, InvalidScenarioError, RunFailedError


class _App(typer.Typer):
    """A typer app whose commands turn our errors into one sentence and an exit code.

    Typer itself sees to usage errors; it would print a traceback for ours, and end an
    interrupted command without a word.
    """

    def __init__(self, help: str) -> None:  # noqa: A002 - typer's name
        super().__init__(
            help=help,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def command(self, name: str | None = None, **kwargs: Any) -> Callable[..., Any]:
        register = super().command(name, **kwargs)
        return lambda function: register(_guarded(function))


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except FcfnError as error:
            typer.echo(f"fcfn: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, RunFailedError) else 2) from None
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(_interrupted(*interrupt.args)) from None

    return guarded


def _interrupted(told: str = "interrupted; nothing was left under the final name.") -> int:
    typer.echo(f"fcfn: {told}", err=True)
    # an interrupt that passed through an exec of text, as in torch's imports, leaves a mark by
    # which CPython ends with signal 2 whatever the exit code; the next exec wipes it out
    exec("")  # noqa: S102
    return 130


app = _App("Agent-based simulation of incentive mechanisms for private federated learning.")
scenarios = _App("Check scenario files, and say what may stand in them.")
app.add_typer(scenarios, name="scenarios")
data = _App("Say which data sets are on this machine, and get those that are not.")
app.add_typer(data, name="data")

ScenarioFile = Annotated[Path, typer.Argument(help="A scenario file, .toml.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value: game.alpha=20. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fcfn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that becomes the record.", show_default="results/NAME"),
    ] = None,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that train.", show_default="one a core")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a record of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one scenario: play the market, train with what it bought, write the record."""
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.summary import summary
    from fcfn_abm.runs.run import run_scenario

    out = Path("results") / scenario.stem if out is None else out
    loaded = load_scenario(scenario, overrides or ())
    if loaded.sweep:
        raise InvalidScenarioError(
            f"{scenario}: has a [sweep] and stands for many runs: 'fcfn sweep' carries them out."
        )
    record = run_scenario(
        loaded, out, overwrite=overwrite, progress=True, workers=workers or os.cpu_count() or 1
    )
    if as_json:
        _print_json({**record.run, "path": str(record.path)})
    else:
        typer.echo(summary(record))
        typer.echo(f"\nThe record lies in {record.path} (figures in {out / 'figures'}).")


@app.command()
def sweep(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; if it is there, what is missing in it is run.",
            show_default="results/NAME-sweep",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine.", show_default="one for each core"),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Run on a Dask cluster: the address of its scheduler, or local:4.",
            show_default=False,
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(help="What a Dask worker must have: GPU=1. May be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many runs there are, and how long.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run what failed again.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Carry out the many runs of a scenario's [sweep], into one table."""
    from fcfn_abm.build import load_scenario
    from fcfn_abm.runs.executors import workers_of
    from fcfn_abm.runs.sweep import plan_sweep, plan_text, run_sweep, sweep_text

    out = Path("results") / f"{scenario.stem}-sweep" if out is None else out
    place = workers_of(workers, cluster, resource or ())
    loaded = load_scenario(scenario, overrides or ())
    if dry_run:
        plan = plan_sweep(loaded, out, getattr(place, "n_workers", 1))
        _print_json(plan.facts()) if as_json else typer.echo(plan_text(plan))
        return
    try:
        found = run_sweep(loaded, out, place, retry=retry, progress=True)
    except KeyboardInterrupt:
        told = (
            f"interrupted; the runs that ended are in {out}: the same command goes on from there."
        )
        raise typer.Exit(_interrupted(told)) from None
    if as_json:
        _print_json({**found.run, "counts": found.counts(), "path": str(found.path)})
    else:
        typer.echo(sweep_text(found))


@app.command()
def compare(
    scenario: ScenarioFile,
    mechanisms: Annotated[
        str | None,
        typer.Option(help="Names with commas between.", show_default="all"),
    ] = None,
    replications: Annotated[int, typer.Option(help="How many populations are drawn.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that takes table and figure.", show_default="results/NAME-comparison"
        ),
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a record of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Price the same populations with several mechanisms, under the same cap."""
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.compare import comparison_text
    from fcfn_abm.runs.compare import compare_mechanisms

    out = Path("results") / f"{scenario.stem}-comparison" if out is None else out
    names = None if mechanisms is None else [n.strip() for n in mechanisms.split(",") if n.strip()]
    found = compare_mechanisms(
        load_scenario(scenario, overrides or ()),
        names,
        replications,
        out,
        overwrite=overwrite,
        progress=True,
    )
    if as_json:
        _print_json({**found.run, "path": str(found.path)})
    else:
        typer.echo(comparison_text(found.frame, found.run))
        typer.echo(f"\nThe table lies in {found.path} (the figure in {out / 'figures'}).")


@app.command()
def calibrate(
    scenario: ScenarioFile,
    epsilons: Annotated[
        str | None,
        typer.Option(
            help="What all nodes train with, numbers with commas between.",
            show_default="eight around those of the equilibrium",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="How often each is trained.")] = 3,
    value: Annotated[
        float, typer.Option(help="What accuracy from 0 to 100 % is worth, in currency a round.")
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that takes table, figure and scenario.",
            show_default="results/NAME-calibration",
        ),
    ] = None,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a record of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train at several epsilons, fit game.alpha and game.beta, and write a scenario with them."""
    from fcfn_abm.build import load_scenario
    from fcfn_abm.report.calibrate import calibration_text
    from fcfn_abm.runs.calibrate import CALIBRATED, calibrate_value

    out = Path("results") / f"{scenario.stem}-calibration" if out is None else out
    grid = None if epsilons is None else _numbers(epsilons, "--epsilons")
    try:
        found = calibrate_value(
            load_scenario(scenario, overrides or ()),
            grid,
            seeds,
            out,
            value=value,
            overwrite=overwrite,
            progress=True,
        )
    except KeyboardInterrupt:
        told = (
            "interrupted; the trainings that ended are kept: the same command goes on from there."
        )
        raise typer.Exit(_interrupted(told)) from None
    if as_json:
        _print_json({**found.run, "path": str(found.path)})
    else:
        typer.echo(calibration_text(found.run))
        typer.echo(
            f"\nThe calibrated scenario: {out / CALIBRATED} (the figure in {out / 'figures'})."
        )


@app.command()
def equilibrium(
    scenario: ScenarioFile, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Print the closed form of a scenario's game, without playing it."""
    from fcfn_abm.build import load_scenario, population, reference
    from fcfn_abm.report.summary import equilibrium_table
    from fcfn_abm.runs.facts import reference_facts

    loaded = load_scenario(scenario, overrides or ())
    rho = population(loaded)
    facts = reference_facts(reference(loaded, rho), rho)
    if as_json:
        _print_json(facts)
    else:
        typer.echo(f"{loaded.title or scenario.stem}: {loaded.population.n_nodes} nodes")
        typer.echo(equilibrium_table(facts))


@app.command("audit")
def audit_command(
    scenario: ScenarioFile,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="A claim for one round. May be repeated.", show_default="1, 4, 10"),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="How often a round is run for each claim.",
            show_default="10,000, or 2,000 with several local steps",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Probability with which no lower bound is above the truth.")
    ] = 0.999,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Attack a round of a scenario's training, and say which epsilon is disproved.

    The exit code is 1 if a claim is violated.
    """
    from fcfn_abm.build import load_scenario
    from fcfn_abm.runs.audit import EPSILONS, audit_scenario, audit_text

    found = audit_scenario(
        load_scenario(scenario, overrides or ()),
        epsilon or EPSILONS,
        trials=trials,
        confidence=confidence,
        progress=True,
    )
    if as_json:
        _print_json(found.facts())
    else:
        typer.echo(audit_text(found))
    if not found.holds:
        raise typer.Exit(1)


@data.command("list")
def list_data() -> None:
    """List the data sets, and where they lie."""
    from fcfn_abm.report.summary import table
    from fcfn_abm.runs.data import listing
    from fcfn_abm.training.sources import data_folder

    typer.echo(f"Data sets in {data_folder()} (FCFN_DATA names another folder)")
    typer.echo(table(["", "train", "test", "classes", ""], listing()))


@data.command("prepare")
def prepare_data(
    names: Annotated[list[str], typer.Argument(help="Data sets, as listed.", show_default=False)],
) -> None:
    """Download data sets that are missing, and check them."""
    from fcfn_abm.runs.data import prepare

    for name in names:
        typer.echo(prepare(name))


@scenarios.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Scenario files.", show_default=False)],
) -> None:
    """Check scenario files; say one sentence for each that is not right."""
    from fcfn_abm.build import load_scenario

    wrong = 0
    for path in files:
        try:
            load_scenario(path)
        except FcfnError as error:
            typer.echo(f"fcfn: {error}", err=True)
            wrong += 1
        else:
            typer.echo(f"{path}: ok")
    if wrong:
        raise typer.Exit(2)


@scenarios.command()
def schema() -> None:
    """Print the JSON schema of scenario files, for editors."""
    from fcfn_abm.build import scenario_schema

    _print_json(scenario_schema())


@scenarios.command("list")
def list_scenarios(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("scenarios"),
) -> None:
    """List the scenario files of a folder with their titles."""
    from fcfn_abm.build import shipped_scenarios

    found = list(shipped_scenarios(folder))
    if not found:
        raise InvalidScenarioError(f"{folder}: there are no scenario files (*.toml) here.")
    width = max(len(str(path)) for path, _ in found)
    for path, title in found:
        typer.echo(f"{path!s:{width}}  {title}".rstrip())


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidScenarioError(
            f"{option} {text}: must be numbers with commas between, such as 0.1,1,10."
        ) from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(_interrupted())
