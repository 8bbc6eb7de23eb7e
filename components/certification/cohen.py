"""The procedures of Cohen et al. 2019: CERTIFY (algorithm 2) and PREDICT (algorithm 1)."""

import functools
from typing import Any

from scipy.stats import betabinom, binomtest

from components.certification.bounds import certified_radius, lower_bound, probability_bounds, rival_hits
from components.certification.table import ABSTAIN, Certificate, Counting
from components.params import Bound

FUTILITY = 1e-6
"""Early abstention stops once the chance to pass 1/2 is below this."""
FIRST_LOOK = 1000
"""Samples before early abstention looks first; then at each doubling."""


def certifying(
    sigma: float, *, n0: int, n: int, failure_prob: float, bound: Bound, early_abstention: bool = False
) -> Counting[Certificate]:
    """Choose a class on the first `n0` samples, bound its probability, and its rivals', on `n` fresh ones.

    Args:
        early_abstention: abstain, with fewer samples, p_lower 0 and p_upper 1, once a radius has become improbable.
    """
    selected = int((yield n0).argmax())
    drawn, counts, look = 0, (yield 0), FIRST_LOOK
    while early_abstention and look < n:
        counts, drawn, look = counts + (yield look - drawn), look, 2 * look
        hits, rival = int(counts[selected]), rival_hits(counts.tolist(), selected, drawn)
        one_class = bound == "one_class"
        if is_futile(hits, drawn, n, failure_prob) if one_class else is_behind(hits, rival, drawn, n):
            # No bound is stated: Clopper-Pearson is for a size that was fixed beforehand.
            return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), n0, drawn, p_lower=0.0, p_upper=1.0)
    counts = counts + (yield n - drawn)
    p_lower, p_upper = probability_bounds(bound, counts.tolist(), selected, n, failure_prob)
    evidence: Any = (selected, counts.tolist(), n0, n, p_lower, p_upper)
    if p_lower <= p_upper:
        return Certificate(ABSTAIN, 0.0, *evidence)
    return Certificate(selected, certified_radius(p_lower, sigma, p_upper), *evidence)


def is_futile(k: int, t: int, n: int, failure_prob: float) -> bool:
    """Whether, after `k` hits in `t` samples, all `n` will hardly certify anything by the one-class bound.

    The hits among the n - t samples to come follow the Beta-binomial distribution under the prior Beta(1/2, 1/2).
    """
    if 2 * k > t:
        return False
    return bool(betabinom.sf(hits_needed(n, failure_prob) - k - 1, n - t, k + 0.5, t - k + 0.5) < FUTILITY)


def is_behind(k: int, rival: int, t: int, n: int) -> bool:
    """Whether, after `k` hits and `rival` ones in `t` samples, the class will hardly get more hits than the rival among
    all `n`, as the two-class bound needs.

    The two go on to get the same share of the samples, and each of these is a hit by the same prior.
    """
    if k > rival:
        return False
    to_come = round((n - t) * (k + rival) / t)
    return bool(betabinom.sf((to_come + rival - k) // 2, to_come, k + 0.5, rival + 0.5) < FUTILITY)


@functools.cache
def hits_needed(n: int, failure_prob: float) -> int:
    """The fewest hits in `n` samples that certify anything."""
    low, high = n // 2, n  # the answer lies in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lower_bound(middle, n, failure_prob) > 0.5 else (middle, high)
    return high


def predicting(*, n: int, failure_prob: float) -> Counting[int]:
    """The smoothed classifier's class, without a radius; `ABSTAIN` where two classes are too close to tell.

    The answer differs from the true one with probability `failure_prob` at most (a two-sided binomial test of the two
    most frequent classes; Hung and Fithian 2019).
    """
    counts = yield n
    first = int(counts.argmax())
    hits, rival = int(counts[first]), rival_hits(counts.tolist(), first, n)
    test = binomtest(hits, hits + rival, 0.5)
    return first if hits > rival and test.pvalue <= failure_prob else ABSTAIN
