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
from scipy.special import ndtri
from statsmodels.stats.proportion import proportion_confint

from components.certification import cohen, preset_radii
from components.certification.bounds import certified_radius, lower_bound
from components.certification.cohen import is_futile
from components.certification.preset_radii import anytime_lower_bound, decide, largest_preset_radius, next_look
from components.certification.table import ABSTAIN, Certificate, format_row
from tests.support.half_spaces import GRID, HalfSpaces, sampler_of, steps
from tests.support.procedures import certify_image, certify_radii

IMAGE = steps(0.5, 0.5)
SIGMAS = (0.12, 0.25, 0.5, 1.0)
MARGIN = 1e-5
"""Of sigma: how far the truth lies below what the procedure can give. Far more than the rounding of a score."""


@pytest.fixture(autouse=True)
def cached_bounds(monkeypatch):
    """The same functions, each value computed once."""
    monkeypatch.setattr(cohen, "lower_bound", functools.cache(lower_bound))
    monkeypatch.setattr(cohen, "is_futile", functools.cache(is_futile))
    monkeypatch.setattr(preset_radii, "decide", functools.cache(decide))
    monkeypatch.setattr(preset_radii, "anytime_lower_bound", functools.cache(anytime_lower_bound))


def too_many(failures, attempts, failure_prob):
    """Whether so many failures refute that each happens with `failure_prob` at most."""
    return stats.binomtest(int(failures), attempts, failure_prob, alternative="greater").pvalue < 1e-6


def failures(procedure, sampler, truth, attempts, **options):
    """How many of the attempts certify a class other than 1, or a radius above the truth."""
    certificates = (procedure(sampler, IMAGE, seed=11, index=i, **options) for i in range(attempts))
    return sum(c.predict != ABSTAIN and (c.predict != 1 or c.radius > truth) for c in certificates)


def at(truth, sigma, direction=(0.6, -0.8124)):
    """A sampler of a linear classifier that has IMAGE inside its class 1, and the exact radius there, near `truth`.

    The direction is such that the border meets hardly a point of the grid.
    """
    direction = torch.tensor(direction, dtype=torch.float64)
    network = HalfSpaces(direction.tolist(), truth * float(direction.norm()) - 0.5 * float(direction.sum()))
    return sampler_of(network, IMAGE, sigma=sigma), max(network.radius(IMAGE, sigma), 0.0)


class Attempts:
    """The samples of many attempts, computed at once for speed: to a procedure it looks like a sampler."""

    def __init__(self, classes, sigma):
        """Args:
        classes: of each sample, int (attempts, samples); attempt i is that of image i.
        """
        self.classes, self.sigma = classes, sigma

    def stream(self, image, *, seed, index, start=0):
        return Attempt(self.classes[index, start:])


class Attempt:
    def __init__(self, classes):
        self.rest = classes

    def count(self, num):
        assert num <= len(self.rest)
        now, self.rest = self.rest[:num], self.rest[num:]
        return np.bincount(now, minlength=2)


def sampled(sampler, attempts, samples, image=IMAGE):
    """Attempts with real noise and the real network."""
    sampler.block = TOGETHER * samples
    blocks = [sampler.predictions(image, 11, index, 0).to(torch.uint8) for index in range(-(-attempts // TOGETHER))]
    return Attempts(torch.cat(blocks).view(-1, samples)[:attempts].numpy(), sampler.sigma)


TOGETHER = 20
"""Attempts that share a forward and the number of an image."""


class Drawn:
    """Counts from the binomial distribution itself: each sample hits class 1 with probability p, else class 0."""

    def __init__(self, p, sigma):
        self.p, self.sigma, self.rng = p, sigma, np.random.default_rng(0)

    def stream(self, image, *, seed, index, start=0):
        return self

    def count(self, num):
        hits = self.rng.binomial(num, self.p)
        return np.array([num - hits, hits])


# --- the reference procedure -------------------------------------------------------------------------------------


def worst_radii(n, failure_prob, sigma):
    """Truths at which the reference procedure fails as often as it may: the border, and just below radii it gives."""
    hits = [cohen.hits_needed(n, failure_prob) + 1, int(0.75 * n), int(0.97 * n), n]
    return [0.0, *(certified_radius(lower_bound(k, n, failure_prob), sigma) - MARGIN * sigma for k in hits)]


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
    if p_lower <= 0.5:
        return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), n0, p_lower)
    return Certificate(selected, certified_radius(p_lower, sampler.sigma), selected, counts.tolist(), n0, p_lower)


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
    monkeypatch.setattr(cohen, "lower_bound", upper_end)
    assert too_many(failures(certify_image, attempts, truth, 200, **options), 200, failure_prob)


def test_doubling_the_failure_probability_twice_would_show(monkeypatch):
    truth = certified_radius(lower_bound(220, 300, 0.1), 0.5) - MARGIN * 0.5
    sampler, truth = at(truth, 0.5)
    attempts, options = sampled(sampler, 2000, 320), {"n0": 20, "n": 300, "failure_prob": 0.05}
    assert not too_many(failures(certify_image, attempts, truth, 2000, **options), 2000, 0.05)
    monkeypatch.setattr(cohen, "lower_bound", functools.cache(doubled_twice))
    assert too_many(failures(certify_image, attempts, truth, 2000, **options), 2000, 0.05)


def states_the_bound_when_it_stops(sampler, image, *, n0, n, failure_prob, seed, index):
    """Looks as early abstention does, but also stops once something is certified, and states the bound of a fixed
    number of samples at that look."""
    stream = sampler.stream(image, seed=seed, index=index)
    selected, counts, look = int(stream.count(n0).argmax()), stream.count(0), cohen.FIRST_LOOK
    while True:
        counts += stream.count(min(look, n) - int(counts.sum()))
        p_lower = cohen.lower_bound(int(counts[selected]), int(counts.sum()), failure_prob)
        if p_lower > 0.5:
            return Certificate(
                selected, certified_radius(p_lower, sampler.sigma), selected, counts.tolist(), n0, p_lower
            )
        if look >= n or cohen.is_futile(int(counts[selected]), look, n, failure_prob):
            return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), n0, p_lower)
        look *= 2


def test_stating_the_bound_at_the_look_that_stops_would_show():
    """On abstentions alone it would not: they stop on few hits, and the bound errs on many."""
    options = {"n0": 20, "n": 16_000, "failure_prob": 0.05}
    honest = failures(certify_image, Drawn(0.5, 0.5), 0.0, 2000, early_abstention=True, **options)
    mistaken = failures(states_the_bound_when_it_stops, Drawn(0.5, 0.5), 0.0, 2000, **options)
    assert not too_many(honest, 2000, 0.05)
    assert too_many(mistaken, 2000, 0.05)


# --- the sequential procedure ------------------------------------------------------------------------------------


def worst_presets(max_n, failure_prob, sigma):
    """Truths, and radii of which the first lies below and the others above them, two by a hair."""
    largest = largest_preset_radius(max_n, failure_prob, sigma)
    for share in (0.0, 0.4, 0.8):
        hair = round(share * largest + MARGIN * sigma, 9)
        yield share * largest, [r for r in (round(share * largest / 2, 9), hair, round(1.2 * hair, 9)) if r <= largest]


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_preset_radii_with_real_noise_fail_no_more_often_than_they_say(failure_prob):
    """20,000 attempts; up to 50 to 10,000 samples, four sigmas and three margins."""
    failed, tried, sigmas = 0, 0, cycle(SIGMAS)
    for max_n, each in ((50, 2000), (100, 2000), (400, 1500), (1000, 1000), (10_000, 167)):
        for truth, radii in worst_presets(max_n, failure_prob, sigma := next(sigmas)):
            sampler, truth = at(truth, sigma)
            options = {"radii": radii, "n0": 20, "max_n": max_n, "failure_prob": failure_prob}
            now = failures(certify_radii, sampled(sampler, each, 20 + max_n), truth, each, **options)
            assert not too_many(now, each, failure_prob), (max_n, sigma, truth)
            failed, tried = failed + now, tried + each
    assert tried >= 20_000
    assert not too_many(failed, tried, failure_prob)
    assert failed or failure_prob < 0.01, "some must fail for this to mean something"


def test_preset_radii_of_drawn_counts_fail_no_more_often_than_they_say():
    for truth, radii in worst_presets(10_000, 0.05, 0.5):
        options = {"radii": radii, "n0": 20, "max_n": 10_000, "failure_prob": 0.05}
        failed = failures(certify_radii, Drawn(stats.norm.cdf(truth / 0.5), 0.5), truth, 1500, **options)
        assert not too_many(failed, 1500, 0.05)


def hits_at_looks(p, max_n, attempts, seed=0):
    """Yields (k, t) at each look: k holds the hits of all attempts, each with probability p per sample."""
    rng, hits, t = np.random.default_rng(seed), np.zeros(attempts, dtype=np.int64), 0
    while t < max_n:
        look = next_look(t)
        hits, t = hits + rng.binomial(look - t, p, attempts), look
        yield hits, t


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_clopper_pearson_at_every_look_would_show(failure_prob):
    """The natural mistake: accept where the lower bound of a fixed number of samples, here those so far, exceeds p0."""
    p0, attempts = 0.6, 20_000
    honest, mistaken = np.zeros((2, attempts), dtype=bool)
    for k, t in hits_at_looks(p0, 20_000, attempts):
        honest |= decide(k, t, ndtri(p0), failure_prob, 1e-4) == "accept"
        mistaken |= stats.binom.sf(k - 1, t, p0) <= failure_prob
    assert not too_many(honest.sum(), attempts, failure_prob)
    assert too_many(mistaken.sum(), attempts, failure_prob)


def test_clopper_pearson_in_the_place_of_the_mixture_would_show(monkeypatch):
    """The same mistake inside the procedure, with real noise."""

    @functools.cache
    def by_clopper_pearson(k, t, z, failure_prob, reject_prob):
        accepted, rejected = stats.binom.sf(k - 1, t, stats.norm.cdf(z)), stats.binom.cdf(k, t, stats.norm.cdf(z))
        return np.array("accept" if accepted <= failure_prob else "reject" if rejected <= reject_prob else "undecided")

    sampler, truth = at(0.1, 0.5)
    attempts = sampled(sampler, 2000, 2010)
    options = {"radii": [round(truth + MARGIN, 9)], "n0": 10, "max_n": 2000, "failure_prob": 0.05}
    assert not too_many(failures(certify_radii, attempts, truth, 2000, **options), 2000, 0.05)
    monkeypatch.setattr(preset_radii, "decide", by_clopper_pearson)
    assert too_many(failures(certify_radii, attempts, truth, 2000, **options), 2000, 0.05)
