"""Bounds that hold at all looks together: 50-digit arithmetic, exact probabilities, simulation."""

import mpmath
import numpy as np
import pytest
from scipy import stats

from components.certification.bounds import DECIMALS
from components.certification.confidence_sequences import (
    ROUNDING,
    anytime_lower_bound,
    anytime_upper_bound,
    log_mixture,
)
from tests.support.presets import looks

UNIT = 10.0**-DECIMALS
ATTEMPTS = 20_000
PRIORS = [0.5, 0.75, 1.0]


def too_many(failures, attempts, failure_prob):
    """Whether so many failures refute that each happens with `failure_prob` at most."""
    return stats.binomtest(int(failures), attempts, failure_prob, alternative="greater").pvalue < 1e-6


def exact_evidence(k, t, q, above):
    """In mpmath's digits, the incomplete beta function by its own series."""
    a, b = k + mpmath.mpf(0.5), t - k + mpmath.mpf(0.5)
    larger = mpmath.betainc(a, b, 0.5, 1) if t < 200 else tail(a, b)
    whole = mpmath.beta(a, b)
    mixture = 2 * (above * larger + (1 - above) * (whole - larger)) / mpmath.pi
    return mpmath.log(mixture) - k * mpmath.log(q) - (t - k) * mpmath.log(1 - q)


def tail(a, b):
    """The integral from 1/2 to 1, by the continued fraction of whichever side is the smaller."""
    if a < b:
        return lower_part(b, a)
    return mpmath.beta(a, b) - lower_part(a, b)


def lower_part(a, b):
    """B_x(a, b) at x = 1/2 for a >= b: x^a (1-x)^b / a times 2F1(a + b, 1; a + 1; x), whose terms are positive."""
    term, total, i = mpmath.mpf(1), mpmath.mpf(1), 0
    while term > total * mpmath.mpf(10) ** -45:
        term *= (a + b + i) / (a + 1 + i) / 2
        total, i = total + term, i + 1
    return mpmath.mpf(0.5) ** (a + b) / a * total


@pytest.mark.parametrize("above", PRIORS)
def test_the_mixture_is_a_probability_of_sequences(above):
    """That of a sequence is the sum of those of its two continuations, and 1 at the start: so that its ratio to any
    Bernoulli likelihood is a martingale that starts at 1."""
    assert log_mixture(0, 0, above) == pytest.approx(0, abs=1e-12)
    for t in (1, 2, 5, 20, 77, 300):
        for k in range(0, t + 1, max(1, t // 20)):
            continued = np.logaddexp(log_mixture(k, t + 1, above), log_mixture(k + 1, t + 1, above))
            assert continued == pytest.approx(log_mixture(k, t, above), abs=1e-9)


@pytest.mark.parametrize("above", PRIORS)
@pytest.mark.parametrize("t", [50, 1000, 20_000])
def test_bounds_are_rounded_to_the_safe_side_of_the_exact_ones(t, above):
    """To 50 digits, the evidence at the bound suffices, and a few units of the last decimal above it no longer."""
    rng = np.random.default_rng(t)
    with mpmath.workdps(50):
        for k in [1, t // 2, t, t - 1, *rng.integers(2, t, 8).tolist()]:
            for failure_prob in (0.05, 0.001, 1e-7):
                bound, needed = anytime_lower_bound(k, t, failure_prob, above), -mpmath.log(failure_prob)
                if bound > 0:
                    assert bound < k / t
                    assert exact_evidence(k, t, mpmath.mpf(bound), above) >= needed
                slope = abs(t * bound - k) / max(bound * (1 - bound), UNIT)
                beyond = mpmath.mpf(bound + 2 * UNIT + 3 * ROUNDING / max(slope, 1))
                assert beyond >= 1 or exact_evidence(k, t, beyond, above) < needed


@pytest.mark.medium
def test_the_error_of_the_evidence_is_far_below_the_allowance():
    with mpmath.workdps(50):
        for t in (10_000, 200_000):
            for k in (t // 2, t // 2 + 40, int(0.52 * t), t - 3):
                for above in PRIORS:
                    computed = log_mixture(k, t, above) - k * np.log(0.6) - (t - k) * np.log1p(-0.6)
                    assert abs(computed - exact_evidence(k, t, mpmath.mpf(0.6), above)) < ROUNDING / 10


@pytest.mark.parametrize("t", [1, 50, 1000, 100_000, 10**6])
@pytest.mark.parametrize("failure_prob", [0.05, 0.001, 1e-9])
def test_all_hits_and_no_hits_have_closed_forms(t, failure_prob):
    with mpmath.workdps(50):
        exact = (mpmath.beta(t + mpmath.mpf(0.5), 0.5) / mpmath.pi * failure_prob) ** (mpmath.mpf(1) / t)
        least, most = exact - 2 * UNIT - 2 * ROUNDING / t, exact
        assert least <= anytime_lower_bound(t, t, failure_prob, above=0.5) <= most
    assert anytime_lower_bound(0, t, failure_prob, above=0.5) == 0
    assert anytime_upper_bound(t, t, failure_prob, below=1.0) == 1


@pytest.mark.parametrize("above", PRIORS)
def test_bounds_grow_with_the_hits_and_enclose_their_share(above):
    for t in (1, 7, 50, 400, 3000):
        hits = np.unique(np.linspace(0, t, 150).astype(int)).tolist()
        lower = [anytime_lower_bound(k, t, 0.01, above) for k in hits]
        upper = [anytime_upper_bound(k, t, 0.01, above) for k in hits]
        assert (np.diff(lower) >= 0).all()
        assert (np.diff(upper) >= 0).all()
        assert all(low <= k / t <= high for low, k, high in zip(lower, hits, upper, strict=True))


def test_the_truncated_prior_is_nearer_above_a_half_and_the_full_one_below():
    for k, nearest in ((600, 1.0), (950, 1.0), (300, 0.5)):
        bounds = {above: anytime_lower_bound(k, 1000, 0.001, above) for above in PRIORS}
        assert max(bounds, key=bounds.get) == nearest
        assert bounds[0.75] > min(bounds.values())


def ever_at_least(p, least, failure_prob, above):
    """The exact probability that the bound, with a look at *every* one of 500 samples, ever reaches `least`."""
    paths, total, needed = np.ones(1), 0.0, 0  # the bound grows with the hits, and the hits needed with the samples
    for t in range(1, 501):
        paths = np.append(paths, 0) * (1 - p) + np.append(0, paths) * p
        while needed <= t and anytime_lower_bound(needed, t, failure_prob, above) < least:
            needed += 1
        total += paths[needed:].sum()
        paths[needed:] = 0
    return total


@pytest.mark.parametrize("above", [0.75, 1.0])
@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_the_exact_probability_that_a_bound_at_any_sample_is_wrong(failure_prob, above):
    for p in (0.5, 0.6, 0.9):
        wrong = ever_at_least(p, p, failure_prob, above)
        assert wrong <= failure_prob
        assert wrong > failure_prob / 4 or p > 0.6, "the bound must be sharp enough for this to mean something"
        assert ever_at_least(p - 0.01, p, failure_prob, above) < wrong


@pytest.mark.parametrize("above", PRIORS)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.7, 0.93])
def test_the_bounds_of_all_looks_together_hold(p, above):
    """20,000 attempts: a lower bound at p, and an upper one at 1 - p, which mirrors it."""
    rng, hits, seen = np.random.default_rng(0), np.zeros(ATTEMPTS, dtype=np.int64), 0
    wrong, mirrored = np.zeros((2, ATTEMPTS), dtype=bool)
    for t in looks(5000):
        hits, seen = hits + rng.binomial(t - seen, p, ATTEMPTS), t
        values, attempt = np.unique(hits, return_inverse=True)
        wrong |= np.array([anytime_lower_bound(k, t, 0.05, above) >= p for k in values.tolist()])[attempt]
        mirrored |= np.array([anytime_upper_bound(t - k, t, 0.05, above) <= 1 - p for k in values.tolist()])[attempt]
    assert not too_many(wrong.sum(), ATTEMPTS, 0.05)
    assert not too_many(mirrored.sum(), ATTEMPTS, 0.05)
    assert wrong.any() or (p < 0.5 and above == 1.0)
