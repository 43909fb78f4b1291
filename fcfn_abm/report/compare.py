"""Mechanisms side by side, as numbers and as aligned text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.text import Text
from scipy.special import stdtrit

from fcfn_abm.errors import join_lines
from fcfn_abm.report.blocks import AVERAGED, Table
from fcfn_abm.report.claims import claims_table
from fcfn_abm.report.marks import heading, join
from fcfn_abm.report.summary import WIDTH

CONFIDENCE = 0.95
_ROUNDING = 1e-9
QUANTITIES = (
    "budget",
    "n_active",
    "n_losing",
    "participation",
    "mean_epsilon",
    "noise_multiplier",
    "mean_node_utility",
    "node_utility",
    "server_utility",
    "agency_utility",
    "server_payment",
    "welfare",
    "price_of_anarchy",
    "rent_dissipation",
    "gini",
)
"""The columns of a comparison that are averaged over its replications."""

_CELLS = {  # the two tables of the text: columns, by their heads
    "Utilities, in currency a round": {
        "a node": "mean_node_utility",
        "server": "server_utility",
        "welfare": "welfare",
        "price of anarchy": "price_of_anarchy",
    },
    "Privacy": {
        "participation": "participation",
        "nodes that lose": "n_losing",
        "mean epsilon": "mean_epsilon",
        "noise multiplier": "noise_multiplier",
    },
}
_NEGLIGIBLE = 1e-9  # half-widths below this share of the mean are rounding errors
_DECIMALS, _LONG = 6, 1e7  # numbers with more digits than these are written with exponents


@dataclass(frozen=True)
class Average:
    """A quantity's average over the replications in which it has a value."""

    mean: float
    """Infinite where one of the values is; nan where there is none."""
    half_width: float
    """Half of the 95 % t-interval; nan with fewer than two values, or an infinite one."""
    median: float
    """The middle value (of two the smaller), which tells where the mean is infinite."""
    n: int
    """In how many replications the quantity has a value."""
    n_infinite: int
    """In how many of these it is infinite."""

    @property
    def low(self) -> float:
        """Where the interval begins."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Where the interval ends."""
        return self.mean + self.half_width


type Averages = dict[tuple[str, str], Average]


def averages(frame: pd.DataFrame) -> Averages:
    """Average a comparison over its replications.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row a replication and mechanism.

    Returns
    -------
    dict
        From mechanism and quantity to :class:`Average`. Where a mechanism has no solution it has no
        value either; where there is no trade its zeros count.
    """
    found: Averages = {}
    for name in dict.fromkeys(frame["mechanism"]):
        solved = frame[(frame["mechanism"] == name) & (frame["status"] != "no-solution")]
        for quantity in QUANTITIES:
            found[name, quantity] = average(solved[quantity].dropna().to_numpy(dtype=float))
    return found


def average(values: npt.NDArray[np.float64]) -> Average:
    """Average values, with the 95 % t-interval of their mean.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        One value a replication; no nan.

    Returns
    -------
    Average
        Mean, half-width and median.

    Examples
    --------
    >>> average(np.array([1.0, 2.0, 3.0])).mean
    2.0
    """
    n, n_infinite = values.size, int(np.isinf(values).sum())
    half_width = float("nan")
    if n > 1 and not n_infinite:
        spread = float(values.std(ddof=1)) / math.sqrt(n)
        half_width = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * spread
    return Average(
        mean=float(values.mean()) if n else float("nan"),
        half_width=half_width,
        median=float(np.sort(values)[(n - 1) // 2]) if n else float("nan"),
        n=n,
        n_infinite=n_infinite,
    )


def averages_tree(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return the averages by mechanism and quantity, for JSON: None where there is no number."""
    tree: dict[str, dict[str, dict[str, float | None]]] = {}
    for (name, quantity), average in averages(frame).items():
        values = {**asdict(average), "low": average.low, "high": average.high}
        tree.setdefault(name, {})[quantity] = {
            key: value if math.isfinite(value) else None for key, value in values.items()
        }
    return tree


def status_counts(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Return how often each mechanism ended how: ``{"yang": {"solved": 17, "no-trade": 3}}``."""
    counts: dict[str, dict[str, int]] = {}
    for mechanism, status in zip(frame["mechanism"], frame["status"], strict=True):
        of = counts.setdefault(mechanism, {})
        of[status] = of.get(status, 0) + 1
    return counts


def comparison_text(frame: pd.DataFrame, run: Mapping[str, Any]) -> Text:
    """Say how the mechanisms did: what was the same for all, means and intervals, who failed.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row a replication and mechanism.
    run : mapping
        Its ``run.json``.
    """
    said = [*failures(frame), *notes(frame, run)]
    parts: list[str | Text] = [
        _heading(frame, run),
        *(each.to_rich_text() for each in comparison_tables(frame)),
        claims_table(run["claims"]).to_rich_text(),
        "\n".join(fill(line, WIDTH, subsequent_indent="  ") for line in said),
    ]
    return join("\n\n", parts)


def comparison_tables(frame: pd.DataFrame) -> list[Table]:
    """Return means and half of their 95 % intervals, a row a mechanism: utilities, and privacy.

    Parameters
    ----------
    frame : DataFrame
        Table of a comparison, one row a replication and mechanism.
    """
    found = averages(frame)
    names = list(dict.fromkeys(frame["mechanism"]))
    return [
        Table(
            ["", *cells],
            [[name, *(interval(found[name, q]) for q in cells.values())] for name in names],
            title,
        )
        for title, cells in _CELLS.items()
    ]


def _heading(frame: pd.DataFrame, run: Mapping[str, Any]) -> Text:
    n = run["replications"]
    budgets = frame.drop_duplicates("replication")["budget"]
    over = AVERAGED[run["average_over"]]
    if n == 1:
        populations = f"One population of {run['n_nodes']} nodes, the scenario's own: no intervals."
    else:
        populations = (
            f"{n} populations of {run['n_nodes']} nodes, the first one the scenario's own: "
            "mean ± half of the 95 % t-interval."
        )
    cap = f"{budgets.mean():.6g}" + (" on average" if budgets.min() < budgets.max() else "")
    return join(
        "\n",
        [
            heading(
                f"{join_lines(run['title']) or 'Mechanisms side by side'} (seed {run['seed']})"
            ),
            "",
            populations,
            f"The same payment cap for every mechanism: {run['cap']}, {cap}.",
            f"Mean epsilon is over {over}.",
        ],
    )


def interval(of: Average) -> str:
    """Write mean and half-width with two digits of the latter.

    Examples
    --------
    >>> interval(average(np.array([1.0, 2.0, 4.0])))
    '2.3 ± 3.8'
    """
    if of.n == 0:
        return "-"
    if of.n_infinite:
        return "infinite" if of.n_infinite == of.n else f"infinite in {of.n_infinite}/{of.n}"
    if math.isnan(of.half_width):
        return f"{of.mean:.4g}"
    if of.half_width <= _NEGLIGIBLE * abs(of.mean):
        return f"{of.mean:.4g} ± 0"
    decimals = 1 - math.floor(math.log10(of.half_width))
    if decimals > _DECIMALS or abs(of.mean) >= _LONG:
        return f"{of.mean:.4g} ± {of.half_width:.2g}"
    return f"{of.mean:.{max(decimals, 0)}f} ± {of.half_width:.{max(decimals, 0)}f}"


def failures(frame: pd.DataFrame) -> list[str]:
    """Say which mechanisms found no trade or no solution, how often and why."""
    lines = []
    for status, words in (("no-trade", "no trade"), ("no-solution", "no solution")):
        for name, group in frame.groupby("mechanism", sort=False):
            failed = group[group["status"] == status]
            if len(failed):
                reason = failed["reason"].iloc[0]
                lines.append(f"{name}: {words} in {len(failed)} of {len(group)}. {reason}")
    return lines


def notes(frame: pd.DataFrame, run: Mapping[str, Any]) -> list[str]:
    """Say in sentences how the numbers of a comparison are to be read."""
    found = averages(frame)
    lines = ["Welfare is all utilities together; price of anarchy is the best welfare over it."]
    for name in run["mechanisms"]:
        anarchy, kept = found[name, "price_of_anarchy"], found[name, "agency_utility"].mean
        if anarchy.n_infinite:
            finite = math.isfinite(anarchy.median)
            median = f"; the median is {anarchy.median:.4g}" if finite else ""
            lines.append(
                f"{name}: welfare is not positive in {anarchy.n_infinite} of {anarchy.n}, where "
                f"the price of anarchy is infinite{median}."
            )
        paid, cap = found[name, "server_payment"].mean, found[name, "budget"].mean
        if paid > cap * (1.0 + _ROUNDING):
            lines.append(
                f"{name}: pays {paid:.4g} on average, more than the cap, which it ignores."
            )
        if kept > 0:
            lines.append(f"{name}: an agency keeps {kept:.4g} on average, which is in welfare.")
    lines.append(
        "Noise multiplier: noise over sensitivity of one release with all of epsilon, mean over "
        f"the nodes that take part (delta = {run['delta']:g}, {run['calibration']} calibration)."
    )
    return lines
