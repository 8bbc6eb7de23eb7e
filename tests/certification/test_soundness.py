"""Soundness, tested on classifiers whose true radius is known: no procedure is wrong more often than it says, and the
natural mistakes are.

An attempt is one certification with noise of its own; it fails where it certifies another class, or more than the true
radius. The margins are those where failures are as likely as allowed: just below a radius that the procedure can give.
"""

import functools
from itertools import cycle

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from components.certification import bounds, cohen
from components.certification.bounds import certified_radius, complement, lower_bound
from components.certification.cohen import is_futile
from components.certification.table import ABSTAIN, Certificate, format_row
from tests.support.attempts import IMAGE, MARGIN, Attempts, Drawn, at, failures, sampled, too_many
from tests.support.half_spaces import GRID, HalfSpaces, sampler_of
from tests.support.procedures import certify_image

SIGMAS = (0.12, 0.25, 0.5, 1.0)


@pytest.fixture(autouse=True)
def cached_bounds(monkeypatch):
    """The same functions, each value computed once."""
    monkeypatch.setattr(bounds, "lower_bound", functools.cache(lower_bound))
    monkeypatch.setattr(cohen, "is_futile", functools.cache(is_futile))


# --- the reference procedure -------------------------------------------------------------------------------------


def worst_radii(n, failure_prob, sigma):
    """Truths at which the reference procedure fails as often as it may: the border, and just below radii it gives."""
    hits = [cohen.hits_needed(n, failure_prob) + 1, int(0.75 * n), int(0.97 * n), n]
    return [0.0, *(certified_radius(lower_bound(k, n, failure_prob), sigma) - MARGIN * sigma for k in hits)]


@pytest.mark.medium
@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_reference_certificates_with_real_noise_fail_no_more_often_than_they_say(failure_prob):
    """20,000 attempts; n from 100 to 10,000, four sigmas, five margins and three directions."""
    failed, tried, sigmas = 0, 0, cycle(SIGMAS)
    directions = cycle([(0.6, -0.8124), (1.0, 0.0371), (3.0, 4.1371)])
    for n, each in ((100, 1900), (300, 1500), (1000, 500), (10_000, 100)):
        for truth, sigma in zip(worst_radii(n, failure_prob, 1.0), sigmas, strict=False):
            sampler, truth = at(truth * sigma, sigma, next(directions))
            attempts = sampled(sampler, each, 20 + n)
            now = failures(certify_image, attempts, truth, each, n0=20, n=n, failure_prob=failure_prob)
            assert not too_many(now, each, failure_prob), (n, sigma, truth)
            failed, tried = failed + now, tried + each
    assert tried == 20_000
    assert not too_many(failed, tried, failure_prob)
    assert failed > 0.5 * failure_prob * tried, "failures must be near what is allowed for this to mean something"


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_reference_certificates_of_drawn_counts_fail_no_more_often_than_they_say(failure_prob):
    """20,000 attempts at n = 10,000, with counts from the binomial distribution itself."""
    for truth in worst_radii(10_000, failure_prob, 0.5):
        drawn = Drawn(stats.norm.cdf(truth / 0.5), 0.5)
        failed = failures(certify_image, drawn, truth, 4000, n0=100, n=10_000, failure_prob=failure_prob)
        assert not too_many(failed, 4000, failure_prob)


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_reference_certificates_in_bfloat16_fail_no_more_often_than_they_say(failure_prob):
    """The first value alone decides, by its sign, which no rounding changes: the radius is exact in bfloat16 too."""
    options = {"n0": 20, "n": 200, "failure_prob": failure_prob}
    failed = 0
    for truth in worst_radii(200, failure_prob, 0.25):
        steps_inside = int(truth * GRID + 0.5)  # the border lies half a step beyond the last one
        image = torch.tensor([[[steps_inside, 128]]], dtype=torch.int32)
        sampler = sampler_of(HalfSpaces([2.0, 0.0], 0.0), image, sigma=0.25, precision="bfloat16")
        attempts = sampled(sampler, 400, 220, image)
        failed += failures(certify_image, attempts, max(0.0, steps_inside - 0.5) / GRID, 400, **options)
    assert not too_many(failed, 2000, failure_prob)
    assert failure_prob < 0.01 or failed > 0.5 * failure_prob * 2000


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_certificates_with_early_abstention_fail_no_more_often_than_they_say(failure_prob):
    """10,000 attempts with drawn counts, at and near the border, where sampling stops early; the rest as without it."""
    options = {"n0": 100, "n": 10_000, "failure_prob": failure_prob, "early_abstention": True}
    for truth in worst_radii(10_000, failure_prob, 0.5)[:2]:
        drawn = Drawn(stats.norm.cdf(truth / 0.5), 0.5)
        failed = failures(certify_image, drawn, truth, 5000, **options)
        assert not too_many(failed, 5000, failure_prob)
        assert failed > 0.4 * failure_prob * 5000


def test_certificates_with_early_abstention_and_real_noise_fail_no_more_often_than_they_say():
    sampler, truth = at(0.0, 0.5)
    options = {"n0": 50, "n": 5000, "failure_prob": 0.05, "early_abstention": True}
    assert not too_many(failures(certify_image, sampled(sampler, 400, 5050), truth, 400, **options), 400, 0.05)


def test_attempts_one_by_one_fail_no_more_often_than_they_say_either():
    """Each with the sampler itself and an image's number of its own, as the pipeline does it."""
    truth = worst_radii(200, 0.05, 0.5)[2]
    sampler, truth = at(truth, 0.5)
    failed = failures(certify_image, sampler, truth, 500, n0=20, n=200, failure_prob=0.05)
    assert not too_many(failed, 500, 0.05)
    assert failed > 0.02 * 500


def probability_of_at_least(k, n, p):
    """The binomial tail, to the digits that mpmath works with; k above n p, where the terms fall."""
    term = mpmath.binomial(n, k) * p**k * (1 - p) ** (n - k)
    total = term
    for i in range(k, n):
        term *= (n - i) * p / ((i + 1) * (1 - p))
        total += term
        if term < total * mpmath.mpf(10) ** -30:
            break
    return total


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.37, 1.0])
def test_the_radius_in_the_table_is_not_above_the_exact_one_of_its_counts(sigma, failure_prob):
    """In 50 digits: at the p of the radius as it is written, so many hits are at most as likely as failure_prob; at
    that of a radius larger by a few units of the last decimals of bound and radius they are more likely."""
    rng = np.random.default_rng(0)
    options = {"n0": 20, "failure_prob": failure_prob, "seed": 0, "index": 0}
    for n in (100, 1000, 100_000):
        for k in (cohen.hits_needed(n, failure_prob), *rng.integers(0.6 * n, n, 4).tolist(), n):
            attempt = Attempts(np.repeat([1, 1, 0], [20, k, n - k])[None], sigma)
            certificate = certify_image(attempt, IMAGE, n=n, **options)
            assert certificate.predict == 1
            with mpmath.workdps(50):
                written = mpmath.mpf(format_row(0, 1, certificate).split("\t")[3])
                unit = 1e-9 * (1 + sigma / mpmath.npdf(written / sigma))
                assert probability_of_at_least(k, n, mpmath.ncdf(written / sigma)) <= failure_prob
                assert probability_of_at_least(k, n, mpmath.ncdf((written + 3 * unit) / sigma)) > failure_prob


# --- what would be wrong with it ---------------------------------------------------------------------------------


def selects_on_its_own_samples(sampler, image, *, n0, n, failure_prob, seed, index):
    """The classical mistake: the class is the winner of the very samples that its bound counts."""
    counts = sampler.stream(image, seed=seed, index=index, start=n0).count(n)
    selected, p_lower = int(counts.argmax()), lower_bound(int(counts.max()), n, failure_prob)
    return by_one_class(selected, counts, n0, p_lower, sampler.sigma)


def by_one_class(selected, counts, n0, p_lower, sigma):
    evidence = (selected, counts.tolist(), n0, int(counts.sum()), p_lower, complement(p_lower))
    if p_lower <= 0.5:
        return Certificate(ABSTAIN, 0.0, *evidence)
    return Certificate(selected, certified_radius(p_lower, sigma), *evidence)


def test_selecting_the_class_on_the_bound_s_own_samples_would_show():
    sampler, truth = at(0.0, 0.5)
    attempts = sampled(sampler, 2000, 1020)
    honest, mistaken = (
        failures(procedure, attempts, truth, 2000, n0=20, n=1000, failure_prob=0.05)
        for procedure in (certify_image, selects_on_its_own_samples)
    )
    assert not too_many(honest, 2000, 0.05)
    assert too_many(mistaken, 2000, 0.05)


def upper_end(k, n, failure_prob):
    """The wrong tail."""
    return min(proportion_confint(k, n, alpha=2 * failure_prob, method="beta")[1], 1 - 1e-9)


def doubled_twice(k, n, failure_prob):
    """The one-sided failure_prob taken for that of each of two sides."""
    return lower_bound(k, n, 2 * failure_prob)


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_the_wrong_end_of_the_interval_would_show(monkeypatch, failure_prob):
    sampler, truth = at(0.2, 0.5)
    attempts, options = sampled(sampler, 200, 320), {"n0": 20, "n": 300, "failure_prob": failure_prob}
    assert not too_many(failures(certify_image, attempts, truth, 200, **options), 200, failure_prob)
    monkeypatch.setattr(bounds, "lower_bound", upper_end)
    assert too_many(failures(certify_image, attempts, truth, 200, **options), 200, failure_prob)


def test_doubling_the_failure_probability_twice_would_show(monkeypatch):
    truth = certified_radius(lower_bound(220, 300, 0.1), 0.5) - MARGIN * 0.5
    sampler, truth = at(truth, 0.5)
    attempts, options = sampled(sampler, 2000, 320), {"n0": 20, "n": 300, "failure_prob": 0.05}
    assert not too_many(failures(certify_image, attempts, truth, 2000, **options), 2000, 0.05)
    monkeypatch.setattr(bounds, "lower_bound", functools.cache(doubled_twice))
    assert too_many(failures(certify_image, attempts, truth, 2000, **options), 2000, 0.05)


def states_the_bound_when_it_stops(sampler, image, *, n0, n, failure_prob, seed, index):
    """Looks as early abstention does, but also stops once something is certified, and states the bound of a fixed
    number of samples at that look."""
    stream = sampler.stream(image, seed=seed, index=index)
    selected, counts, look = int(stream.count(n0).argmax()), stream.count(0), cohen.FIRST_LOOK
    while True:
        counts += stream.count(min(look, n) - int(counts.sum()))
        p_lower = bounds.lower_bound(int(counts[selected]), int(counts.sum()), failure_prob)
        if p_lower > 0.5 or look >= n or cohen.is_futile(int(counts[selected]), look, n, failure_prob):
            return by_one_class(selected, counts, n0, p_lower, sampler.sigma)
        look *= 2


def test_stating_the_bound_at_the_look_that_stops_would_show():
    """On abstentions alone it would not: they stop on few hits, and the bound errs on many."""
    options = {"n0": 20, "n": 16_000, "failure_prob": 0.05}
    honest = failures(certify_image, Drawn(0.5, 0.5), 0.0, 2000, early_abstention=True, **options)
    mistaken = failures(states_the_bound_when_it_stops, Drawn(0.5, 0.5), 0.0, 2000, **options)
    assert not too_many(honest, 2000, 0.05)
    assert too_many(mistaken, 2000, 0.05)
