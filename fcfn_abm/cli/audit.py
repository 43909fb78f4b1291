"""Attacks on what trains."""

from __future__ import annotations

from typing import Annotated

import typer

from fcfn_abm.cli.base import AsJson, Imports, Overrides, ScenarioFile, Trust, app, print_json
from fcfn_abm.cli.terminal import show


@app.command(
    "audit",
    help="Attack a scenario's training with real records, and say which epsilon is disproved.\n\n"
    "The exit code is 1 if a claim is broken: if a lower bound lies above it.",
)
def audit_command(
    scenario: ScenarioFile,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(
            help="A claim for one round, which may be repeated; with --whole the total.",
            show_default="1, 4, 10; with --whole 10",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="How often a round is run for each claim.",
            show_default="4,000, or 1,000 if each local step is a release",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Probability with which no lower bound is above the truth.",
            show_default="0.999; with --whole 0.95",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Attack a whole training, by training twice.")
    ] = False,
    canaries: Annotated[
        int | None,
        typer.Option(
            help="With --whole: how many nodes have a canary, by a coin.", show_default="2,000"
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
        raise InvalidPrivacyError("--trials is for rounds; with --whole take --canaries.")
    if whole and epsilon and len(epsilon) > 1:
        raise InvalidPrivacyError("--whole attacks one claim: give --epsilon once.")
    if canaries is not None and not whole:
        raise InvalidPrivacyError("--canaries is for whole trainings: give --whole as well.")
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
