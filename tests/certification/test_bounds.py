"""Bounds and radii against closed forms, the binomial distribution itself, and 50-digit arithmetic."""

from decimal import Decimal

import mpmath
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from components.certification.bounds import (
    DECIMALS,
    certified_radius,
    complement,
    largest_radius,
    lower_bound,
    probability_bounds,
    rival_hits,
    round_down,
    upper_bound,
)
from components.params import RIVAL_SHARE, smallest_n

UNIT = 10.0**-DECIMALS


def written(value):
    """The number as the table and the screen show it."""
    return Decimal(f"{value:.{DECIMALS}f}")


def exact_quantile(p):
    """Phi^-1(p) to 50 digits."""
    return mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1)


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


@pytest.mark.parametrize("n", [1, 10, 100, 1000, 100_000, 10**7])
@pytest.mark.parametrize("failure_prob", [0.001, 0.05, 1e-9])
def test_all_hits_and_no_hits_have_closed_forms(n, failure_prob):
    exact = failure_prob ** (1 / n)
    assert exact - 2 * UNIT <= lower_bound(n, n, failure_prob) <= exact
    assert lower_bound(0, n, failure_prob) == 0.0


@pytest.mark.parametrize(("n", "failure_prob"), [(30, 0.05), (200, 0.05), (200, 0.001)])
def test_the_bound_is_too_high_with_the_failure_probability_at_most(n, failure_prob):
    """The chance that the bound lies above the true p, summed over the binomial distribution, also just below each
    value that the bound takes, where it is largest."""
    bounds = np.array([lower_bound(k, n, failure_prob) for k in range(n + 1)])
    for p in [*np.linspace(0.01, 0.99, 50), *np.nextafter(bounds[1:], 0)]:
        assert stats.binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum() <= failure_prob


@pytest.mark.parametrize(("n", "failure_prob"), [(30, 0.05), (200, 0.001), (100_000, 0.001)])
def test_the_bound_is_no_lower_than_it_must_be(n, failure_prob):
    for k in np.linspace(1, n, 20).astype(int):
        bound = lower_bound(int(k), n, failure_prob)
        assert stats.binom.sf(k - 1, n, bound) <= failure_prob < stats.binom.sf(k - 1, n, bound + 3 * UNIT)


def test_the_written_bound_is_below_the_exact_one():
    for k, n, failure_prob in [(9, 10, 0.05), (9999, 10_000, 0.001), (600, 1000, 0.001), (1, 1000, 0.05)]:
        bound = mpmath.mpf(str(written(lower_bound(k, n, failure_prob))))
        assert mpmath.betainc(k, n - k + 1, 0, bound, regularized=True) <= failure_prob


def test_the_bound_is_statsmodels_lower_end_at_twice_the_failure_probability():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 100_000))
        k = int(rng.integers(0, n + 1))
        reference = proportion_confint(k, n, alpha=0.002, method="beta")[0]
        assert reference - 2 * UNIT <= lower_bound(k, n, 0.001) <= reference


@pytest.mark.parametrize(
    ("k", "n", "failure_prob"),
    [(11, 10, 0.001), (-1, 10, 0.001), (0, 0, 0.001), (5, 10, 0.0), (5, 10, 0.5), (5, 10, -0.1), (5, 10, float("nan"))],
)
def test_what_would_give_a_silent_nan_is_refused(k, n, failure_prob):
    with pytest.raises(ValueError, match=r"needed|must be"):
        lower_bound(k, n, failure_prob)


@pytest.mark.parametrize("p", [0.5, 0.4, 0.0, 1.0, 1.1, float("nan")])
def test_a_probability_that_certifies_nothing_has_no_radius(p):
    with pytest.raises(ValueError, match="p_lower"):
        certified_radius(p, 0.5)


def test_the_written_radius_never_exceeds_the_exact_one_and_is_close_to_it():
    rng = np.random.default_rng(0)
    random = [0.5 + 0.5 * rng.random(300), 1 - 10 ** rng.uniform(-9, -1, 300), 0.5 + 10 ** rng.uniform(-9, -1, 300)]
    for p in np.concatenate(random).tolist():
        if not 0.5 < p < 1:
            continue
        sigma = float(rng.choice([0.12, 0.25, 0.5, 1.0, 2.0, rng.uniform(0.01, 3)]))
        exact = mpmath.mpf(sigma) * exact_quantile(p)
        radius = certified_radius(p, sigma)
        assert mpmath.mpf(str(written(radius))) <= exact
        assert mpmath.mpf(radius) <= exact
        assert exact - 2 * UNIT <= radius


@pytest.mark.parametrize("sigma", [0.1, 0.12, 0.7, 1.4, 2.8, 0.25, 1.0])
def test_radii_are_for_the_float64_sigma(sigma):
    """As the noise is (see test_discrete_normal): float32 has a larger .1 and a smaller .7."""
    for p in (0.6, 0.9, 0.9999):
        exact = mpmath.mpf(sigma) * exact_quantile(p)
        assert exact - 2 * UNIT <= certified_radius(p, sigma) <= exact


def test_the_written_radius_of_two_bounds_never_exceeds_the_exact_one_and_is_close_to_it():
    rng = np.random.default_rng(1)
    for _ in range(500):
        upper, lower = sorted(round(float(p), DECIMALS) for p in rng.uniform(1e-6, 1 - 1e-6, 2))
        sigma = float(rng.choice([0.12, 0.5, 1.4, rng.uniform(0.01, 3)]))
        exact = mpmath.mpf(sigma) / 2 * (exact_quantile(lower) - exact_quantile(upper))
        radius = certified_radius(lower, sigma, upper)
        assert exact - 2 * UNIT <= mpmath.mpf(str(written(radius))) <= exact


@pytest.mark.parametrize(("lower", "upper"), [(0.4, 0.4), (0.4, 0.5), (0.4, 0.0), (1.0, 0.3), (float("nan"), 0.3)])
def test_bounds_that_certify_nothing_have_no_radius(lower, upper):
    with pytest.raises(ValueError, match=r"p_lower is .* and p_upper"):
        certified_radius(lower, 0.5, upper)


def test_a_complement_keeps_the_decimals():
    for p in (0.1, 0.3, 0.7, 0.999999999, 0.123456789, 0.0, 1.0):
        assert Decimal(str(complement(p))) == 1 - Decimal(str(p))


@pytest.mark.parametrize(("n", "failure_prob"), [(30, 0.05), (200, 0.001)])
def test_the_upper_bound_is_too_low_with_the_failure_probability_at_most(n, failure_prob):
    bounds = np.array([upper_bound(k, n, failure_prob) for k in range(n + 1)])
    assert (np.diff(bounds) >= 0).all(), "it grows with the count, which the two-class bound relies on"
    for p in [*np.linspace(0.01, 0.99, 50), *np.nextafter(bounds[:-1], 1)]:
        assert stats.binom.pmf(np.arange(n + 1), n, p)[bounds < p].sum() <= failure_prob


def test_lost_samples_are_misses_of_the_class_and_hits_of_the_rival():
    counts, n = [70, 20, 5], 100  # 5 are lost
    assert rival_hits(counts, 0, n) == 25
    p_lower, p_upper = probability_bounds("two_class", counts, 0, n, 0.001)
    assert p_lower == lower_bound(70, n, (1 - RIVAL_SHARE) * 0.001)
    assert p_upper == min(upper_bound(25, n, RIVAL_SHARE * 0.001), complement(p_lower))
    assert p_upper > upper_bound(20, n, RIVAL_SHARE * 0.001)
    assert probability_bounds("one_class", counts, 0, n, 0.001) == (
        lower_bound(70, n, 0.001),
        complement(lower_bound(70, n, 0.001)),
    )


def wrong_answers(bounds_of, p, n):
    """The probability that class 0's certificate against classes of probabilities p[1:] is wrong, summed over all
    counts: p_lower too high or p_upper below the largest other probability."""
    wrong = 0.0
    for first in range(n + 1):
        for second in range(n + 1 - first):
            counts = [first, second, n - first - second]
            lower, upper = bounds_of(counts)
            if lower > upper and (lower > p[0] or upper < max(p[1:])):
                wrong += stats.multinomial.pmf(counts, n, p)
    return wrong


@pytest.mark.parametrize(
    "p", [(0.4, 0.3, 0.3), (0.34, 0.33, 0.33), (0.5, 0.49, 0.01), (0.2, 0.4, 0.4), (0.1, 0.1, 0.8)]
)
def test_the_two_class_bound_is_wrong_with_the_failure_probability_at_most(p):
    failure_prob = 0.05

    def bounds_of(counts):
        return probability_bounds("two_class", counts, 0, sum(counts), failure_prob)

    def of_a_fixed_rival(counts):
        """A mutant: the rival is the class that has the fewest hits."""
        return lower_bound(counts[0], 30, 0.9 * failure_prob), upper_bound(min(counts[1:]), 30, 0.1 * failure_prob)

    assert wrong_answers(bounds_of, p, 30) <= failure_prob
    if p == (0.2, 0.4, 0.4):
        assert wrong_answers(of_a_fixed_rival, p, 30) > wrong_answers(bounds_of, p, 30)


def test_rounding_down_never_rounds_up():
    rng = np.random.default_rng(0)
    decimals = rng.integers(0, 5 * 10**9, 2000) / 10**DECIMALS  # where a nearest rounding would stay
    for value in [*map(float, decimals), *map(float, 5 * rng.random(2000)), 0.0, 1e-12, 0.1, 0.3, 1.0, 3.0]:
        lowered = round_down(value)
        assert value - 2 * UNIT < lowered <= value
        assert written(lowered) <= Decimal(value)


def test_the_largest_radii_are_those_of_the_specification():
    caps = {10**3: 2.463, 10**4: 3.199, 10**5: 3.811, 10**6: 4.347}
    for n, cap in caps.items():
        for sigma in (0.25, 1.0):
            assert largest_radius(n, 0.001, sigma, "one_class") == pytest.approx(cap * sigma, abs=6e-4)
        for bound in ("one_class", "two_class"):
            p_lower, p_upper = probability_bounds(bound, [n, 0], 0, n, 0.001)
            assert largest_radius(n, 0.001, 0.5, bound) == pytest.approx(
                certified_radius(p_lower, 0.5, p_upper), abs=2 * UNIT
            )


@pytest.mark.parametrize("bound", ["one_class", "two_class"])
@pytest.mark.parametrize("failure_prob", [0.3, 0.25, 0.05, 0.001, 1e-6])
def test_the_smallest_n_is_the_first_that_can_certify(failure_prob, bound):
    n = smallest_n(failure_prob, bound)
    lower, upper = probability_bounds(bound, [n, 0], 0, n, failure_prob)
    assert lower > upper
    if n > 1:
        lower, upper = probability_bounds(bound, [n - 1, 0], 0, n - 1, failure_prob)
        assert lower <= upper
