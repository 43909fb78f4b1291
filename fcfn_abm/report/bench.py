"""The benchmark of mechanisms as numbers and as aligned text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.text import Text
from scipy.special import expit, logit, stdtrit

from fcfn_abm.errors import join_lines
from fcfn_abm.report.blocks import AVERAGED, Table
from fcfn_abm.report.estimates import CONFIDENCE
from fcfn_abm.report.marks import heading, join, wrap

type Floats = npt.NDArray[np.float64]

CELL = ("costs", "data", "budget")
"""Columns that identify a cell."""
SHARES = ("participation", "expensive_third", "unusual_third", "left_out_rank", "accuracy")
"""Columns whose values and intervals lie between zero and one."""
MEASURES = (
    *("server_utility", "server_payment", "node_utility", "welfare", "rent"),
    *("participation", "effective_number", "total_epsilon", "largest_epsilon", "mean_epsilon"),
    *("expensive_third", "unusual_third", "left_out_rank"),
    *("accuracy", "true_epsilon", "largest_true_epsilon"),
)
"""Columns that are averaged over populations."""
REACHED = ("solved", "no-trade")
"""Statuses of a row whose mode is reached."""
MODES = {
    "equal-cap": "Equal cap",
    "equal-spending": "Equal spending",
    "equal-epsilon": "Equal mean epsilon",
}
MEANING = {
    "equal-cap": "every mechanism has the same cap and may spend less",
    "equal-spending": "each mechanism is set so that the server spends the cap",
    "equal-epsilon": "each mechanism is set to buy the epsilon that {reference} buys under the cap",
}
_REGRET = 0.01  # gains below this share of the payments are not mentioned


@dataclass(frozen=True)
class Estimate:
    """A mean over populations, with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int
    """Number of populations with a value."""


def estimate(values: Floats, bounds: tuple[float, float] | None = None) -> Estimate:
    """Average values, one per population.

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        Without nan.
    bounds : tuple of float, optional
        Range of the mean. The interval is then a t-interval of the mean's logit within this range,
        to first order, and never leaves it.

    Returns
    -------
    Estimate
        Its ends are nan with fewer than two values.

    Examples
    --------
    >>> one = estimate(np.array([0.97, 0.99, 0.995]), bounds=(0.0, 1.0))
    >>> one.mean < one.high < 1.0
    True
    """
    n = values.size
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = float(values.mean())
    if n == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    if bounds is None or half == 0:
        return Estimate(mean, mean - half, mean + half, n)
    low, high = bounds
    share = (mean - low) / (high - low)
    if not 0 < share < 1:
        return Estimate(mean, mean, mean, n)
    width = half / (high - low) / (share * (1.0 - share))
    ends = low + (high - low) * expit(logit(share) + np.array([-width, width]))
    return Estimate(mean, float(ends[0]), float(ends[1]), n)


def average_paired_difference(
    frame: pd.DataFrame, quantity: str, name: str, reference: str
) -> Estimate:
    """Average the difference between two mechanisms on the same populations.

    Parameters
    ----------
    frame : DataFrame
        The rows of one cell and mode.
    quantity : str
        A column. For shares, the interval is cut where the mechanism's own mean would reach 0 or 1
        with the reference's mean fixed.
    name, reference : str
        Mechanisms; the difference is the first minus the second.
    """
    own, others = _pairs(frame, quantity, name, reference)
    difference = own - others
    if quantity not in SHARES or not difference.size:
        return estimate(difference)
    at = float(others.mean())
    return estimate(difference, bounds=(-at, 1.0 - at))


def _pairs(frame: pd.DataFrame, quantity: str, name: str, reference: str) -> tuple[Floats, Floats]:
    """Return a column of two mechanisms for the populations in which both have a value."""
    values = frame[quantity].to_numpy(dtype=float, na_value=np.nan)
    which, population = frame["mechanism"].to_numpy(), frame["replication"].to_numpy()
    found = []
    for one in (name, reference):
        rows = (which == one) & ~np.isnan(values)
        found.append(dict(zip(population[rows].tolist(), values[rows].tolist(), strict=True)))
    both = [key for key in found[0] if key in found[1]]
    return np.array([found[0][k] for k in both]), np.array([found[1][k] for k in both])


def mean_of(frame: pd.DataFrame, quantity: str, name: str) -> Estimate:
    """Average a column of one mechanism over the rows of one cell and mode."""
    values = frame[quantity].to_numpy(dtype=float, na_value=np.nan)
    values = values[(frame["mechanism"].to_numpy() == name) & ~np.isnan(values)]
    return estimate(values, bounds=(0.0, 1.0) if quantity in SHARES else None)


def cells_of(frame: pd.DataFrame, mode: str) -> dict[tuple[Any, ...], pd.DataFrame]:
    """Return the rows of each cell in this mode, in the order of the table."""
    rows = frame[frame["mode"] == mode]
    found: dict[tuple[Any, ...], pd.DataFrame] = {}
    for costs, data, budget in rows[list(CELL)].drop_duplicates().itertuples(index=False):
        same = (rows["costs"] == costs) & (rows["data"] == data) & (rows["budget"] == budget)
        found[costs, data, budget] = rows[same]
    return found


def select_trained_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the cell in which nets were trained, or none without training."""
    trained = frame[frame["accuracy"].notna()]
    if trained.empty:
        return trained
    first = trained.iloc[0]
    same = np.ones(len(frame), dtype=bool)
    for name in (*CELL, "mode"):
        same &= (frame[name] == first[name]).to_numpy()
    last = trained["replication"].max()
    rows: pd.DataFrame = frame[same & (frame["replication"] <= last).to_numpy()]
    return rows


def cell_name(key: Sequence[Any]) -> str:
    """Format a cell: its costs, data and cap."""
    costs, data, budget = key
    return f"costs {costs}, data {data}, B = {budget:g}"


def summarise(frame: pd.DataFrame, run: Mapping[str, Any]) -> pd.DataFrame:
    """Return means over populations and their intervals, one row per cell, mode and mechanism.

    Parameters
    ----------
    frame : DataFrame
        Table of a benchmark, one row per cell, mode, mechanism and population.
    run : mapping
        Its ``run.json``.

    Returns
    -------
    DataFrame
        ``n_reached`` of ``n`` populations; each of :data:`MEASURES` with its 95 % interval
        (``..._low``, ``..._high``); and the paired differences from the reference in the server's
        utility and in accuracy, and the ratio of payments.
    """
    reference = run["reference"]
    rows = []
    for mode in run["modes"]:
        for (costs, data, budget), part in cells_of(frame, mode).items():
            for name in run["mechanisms"]:
                own = part[part["mechanism"] == name]
                known = {quantity: mean_of(part, quantity, name) for quantity in MEASURES}
                known |= {
                    f"{quantity}_difference": average_paired_difference(
                        part, quantity, name, reference
                    )
                    for quantity in ("server_utility", "accuracy")
                }
                known["payment_ratio"] = payment_ratio(part, name, reference)
                out_of_reach = own.loc[~own["status"].isin(REACHED), "reason"]
                row: dict[str, Any] = {
                    "costs": costs,
                    "data": data,
                    "budget": budget,
                    "mode": mode,
                    "mechanism": name,
                    "n": len(own),
                    "n_reached": int(own["status"].isin(REACHED).sum()),
                    "n_no_trade": int((own["status"] == "no-trade").sum()),
                    "n_with_losses": int((own["n_losing"].fillna(0) > 0).sum()),
                    "largest_regret": float(own["regret"].max()),
                    "reason": out_of_reach.iloc[0] if len(out_of_reach) else "",
                }
                for quantity, one in known.items():
                    row |= {
                        quantity: one.mean,
                        f"{quantity}_low": one.low,
                        f"{quantity}_high": one.high,
                    }
                rows.append({**row, "n_trained": known["accuracy"].n})
    return pd.DataFrame(rows)


def mode_table(frame: pd.DataFrame, run: Mapping[str, Any], mode: str) -> Table:
    """Return the results of each mechanism in this mode: the range of its means over the cells."""
    reference, cells = run["reference"], cells_of(frame, mode)
    is_matched = mode == "equal-epsilon"
    head = [
        "",
        "reached",
        "best in",
        "pays / reference" if is_matched else "server utility - reference",
        "participation",
        "expensive third",
        "effective number",
        "rent",
        "regret",
    ]
    best = _count_best(frame, run, mode)
    rows = []
    for name in run["mechanisms"]:
        own = frame[(frame["mode"] == mode) & (frame["mechanism"] == name)]
        reached = own["status"].isin(REACHED)
        against = [
            payment_ratio(rows_, name, reference).mean
            if is_matched
            else average_paired_difference(rows_, "server_utility", name, reference).mean
            for rows_ in cells.values()
        ]
        means = {
            quantity: [mean_of(rows_, quantity, name).mean for rows_ in cells.values()]
            for quantity in ("participation", "expensive_third", "effective_number", "rent")
        }
        rows.append(
            [
                name,
                f"{reached.mean():.0%}" if len(own) else "-",
                str(best.get(name, 0)),
                _range(against, "{:.2f}" if is_matched else "{:+.2f}"),
                _range(means["participation"], "{:.0%}"),
                _range(means["expensive_third"], "{:.0%}"),
                _range(means["effective_number"], "{:.1f}"),
                _range(means["rent"], "{:.0%}"),
                _range([float(own["regret"].max())], "{:.1%}"),
            ]
        )
    meaning = MEANING[mode].format(reference=reference)
    return Table(head, rows, f"{MODES[mode]}: {meaning}")


def payment_ratio(rows: pd.DataFrame, name: str, reference: str) -> Estimate:
    """Average the ratio of what two mechanisms pay on the same populations.

    Parameters
    ----------
    rows : DataFrame
        Rows of one cell and mode.
    name, reference : str
        Mechanisms; mean and interval are geometric (computed on logarithms).
    """
    own, others = _pairs(rows, "server_payment", name, reference)
    own, others = own[others > 0], others[others > 0]
    if not own.size or (own <= 0).any():  # without payments the ratio has no logarithm
        return estimate(np.array([]))
    logs = estimate(np.log(own / others))
    return Estimate(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.n)


def _count_best(frame: pd.DataFrame, run: Mapping[str, Any], mode: str) -> dict[str, int]:
    """Count the cells in which each eligible mechanism has the highest server utility."""
    counts: dict[str, int] = {}
    for rows in cells_of(frame, mode).values():
        means = _eligible_means(rows, run)
        if means:
            best = max(means, key=lambda name: means[name])
            counts[best] = counts.get(best, 0) + 1
    return counts


def _eligible_means(rows: pd.DataFrame, run: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean server utility of each eligible mechanism in a cell.

    Eligible mechanisms reach the mode in every population of the cell, and no node loses.
    """
    losing = set(rows.loc[rows["n_losing"].fillna(0) > 0, "mechanism"])
    found = {n: mean_of(rows, "server_utility", n) for n in run["mechanisms"] if n not in losing}
    return {name: one.mean for name, one in found.items() if one.n == run["replications"]}


def _range(values: Sequence[float], form: str) -> str:
    """Format the range of some numbers, or a dash if there are none."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "-"
    low, high = form.format(min(known)), form.format(max(known))
    if low == high:
        return low
    return f"{low} to {high}" if "+" in form else f"{low.rstrip('%')}\u2013{high}"


def training_table(frame: pd.DataFrame, run: Mapping[str, Any]) -> Table | None:
    """Return what nets learn with the epsilon of each mechanism, or None without training."""
    rows = select_trained_rows(frame)
    if rows.empty:
        return None
    first, reference = rows.iloc[0], run["reference"]
    lines = []
    for name in run["mechanisms"]:
        own = rows[(rows["mechanism"] == name) & rows["accuracy"].notna()]
        accuracy = mean_of(rows, "accuracy", name)
        against = average_paired_difference(rows, "accuracy", name, reference)
        lines.append(
            [
                name,
                str(accuracy.n),
                _interval(accuracy, 100, "{:.1f}"),
                "" if name == reference else _interval(against, 100, "{:+.1f}"),
                _range([float(own["total_epsilon"].mean())], "{:.0f}"),
                _range([float(own["participation"].mean())], "{:.0%}"),
                _range([float(own["largest_true_epsilon"].max())], "{:.2f}"),
            ]
        )
    head = [
        "",
        "seeds",
        "accuracy, %",
        f"minus {reference}, points",
        "total epsilon",
        "participation",
        "largest true epsilon",
    ]
    where = cell_name([first[name] for name in CELL])
    return Table(head, lines, f"Nets, {MODES[first['mode']].lower()}: {where}")


def _interval(of: Estimate, scale: float, form: str) -> str:
    if of.n == 0:
        return "-"
    mean = form.format(scale * of.mean)
    if of.n == 1:
        return mean
    return f"{mean} ({form.format(scale * of.low)} to {form.format(scale * of.high)})"


def breaking_points(frame: pd.DataFrame, run: Mapping[str, Any]) -> dict[str, str]:
    """Describe where each mechanism fails: unreachable modes, losses, profitable deviations."""
    found = {}
    for name in run["mechanisms"]:
        own = frame[frame["mechanism"] == name]
        lines = []
        for mode in run["modes"]:
            there = own[own["mode"] == mode]
            out = there[~there["status"].isin(REACHED)]
            if len(out):
                example = out.iloc[0]
                lines.append(
                    f"{MODES[mode]} is unreachable in {len(out):,} of {len(there):,} populations "
                    f"({cell_name([example[k] for k in CELL])}: {example['reason']})"
                )
        idle = own[own["status"] == "no-trade"]
        if len(idle):
            why = f" ({idle.iloc[0]['reason']})" if idle.iloc[0]["reason"] else "."
            lines.append(f"No node trades in {len(idle):,} of {len(own):,} populations{why}")
        losing = own[own["n_losing"].fillna(0) > 0]
        if len(losing):
            share = float((losing["n_losing"] / losing["n_nodes"]).mean())
            lines.append(
                f"Nodes lose money in {len(losing):,} of {len(own):,} populations ({share:.0%} of "
                "the nodes there)."
            )
        worst = own.loc[own["regret"].idxmax()] if own["regret"].notna().any() else None
        if worst is not None and worst["regret"] > _REGRET:
            lines.append(
                f"A node can gain up to {worst['regret']:.1%} of all payments by deviating "
                f"({MODES[worst['mode']].lower()}, {cell_name([worst[k] for k in CELL])})."
            )
        drop = _largest_drop(frame, run, name)
        if drop:
            lines.append(drop)
        found[name] = " ".join(lines) if lines else "No failure in these cells."
    return found


def _largest_drop(frame: pd.DataFrame, run: Mapping[str, Any], name: str) -> str:
    """Describe where a mechanism's server utility is lowest relative to the best eligible one."""
    worst: tuple[float, str] | None = None
    for mode in run["modes"]:
        if mode == "equal-epsilon":
            continue
        for key, rows in cells_of(frame, mode).items():
            known = _eligible_means(rows, run)
            own = mean_of(rows, "server_utility", name).mean
            if not known or not math.isfinite(own):
                continue
            best = max(known, key=lambda n: known[n])
            drop = known[best] - own
            if worst is None or drop > worst[0]:
                place = f"{MODES[mode].lower()}, {cell_name(key)}"
                worst = drop, f"Server utility is up to {drop:.1f} below that of {best} ({place})."
    return worst[1] if worst and worst[0] > 0 else ""


def bench_tables(frame: pd.DataFrame, run: Mapping[str, Any]) -> list[Table]:
    """Return a table for each mode, and one of the trained nets."""
    tables = [mode_table(frame, run, mode) for mode in run["modes"]]
    trained = training_table(frame, run)
    return tables if trained is None else [*tables, trained]


def notes(run: Mapping[str, Any]) -> list[str]:
    """Explain how to read the numbers of a benchmark."""
    return [
        f"Each cell has {run['replications']} populations, the same for all mechanisms and modes. "
        "Ranges span the means of the cells. 'Reached' is the share of the populations in which "
        f"a mechanism can be set to the mode within {run['tolerance']:.0%}. A server that knows "
        "the costs sets it for each population.",
        "'Best in' counts the cells in which a mechanism has the highest server utility, among the "
        "mechanisms that reach the mode in every population and under which no node loses money. "
        f"The reference is {run['reference']}.",
        f"Mean epsilon and its value to the server are over {AVERAGED[run['average_over']]}.",
        "Rent is payments minus privacy costs, as a share of the payments. Regret is the largest "
        "gain of one node from a deviation, as a share of the payments.",
        "Intervals are 95 % t-intervals over populations or seeds, for shares on the logit scale; "
        "differences are paired.",
    ]


def bench_text(frame: pd.DataFrame, run: Mapping[str, Any]) -> Text:
    """Describe the results of a benchmark.

    Parameters
    ----------
    frame : DataFrame
        Table of a benchmark, one row per cell, mode, mechanism and population.
    run : mapping
        Its ``run.json``.
    """
    title = join_lines(run["title"]) or "Benchmark of mechanisms"
    n_cells = len(cells_of(frame, run["modes"][0]))
    parts: list[str | Text] = [
        join(
            "\n",
            [
                heading(f"{title} (seed {run['seed']})"),
                "",
                f"{n_cells} cells of {run['n_nodes']:,} nodes.",
            ],
        ),
        *(table.to_rich_text() for table in bench_tables(frame, run)),
        "\n".join(wrap(line, rest="  ") for line in notes(run)),
        "\n".join(
            wrap(f"{name}: {says}", rest="  ") for name, says in breaking_points(frame, run).items()
        ),
    ]
    return join("\n\n", parts)
