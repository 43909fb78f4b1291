"""A clipping norm that follows a quantile of the norms, and its privacy cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fcfn_abm.errors import InvalidPrivacyError, require_between, require_positive

_LEAST, _MOST = 1e-30, 1e30


@dataclass(frozen=True)
class AdaptiveClipping:
    """Adapts the clipping norm C until a share ``quantile`` of the norms lies within it.

    Each release comes with a count: the share of norms that are at most C, minus one half. One unit
    of data moves the count by half of what it moves the release, divided by C. Both have separate
    noise, and together they spend what the release alone would with the multiplier z: the count
    uses the share ``noise_share`` of the precision ``1 / z**2``.

    Raises
    ------
    InvalidPrivacyError
        If a number is outside its range.

    Notes
    -----
    Two Gaussian releases with multipliers z_r and z_c compose to one with ``1 / z**2 = 1 / z_r**2 +
    1 / z_c**2``. For a sum of bits minus one half, which a removed unit moves by one half, with
    noise of standard deviation s, z_c = 2 s: the theorem's ``z_r = (z**-2 - (2 s)**-2)**-0.5``.

    References
    ----------
    Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially private learning with adaptive
    clipping", theorem 1 and algorithm 1 (geometric updates).

    Examples
    --------
    >>> adaptive = AdaptiveClipping(quantile=0.5, learning_rate=0.2, noise_share=0.01)
    >>> round(adaptive.release_gain, 6), round(adaptive.count_gain, 6)
    (1.005038, 10.0)
    >>> round(adaptive.next_norm(1.0, 1.0), 4)  # all lies within: the norm shrinks
    0.9048
    """

    quantile: float = 0.5
    """Target share of norms within the clipping norm."""
    learning_rate: float = 0.2
    """Change of ln(C) per round, per unit of difference between observed and target share."""
    noise_share: float = 0.01
    """Share of the privacy, as precision, that the counts use."""

    def __post_init__(self) -> None:
        """Raise InvalidPrivacyError for a number outside its range."""
        wrong = InvalidPrivacyError
        require_between(0, 1, error=wrong, quantile=self.quantile, noise_share=self.noise_share)
        require_positive(error=wrong, learning_rate=self.learning_rate)

    @property
    def release_gain(self) -> float:
        """Noise on the release, relative to the noise without counts."""
        return 1 / math.sqrt(1 - self.noise_share)

    @property
    def count_gain(self) -> float:
        """Noise multiplier of the count, relative to that of release and count together."""
        return 1 / math.sqrt(self.noise_share)

    def next_norm(self, norm: float, within: float) -> float:
        """Return the next clipping norm.

        Parameters
        ----------
        norm : float
            The current one.
        within : float
            Noisy share of norms within it; values outside [0, 1] are clipped.

        Returns
        -------
        float
            From 1e-30 to 1e30, the range of float32 nets.
        """
        within = min(max(within, 0.0), 1.0)
        moved = norm * math.exp(-self.learning_rate * (within - self.quantile))
        return min(max(moved, _LEAST), _MOST)
