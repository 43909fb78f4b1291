"""Sensitivity: the share of the variance of a sweep's outcomes that each axis explains.

For sweeps with ``mode = "sobol"``, whose points are designed for it (scenario/sweep.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from fcfn_abm.errors import (
    InvalidRecordError,
    InvalidScenarioError,
    as_floats,
    as_names,
    require_known,
)
from fcfn_abm.rng import Chance, as_generator, stream
from fcfn_abm.scenario import Scenario

type Floats = npt.NDArray[np.float64]

OUTCOMES = ("participation", "total_epsilon", "budget", "welfare", "server_utility", "accuracy")
"""Default outputs: those of these columns that exist and vary."""

_RESAMPLES = 999
_ROUNDING = 1e-12  # relative variation below which an outcome counts as constant


def sobol_indices(
    f_a: npt.ArrayLike, f_b: npt.ArrayLike, f_ab: npt.ArrayLike, rng: Chance
) -> Floats:
    """Estimate Sobol indices, with bootstrap intervals, from evaluations of a function.

    Parameters
    ----------
    f_a, f_b : array_like of float, shape (outcomes, n)
        Function values at two independent samples A and B of n points; n is a power of two.
    f_ab : array_like of float, shape (axes, outcomes, n)
        Values for each axis at the points of A with this axis from B; at least two axes.
    rng : Generator, BitGenerator, SeedSequence, int or list of int
        Random generator of the bootstrap.

    Returns
    -------
    ndarray, shape (3, 2, outcomes, axes)
        The estimate and the ends of its 95 % interval, of the first-order index
        V(E(f | x_i)) / V(f) and of the total-order index 1 - V(E(f | all but x_i)) / V(f).
        NaN for an outcome that does not vary.

    Notes
    -----
    The estimator is scipy's (:func:`scipy.stats.sobol_indices`, of Saltelli et al. 2010); the
    intervals are quantiles over 999 samples drawn from the n points with replacement.

    Examples
    --------
    >>> x = np.random.default_rng(1).random((4, 4096))
    >>> f = lambda p, q: (p + 2 * q)[None]  # variances 1 to 4
    >>> a, b, ab = f(*x[:2]), f(*x[2:]), [f(x[2], x[1]), f(x[0], x[3])]
    >>> sobol_indices(a, b, ab, np.random.default_rng(2))[0].round(1)  # first and total order
    array([[[0.2, 0.8]],
           [[0.2, 0.8]]])
    """
    from scipy import stats  # takes a second to load

    a, b, ab = as_floats("f_a", f_a), as_floats("f_b", f_b), as_floats("f_ab", f_ab)
    n_axes, n_outcomes, n = ab.shape

    def estimate(rows: npt.NDArray[np.intp]) -> Floats:
        found = stats.sobol_indices(
            func={"f_A": a[:, rows], "f_B": b[:, rows], "f_AB": ab[..., rows]}, n=n
        )
        orders = np.array([found.first_order, found.total_order])
        return orders.reshape(2, n_outcomes, n_axes)

    drawn = as_generator(rng).integers(n, size=(_RESAMPLES, n))
    resampled = np.array([estimate(rows) for rows in drawn])
    indices = np.array([estimate(np.arange(n)), *np.quantile(resampled, [0.025, 0.975], axis=0)])
    both = np.concatenate([a, b], axis=1)
    indices[:, :, np.ptp(both, axis=1) <= _ROUNDING * np.abs(both).max(axis=1)] = np.nan
    return indices


def sensitivity(
    scenario: Scenario, frame: pd.DataFrame, outcomes: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the Sobol indices of a sweep's outcomes; :meth:`fcfn_abm.Sweep.sensitivity`."""
    sweep = scenario.sweep
    if sweep is None or sweep.mode != "sobol":
        raise InvalidScenarioError(
            "sensitivity needs a sweep with mode = 'sobol', but this sweep's mode is "
            f"{sweep.mode if sweep else None!r}."
        )
    counts = {status: (frame["status"] == status).sum() for status in ("failed", "missing")}
    if any(counts.values()):
        unfinished = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n)
        raise InvalidRecordError(
            f"sensitivity needs all {len(frame):,} runs, but some are not done ({unfinished}); run "
            "them with 'fcfn sweep FILE --retry'."
        )
    names = (
        _find_varying(frame)
        if outcomes is None
        else [
            _require_complete(frame, name)
            for name in as_names("outcomes", outcomes, error=InvalidRecordError)
        ]
    )
    axes = list(sweep.axes)
    columns = ["first_order", "first_order_low", "first_order_high"]
    columns += [name.replace("first", "total") for name in columns]
    index = pd.MultiIndex.from_product([names, axes], names=["outcome", "axis"])
    if not names:
        return pd.DataFrame(columns=columns, index=index, dtype=float).reset_index()
    points = frame[names].astype(float).groupby(frame["run"] // sweep.replications).mean()
    blocks = points.to_numpy().T.reshape(len(names), len(axes) + 2, -1).swapaxes(0, 1)
    found = sobol_indices(blocks[0], blocks[1], blocks[2:], stream(scenario.seed, "bootstrap"))
    table = found.swapaxes(0, 1).reshape(len(columns), -1).T
    return pd.DataFrame(table, columns=columns, index=index).reset_index()


def _find_varying(frame: pd.DataFrame) -> list[str]:
    there = [name for name in OUTCOMES if name in frame and frame[name].notna().all()]
    return [name for name in there if (frame[name] != frame[name].iloc[0]).any()]


def _require_complete(frame: pd.DataFrame, name: str) -> str:
    """Return the name of an outcome, if all runs have a value of it."""
    numbers = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
    require_known("numeric outcome of the sweep", name, map(str, numbers))
    if frame[name].isna().any():
        raise InvalidRecordError(
            f"sensitivity of {name!r} needs its value in every run, but it is missing in "
            f"{frame[name].isna().sum():,} of {len(frame):,}."
        )
    return name


def sensitivity_text(table: pd.DataFrame) -> str:
    """Describe the result of :meth:`fcfn_abm.Sweep.sensitivity` in a few lines."""
    if table.empty:
        return "No outcome varies."
    cells = [("outcome", "axis", "first order", "total order")]
    for row in table.itertuples():
        first = f"{row.first_order:.2f} [{row.first_order_low:.2f}, {row.first_order_high:.2f}]"
        total = f"{row.total_order:.2f} [{row.total_order_low:.2f}, {row.total_order_high:.2f}]"
        cells.append((str(row.outcome), str(row.axis), first, total))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join(
        ["Share of the variance that each axis explains, with 95 % intervals:", *lines]
    )
