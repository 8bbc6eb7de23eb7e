"""Bounds and radii against closed forms, the binomial distribution itself, and 50-digit arithmetic."""

from decimal import Decimal

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtri
from statsmodels.stats.proportion import proportion_confint

from components.certification.bounds import (
    DECIMALS,
    certified_radius,
    drawn_sigma,
    largest_radius,
    lower_bound,
    round_down,
)
from components.certification.noise import noisy_copies
from components.certification.noise.reference import gaussian_noise
from components.params import smallest_n

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
    for p in np.concatenate(random):
        sigma = float(rng.choice([0.12, 0.25, 0.5, 1.0, 2.0, rng.uniform(0.01, 3)]))
        radius, exact = certified_radius(float(p), sigma), drawn_sigma(sigma) * exact_quantile(float(p))
        assert mpmath.mpf(str(written(radius))) <= exact
        assert mpmath.mpf(radius) <= exact
        assert exact - 2 * UNIT <= radius


@pytest.mark.parametrize("sigma", [0.1, 0.12, 0.7, 1.4, 2.8])
def test_radii_hold_for_the_noise_that_is_drawn(sigma):
    """Noise is scaled in float32, which makes .7, 1.4 and 2.8 smaller and the others larger."""
    noise = gaussian_noise(seed=1, index=0, start=0, stop=1, values=64)
    drawn = noisy_copies(torch.zeros(1, 8, 8), sigma, seed=1, index=0, start=0, stop=1).numpy().ravel()
    assert np.array_equal(drawn, np.float32(sigma) * noise.ravel())
    for p in (0.6, 0.9, 0.9999):
        quantile = exact_quantile(p)
        allowed = min(mpmath.mpf(sigma), mpmath.mpf(float(np.float32(sigma)))) * quantile
        assert allowed - 2 * UNIT <= certified_radius(p, sigma) <= allowed


@pytest.mark.parametrize("sigma", [0.125, 0.25, 0.5, 0.75, 1.0, 2.0])
def test_a_sigma_that_float32_holds_is_taken_as_it_is(sigma):
    assert drawn_sigma(sigma) == sigma
    for p in np.linspace(0.5001, 0.9999, 50):
        assert certified_radius(float(p), sigma) == round_down(sigma * float(ndtri(p)))


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
            assert largest_radius(n, 0.001, sigma) == pytest.approx(cap * sigma, abs=6e-4)
        assert largest_radius(n, 0.001, 0.5) == certified_radius(lower_bound(n, n, 0.001), 0.5)


@pytest.mark.parametrize("failure_prob", [0.3, 0.25, 0.05, 0.001, 1e-6])
def test_the_smallest_n_is_the_first_that_can_certify(failure_prob):
    n = smallest_n(failure_prob)
    assert lower_bound(n, n, failure_prob) > 0.5
    assert lower_bound(n - 1, n - 1, failure_prob) <= 0.5 if n > 1 else failure_prob > 0.5
