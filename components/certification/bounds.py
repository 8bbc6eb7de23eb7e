"""Confidence bounds and radii. Everything here errs on the safe side: bounds and radii are rounded down."""

import math

import numpy as np
from scipy.special import ndtri
from statsmodels.stats.proportion import proportion_confint

DECIMALS = 9
"""Decimals of written bounds and radii."""


def lower_bound(k: int, n: int, failure_prob: float) -> float:
    """Clopper-Pearson lower bound at confidence 1 - failure_prob on a probability that hit `k` times in `n` trials.

    One-sided: statsmodels' two-sided interval at alpha = 2 * failure_prob, its lower end, rounded down.

    Raises:
        ValueError: k outside [0, n], n < 1, or failure_prob outside (0, 1/2) (statsmodels would answer NaN).
    """
    if not (0 <= k <= n and n >= 1):
        raise ValueError(f"k = {k} hits in n = {n} trials: 0 <= k <= n and n >= 1 are needed")
    if not 0 < failure_prob < 0.5:
        raise ValueError(f"failure_prob is {failure_prob!r}: must be > 0 and < 0.5")
    low, _ = proportion_confint(k, n, alpha=2 * failure_prob, method="beta")
    return round_down(float(low))


def certified_radius(p_lower: float, sigma: float) -> float:
    """sigma * Phi^-1(p_lower), the L2 radius of Cohen et al. 2019 (theorem 1), rounded down; of the sigma drawn.

    Raises:
        ValueError: p_lower outside (1/2, 1): there is nothing to certify.
    """
    if not 0.5 < p_lower < 1:
        raise ValueError(f"p_lower is {p_lower!r}: a radius needs 1/2 < p_lower < 1")
    return round_down(drawn_sigma(sigma) * float(ndtri(p_lower)))


def drawn_sigma(sigma: float) -> float:
    """The sigma that radii may count on: that of the noise, which is scaled in float32, where this is the smaller one.

    For example, float32 makes 1.4 into 1.39999998: a radius for 1.4 itself would be too large in the eighth decimal.
    """
    return min(sigma, float(np.float32(sigma)))


def largest_radius(n: int, failure_prob: float, sigma: float) -> float:
    """The radius when all `n` samples agree: no certificate can be larger."""
    return certified_radius(round_down(failure_prob ** (1 / n)), sigma)


def round_down(value: float) -> float:
    """The largest number of `DECIMALS` decimals that is surely not above the exact value behind `value` >= 0.

    The computed value may lie above the exact one by a few units in the last place, so it is lowered by a relative
    1e-12 first: more than those units and the rounding of the result to binary together.
    """
    scale = 10**DECIMALS
    return math.floor(value * (1 - 1e-12) * scale) / scale
