"""The procedures of Cohen et al. 2019: CERTIFY (algorithm 2) and PREDICT (algorithm 1)."""

import functools

from scipy.stats import betabinom, binomtest

from components.certification.bounds import certified_radius, lower_bound
from components.certification.sampling import Counting
from components.certification.table import ABSTAIN, Certificate

FUTILITY = 1e-6
"""Early abstention stops once the chance to pass 1/2 is below this."""
FIRST_LOOK = 1000
"""Samples before early abstention looks first; then at each doubling."""


def certifying(
    sigma: float, *, n0: int, n: int, failure_prob: float, early_abstention: bool = False
) -> Counting[Certificate]:
    """Choose a class on the first `n0` samples, bound its probability on `n` fresh ones.

    Args:
        early_abstention: abstain, with fewer samples and p_lower 0, once a radius has become improbable.
    """
    selected = int((yield n0).argmax())
    counts, look = (yield 0), FIRST_LOOK
    if early_abstention:
        while look < n:
            counts = counts + (yield look - int(counts.sum()))
            if is_futile(int(counts[selected]), look, n, failure_prob):
                # No bound is stated: Clopper-Pearson is for a size that was fixed beforehand.
                return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), n0, p_lower=0.0)
            look *= 2
    counts = counts + (yield n - int(counts.sum()))
    p_lower = lower_bound(int(counts[selected]), n, failure_prob)
    if p_lower <= 0.5:
        return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), n0, p_lower)
    return Certificate(selected, certified_radius(p_lower, sigma), selected, counts.tolist(), n0, p_lower)


def is_futile(k: int, t: int, n: int, failure_prob: float) -> bool:
    """Whether, after `k` hits in `t` samples, all `n` will hardly certify anything.

    The hits among the n - t samples to come follow the Beta-binomial distribution under the prior Beta(1/2, 1/2).
    """
    if 2 * k > t:
        return False
    return bool(betabinom.sf(hits_needed(n, failure_prob) - k - 1, n - t, k + 0.5, t - k + 0.5) < FUTILITY)


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
    first, second = (int(label) for label in (-counts).argsort(stable=True)[:2])
    test = binomtest(int(counts[first]), int(counts[first] + counts[second]), 0.5)
    return first if test.pvalue <= failure_prob else ABSTAIN
