"""The report of a calibration: what epsilon is worth to the server, measured by training."""

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
    "alpha": "how soon more epsilon stops to pay: the law bends where alpha times epsilon is "
    "about one.",
    "beta": "how much the server gains each time epsilon grows by a factor of e, once alpha times "
    "epsilon is large; in currency.",
    "Residual": "the measured value less that of the law.",
    "R squared": "the share of the variance of all values that the law explains.",
}


def calibration_page(frame: pd.DataFrame, run: Mapping[str, Any], scenario: Any, toml: str) -> Page:
    """Return the report of a calibration.

    Parameters
    ----------
    frame : DataFrame
        Its table, one row a training.
    run : mapping
        Its ``run.json``.
    scenario : Scenario
        The one that was calibrated, resolved.
    toml : str
        Its scenario file, to be shown.
    """
    fit = run["fit"]
    word, tone = describe_fit(fit)
    texts = [identification(run)] if fit["r_squared"] >= POOR else [identification(run), WARNING]
    notice = Notice(word, " ".join(" ".join(texts).split()), tone)
    picture = Picture(
        "calibration",
        calibration(frame, run),
        f"Value of the net at {len(run['points'])} epsilons with the law that fits it, R squared "
        f"{r_squared(fit)}; and what the law leaves over. The numbers stand in the table.",
        "a: the value of the net; grey are single nets, blue the means of the seeds. b: measured "
        "values less the curve.",
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
        subtitle=f"Report of a calibration by fcfn_abm, seed {run['seed']}",
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
                "What the net is worth",
                [picture, points_table(run), Words(" ".join(goodness(run).split())), Terms(_TERMS)],
            ),
            Section(
                "What the market makes of it",
                [
                    Words(
                        "The equilibrium of the scenario with the alpha and beta that stood in it, "
                        "and with those that were measured. calibrated.toml is the scenario with "
                        "the latter."
                    ),
                    market_table(run),
                ],
            ),
            Section("What was trained", [settings_table(scenario)]),
            reproduce(command, toml, run),
        ],
    )
