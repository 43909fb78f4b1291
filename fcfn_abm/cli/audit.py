"""Privacy audits: attacks on the training."""

from __future__ import annotations

from typing import Annotated

import typer

from fcfn_abm.cli.base import AsJson, Imports, Overrides, ScenarioFile, Trust, app, print_json
from fcfn_abm.cli.terminal import show


@app.command(
    "audit",
    help="Attack a scenario's training with a canary and report lower bounds of epsilon.\n\n"
    "The exit code is 1 if a lower bound exceeds the claimed epsilon.",
)
def audit_command(
    scenario: ScenarioFile,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(
            help="Claimed epsilon of a round; can be repeated. With --whole: the total.",
            show_default="1, 4, 10; with --whole 10",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Number of attacked rounds per claim.",
            show_default="4,000, or 1,000 if each local step is a release",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Confidence level of the lower bounds.",
            show_default="0.999; with --whole 0.95",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Attack a whole training; trains twice.")
    ] = False,
    canaries: Annotated[
        int | None,
        typer.Option(
            help="With --whole: number of nodes, each with a canary.", show_default="2,000"
        ),
    ] = None,
    overrides: Overrides = None,
    imports: Imports = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    from fcfn_abm.build import load_scenario
    from fcfn_abm.errors import InvalidPrivacyError
    from fcfn_abm.runs import audit, audit_whole

    if whole and trials is not None:
        raise InvalidPrivacyError(
            "--trials applies to audits of a round; use --canaries with --whole."
        )
    if whole and epsilon and len(epsilon) > 1:
        raise InvalidPrivacyError("--whole audits one claim; give --epsilon once.")
    if canaries is not None and not whole:
        raise InvalidPrivacyError("--canaries applies to whole trainings; add --whole.")
    loaded = load_scenario(scenario, overrides or (), imports=imports or (), trust=trust)
    found: audit.PlacementAudit | audit_whole.WholeAudit
    if whole:
        found = audit_whole.audit_whole(
            loaded,
            epsilon[0] if epsilon else audit_whole.EPSILON,
            canaries=audit_whole.CANARIES if canaries is None else canaries,
            confidence=audit_whole.CONFIDENCE if confidence is None else confidence,
            progress=True,
        )
        text = None if as_json else audit_whole.whole_text(found)
    else:
        found = audit.audit_scenario(
            loaded,
            epsilon or audit.EPSILONS,
            trials=trials,
            confidence=audit.CONFIDENCE if confidence is None else confidence,
            progress=True,
        )
        text = None if as_json else audit.audit_text(found)
    if text is None:
        print_json(found.facts())
    else:
        show(text)
    if not found.holds:
        raise typer.Exit(1)
