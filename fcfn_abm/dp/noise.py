"""Gaussian noise for tensors: repeatable for research, or from the operating system for release."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from fcfn_abm.dp.philox import fill_gaussian
from fcfn_abm.errors import InvalidPrivacyError, MissingExtraError, require_positive
from fcfn_abm.rng import key

_FINENESS = 2.0**-20  # largest relative increase of a sensitivity by rounding to the grid
_OF_NODES = 0  # word of the counter that identifies the use of the noise
_MOST_STEPS = 2.0**48  # up to here float64 adds multiples of the grid exactly


def node_noise(size: int, std: float, seed: int, round_index: int, node: int) -> torch.Tensor:
    """Draw the noise that a node adds in a round.

    Parameters
    ----------
    size : int
        Number of values.
    std : float
        Standard deviation of each value.
    seed, round_index, node : int
        Identify the draw. Different draws of a seed never overlap; seeds have 64-bit keys.

    Returns
    -------
    Tensor of float32, shape (size,)
        Equal for equal arguments, independent of other draws, on any processor. No value is beyond
        7.54 standard deviations.

    Raises
    ------
    InvalidPrivacyError
        If ``std`` is negative or not finite.
    """
    require_positive(error=InvalidPrivacyError, zero=True, std=std)
    draws = np.empty(size, dtype=np.float32)
    fill_gaussian(draws, std, _noise_key(seed), (_OF_NODES, round_index, node))
    return torch.from_numpy(draws)


@lru_cache(maxsize=64)
def _noise_key(seed: int) -> tuple[int, int]:
    return key(seed, "noise")


def release_grid(l2_sensitivity: float, size: int) -> float:
    """Return the spacing of released values under secure noise.

    Parameters
    ----------
    l2_sensitivity : float
        Sensitivity of the release before rounding.
    size : int
        Number of values released together.

    Returns
    -------
    float
        A power of two g. Rounding two vectors to multiples of g changes their distance by at most
        ``g * sqrt(size)``, which is at most a millionth of the sensitivity.

    Raises
    ------
    InvalidPrivacyError
        If the sensitivity is not positive and finite.
    """
    require_positive(error=InvalidPrivacyError, l2_sensitivity=l2_sensitivity)
    return float(2.0 ** math.floor(math.log2(_FINENESS * l2_sensitivity / math.sqrt(size))))


def secure_noise(size: int, std: float, grid: float) -> torch.Tensor:
    """Draw discrete Gaussian noise on a grid, from the operating system's generator.

    Parameters
    ----------
    size : int
        Number of values.
    std : float
        Scale of each value, which is its standard deviation unless the grid is coarse.
    grid : float
        Spacing of neighbouring values; a power of two.

    Returns
    -------
    Tensor of float64, shape (size,)
        Exact multiples of the grid; different in each call.

    Raises
    ------
    MissingExtraError
        If OpenDP is not installed.
    InvalidPrivacyError
        If a number is not positive and finite, or if the noise is so wide that float64 cannot add
        multiples of the grid exactly.

    Notes
    -----
    Added to a value on the same grid it has the zCDP of continuous noise with ``std``. At equal
    delta its epsilon differs by the order of ``size * (grid / std)**2``: 1e-12 on
    :func:`release_grid` if noise and sensitivity are similar.

    References
    ----------
    Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy".
    """
    require_secure()
    import opendp.prelude as dp

    require_positive(error=InvalidPrivacyError, std=std, grid=grid)
    if std > _MOST_STEPS * grid:
        raise InvalidPrivacyError(
            f"secure noise on a grid of {grid:.3g} can have a standard deviation of at most "
            f"{_MOST_STEPS * grid:.3g}, but it is {std:.3g}: epsilon is too small."
        )
    dp.enable_features("contrib")  # OpenDP's name for features that are not vetted yet
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    steps = dp.m.make_gaussian(*space, scale=std / grid)([0] * size)
    return torch.tensor(steps, dtype=torch.float64) * grid


def require_secure() -> None:
    """Raise MissingExtraError unless secure noise is available."""
    try:
        import opendp  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Secure noise needs opendp, which is not installed: pip install 'fcfn-abm[secure]'; "
            "or draw repeatable noise with --set privacy.secure_noise=false."
        ) from None
