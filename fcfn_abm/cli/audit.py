"""Attacks on the noise."""

from __future__ import annotations

from typing import Annotated

import typer

from fcfn_abm.cli.base import AsJson, Imports, Overrides, ScenarioFile, Trust, app, print_json
from fcfn_abm.cli.terminal import show


@app.command(
    "audit",
    help="Attack a round of a scenario's training, and say which epsilon is disproved.\n\n"
    "The exit code is 1 if a claim is violated.",
)
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
    imports: Imports = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.runs.audit import EPSILONS, audit_scenario, audit_text

    found = audit_scenario(
        load_scenario(scenario, overrides or (), imports=imports or (), trust=trust),
        epsilon or EPSILONS,
        trials=trials,
        confidence=confidence,
        progress=True,
    )
    if as_json:
        print_json(found.facts())
    else:
        show(audit_text(found))
    if not found.holds:
        raise typer.Exit(1)
