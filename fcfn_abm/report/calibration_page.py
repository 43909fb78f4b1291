"""Report of a calibration: the value of epsilon to the server, measured by training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fcfn_abm.report.blocks import Fact, Facts, Notice, Page, Picture, Section, Terms, Words, number
from fcfn_abm.report.calibrate import (
    POOR,
    WARNING,
    between,
    describe_fit,
    goodness,
    identification,
    market_table,
    points_table,
    r_squared,
    setting,
)
from fcfn_abm.report.figures.value import calibration
from fcfn_abm.report.settings import reproduce, settings_table

_TERMS = {
    "alpha": "how soon the gain from more epsilon falls: the curve bends where alpha times epsilon "
    "is about one.",
    "beta": "the server's gain each time epsilon grows by a factor of e, where alpha times epsilon "
    "is large; in currency.",
    "Residual": "measured value minus fitted value.",
    "R squared": "share of the variance of the values that the curve explains.",
}


def calibration_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Build the report of a calibration.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row per training.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        The scenario that was calibrated, resolved.
    toml : str
        Text of its scenario file.
    """
    fit = run["fit"]
    word, tone = describe_fit(fit)
    texts = [identification(run)] if fit["r_squared"] >= POOR else [identification(run), WARNING]
    notice = Notice(word, " ".join(" ".join(texts).split()), tone)
    picture = Picture(
        "calibration",
        calibration(frame, run),
        f"Value of the net at {len(run['points'])} epsilons with the fitted curve, R squared "
        f"{r_squared(fit)}; and the residuals. The table lists the numbers.",
        "a: value of the net; grey: single nets, blue: means over the seeds. b: measured values "
        "minus the curve.",
        frame,
        "calibration.parquet",
    )
    epsilons = ",".join(f"{point['epsilon']:g}" for point in run["points"])
    command = (
        f"fcfn calibrate scenario.toml --epsilons {epsilons} --seeds {run['seeds']} "
        f"--value {run['value_of_accuracy']:g} --out again"
    )
    return Page(
        title=run["title"] or "Calibration",
        subtitle=f"fcfn_abm calibration, seed {run['seed']}",
        lead=[
            notice,
            Facts(
                [
                    Fact("alpha", number(fit["alpha"], 4), between(fit["alpha_interval"]).strip()),
                    Fact("beta", number(fit["beta"], 4), between(fit["beta_interval"]).strip()),
                    Fact("R squared", r_squared(fit).removeprefix("= ")),
                    Fact("Trainings", number(len(frame)), f"{run['rounds']} rounds each"),
                ]
            ),
            Words(setting(run)),
        ],
        sections=[
            Section(
                "Value of the net",
                [picture, points_table(run), Words(" ".join(goodness(run).split())), Terms(_TERMS)],
            ),
            Section(
                "Effect on the market",
                [
                    Words(
                        "The equilibrium of the scenario with its previous and with its "
                        "calibrated alpha and beta. calibrated.toml is the scenario with the "
                        "calibrated values."
                    ),
                    market_table(run),
                ],
            ),
            Section("Scenario", [settings_table(scenario)]),
            reproduce(command, toml, run),
        ],
    )
