"""Confidence bounds and radii. Everything here errs on the safe side: lower bounds and radii are rounded down, upper
bounds up.

A radius comes from p_lower <= p_A, the probability of the answered class A under the noise, and p_upper >= the largest
probability of another class: sigma / 2 * (Phi^-1(p_lower) - Phi^-1(p_upper)) (Cohen et al. 2019, theorem 1).

one_class: p_upper is 1 - p_lower, as in all published tables.
two_class: failure_prob is split beforehand. p_lower is a bound from the hits of A at (1 - w) failure_prob, p_upper one
    from the hits of whichever other class has most, at w failure_prob, and at most 1 - p_lower. No correction over the
    classes is needed: the true runner-up is one fixed class, its count is not above the largest one, and the bound
    grows with the count. So p_upper lies below the runner-up's probability only where that class's own bound does.

A sample that is lost (see `noise.discrete_normal`) is a miss of A and a hit of the rival.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from scipy.special import ndtri
from statsmodels.stats.proportion import proportion_confint

from components.params import RIVAL_SHARE, Bound

DECIMALS = 9
"""Decimals of written bounds and radii."""


def probability_bounds(
    bound: Bound, counts: Sequence[int], selected: int, n: int, failure_prob: float
) -> tuple[float, float]:
    """p_lower and p_upper from the hits of each class among `n` samples.

    Args:
        counts: of each class; what they lack of n is lost.
        selected: class A, chosen on other samples than these.
        failure_prob: that p_lower or p_upper is wrong.
    """
    if bound == "one_class":
        p_lower = lower_bound(counts[selected], n, failure_prob)
        return p_lower, complement(p_lower)
    p_lower = lower_bound(counts[selected], n, (1 - RIVAL_SHARE) * failure_prob)
    return p_lower, min(
        upper_bound(rival_hits(counts, selected, n), n, RIVAL_SHARE * failure_prob), complement(p_lower)
    )


def rival_hits(counts: Sequence[int], selected: int, n: int) -> int:
    """The most hits that another class than `selected` can have had among `n` samples: lost ones may all be its own."""
    return max((*counts[:selected], *counts[selected + 1 :]), default=0) + n - sum(counts)


@lru_cache(2**16)  # many images have the same counts, and one bound takes statsmodels 0.4 ms
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


def upper_bound(k: int, n: int, failure_prob: float) -> float:
    """Clopper-Pearson upper bound: 1 less the lower bound on the probability of the n - k misses.

    (statsmodels' own upper end is wrong at extreme arguments.)
    """
    return complement(lower_bound(n - k, n, failure_prob))


def complement(p: float) -> float:
    """1 - p, of a `p` of `DECIMALS` decimals, to the same decimals: neither rounded down nor up."""
    return round(1 - p, DECIMALS)


def certified_radius(p_lower: float, sigma: float, p_upper: float | None = None) -> float:
    """sigma / 2 * (Phi^-1(p_lower) - Phi^-1(p_upper)), rounded down.

    Args:
        p_upper: by default 1 - p_lower, which gives sigma * Phi^-1(p_lower).

    Raises:
        ValueError: not 0 < p_upper < p_lower < 1: there is nothing to certify.
    """
    if p_upper is None and 0.5 < p_lower < 1:
        return round_down(sigma * float(ndtri(p_lower)))
    if p_upper is None or not 0 < p_upper < p_lower < 1:
        raise ValueError(f"p_lower is {p_lower!r} and p_upper {p_upper!r}: a radius needs 0 < p_upper < p_lower < 1")
    return round_down(sigma / 2 * float(ndtri(p_lower) - ndtri(p_upper)))


def largest_radius(n: int, failure_prob: float, sigma: float, bound: Bound) -> float:
    """The radius when all `n` samples agree: no certificate can be larger."""
    for_hits = failure_prob * (1 - RIVAL_SHARE if bound == "two_class" else 1)
    return certified_radius(round_down(for_hits ** (1 / n)), sigma)


def round_down(value: float) -> float:
    """The largest number of `DECIMALS` decimals that is surely not above the exact value behind `value` >= 0.

    The computed value may lie above the exact one by a few units in the last place, so it is lowered by a relative
    1e-12 first: more than those units and the rounding of the result to binary together.
    """
    scale = 10**DECIMALS
    return math.floor(value * (1 - 1e-12) * scale) / scale
