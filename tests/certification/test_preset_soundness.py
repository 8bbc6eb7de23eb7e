"""Soundness of preset radii: no run is wrong more often than it says, and the natural mistakes are.

An attempt is one run with noise of its own. It fails where any look accepts more than the true radius or states a bound
on the wrong side of what it bounds: so that it does not matter at which look a run stops.
"""

import functools
from itertools import cycle

import numpy as np
import pytest
from scipy.special import ndtri

from components.certification import preset_radii
from components.certification.bounds import complement, lower_bound, upper_bound
from components.certification.confidence_sequences import anytime_lower_bound, anytime_upper_bound, log_mixture
from components.certification.preset_radii import (
    MOSTLY,
    TRUNCATED,
    accepted_radius,
    anytime_bounds,
    deciding,
    largest_preset_radius,
    limits,
    rejected_radius,
)
from components.certification.sampling import answered
from tests.support.attempts import MARGIN, at, failures, sampled, too_many
from tests.support.presets import looks
from tests.support.procedures import certify_radii

ATTEMPTS = 20_000
SIGMAS = (0.12, 0.25, 0.5, 1.0)
BOUNDS = ["one_class", "two_class"]
anytime_lower_bound, anytime_upper_bound = functools.cache(anytime_lower_bound), functools.cache(anytime_upper_bound)
lower_bound, upper_bound = functools.cache(lower_bound), functools.cache(upper_bound)


@pytest.fixture(autouse=True)
def cached_bounds(monkeypatch):
    """The same functions, each value computed once."""
    monkeypatch.setattr(preset_radii, "anytime_lower_bound", anytime_lower_bound)
    monkeypatch.setattr(preset_radii, "anytime_upper_bound", anytime_upper_bound)


# --- counts that are drawn, class 0 being the selected one -------------------------------------------------------

PROBABILITIES = {
    "2 classes, a tie": [0.5, 0.5],
    "2 classes, sure": [0.93, 0.07],
    "3 classes, a tie": [0.4, 0.4, 0.2],
    "3 classes, all tie": [1 / 3, 1 / 3, 1 / 3],
    "3 classes, nearly two": [0.6, 0.395, 0.005],
    "3 classes, the wrong one": [0.44, 0.46, 0.1],
    "3 classes, sure": [0.9, 0.07, 0.03],
    "10 classes, all tie": [0.1] * 10,
    "10 classes, two rivals": [0.4, 0.25, 0.25, *[0.1 / 7] * 7],
    "10 classes, sure": [0.955, *[0.005] * 9],
}


def counts_at_looks(probabilities, max_n, lost=0.0, attempts=ATTEMPTS):
    """Yields the counts of each attempt (attempts, classes) and their number, at each look. Samples of class 1 are lost
    with probability `lost`."""
    rng, seen = np.random.default_rng(0), 0
    counts = np.zeros((attempts, len(probabilities)), dtype=np.int64)
    for t in looks(max_n):
        new = rng.multinomial(t - seen, probabilities, attempts)
        new[:, 1] -= rng.binomial(new[:, 1], lost)
        counts, seen = counts + new, t
        yield counts, t


def rivals(counts, t):
    """The most hits of another class than 0, with the lost samples."""
    return counts[:, 1:].max(axis=1) + t - counts.sum(axis=1)


def for_each(function, k, rival):
    """Its two values for each attempt, computed once for attempts whose numbers are the same."""
    different, attempt = np.unique(k << 32 | rival, return_inverse=True)
    numbers = zip((different >> 32).tolist(), (different & (1 << 32) - 1).tolist(), strict=True)
    return np.array([function(*both) for both in numbers]).reshape(-1, 2)[attempt].T


def refuted(probabilities, bounds_of, max_n, lost=0.0):
    """How many attempts fail at any look. `bounds_of(k, rival, t)` are p_lower and p_upper."""
    p_a, p_c = probabilities[0], max(probabilities[1:])
    failed = np.zeros(ATTEMPTS, dtype=bool)
    for counts, t in counts_at_looks(probabilities, max_n, lost):
        p_lower, p_upper = for_each(lambda k, rival, t=t: bounds_of(k, rival, t), counts[:, 0], rivals(counts, t))
        failed |= claims_too_much(p_lower, p_upper, p_a, p_c)
    return failed.sum()


def claims_too_much(p_lower, p_upper, p_a, p_c):
    accepts, radius = p_lower > p_upper, ndtri(p_lower) - ndtri(p_upper)
    return (p_lower > p_a) | (p_upper < p_c) | (accepts & ((p_a <= p_c) | (radius > ndtri(p_a) - ndtri(p_c) + 1e-9)))


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("name", PROBABILITIES)
def test_runs_fail_no_more_often_than_they_say(name, bound):
    for failure_prob, max_n in ((0.05, 2000), (0.001, 800)):
        failed = refuted(
            PROBABILITIES[name], functools.partial(bounds_at, bound=bound, failure_prob=failure_prob), max_n
        )
        assert not too_many(failed, ATTEMPTS, failure_prob)


def bounds_at(k, rival, t, bound="two_class", failure_prob=0.05):
    return anytime_bounds(bound, k, rival, t, failure_prob)


def test_some_fail_else_this_would_mean_nothing():
    assert refuted([0.6, 0.4], bounds_at, 3000) > 10


@pytest.mark.parametrize("lost", [0.1, 1.0])
def test_lost_samples_make_no_run_unsound(lost):
    for probabilities in ([0.46, 0.48, 0.06], [0.6, 0.4]):
        assert not too_many(refuted(probabilities, bounds_at, 3000, lost), ATTEMPTS, 0.05)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("name", PROBABILITIES)
def test_rejections_are_wrong_no_more_often_than_they_say(name, bound):
    """Of a radius just below the true one, or of what the one-class bound can reach of it."""
    probabilities = PROBABILITIES[name]
    p_c = 1 - probabilities[0] if bound == "one_class" else max(probabilities[1:])
    truth, wrong = (ndtri(probabilities[0]) - ndtri(p_c)) / 2, np.zeros(ATTEMPTS, dtype=bool)
    for counts, t in counts_at_looks(probabilities, 1000):

        def rejected(k, rival, t=t):
            radius = rejected_radius(*limits(bound, k, rival, t, 0.05, len(probabilities)), 1.0)
            return radius, radius

        wrong |= for_each(rejected, counts[:, 0], rivals(counts, t))[0] < truth
    assert not too_many(wrong.sum(), ATTEMPTS, 0.05)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_run_accepts_what_its_looks_accept(bound):
    """Which ties the looks above to the procedure: the same counts, and some radii."""
    radii, probabilities = [0.0, 0.1, 0.2, 0.3, 0.4], [0.6, 0.3, 0.1]
    at_looks = [(counts[:100], t) for counts, t in counts_at_looks(probabilities, 3000, 0.01)]
    for attempt in range(100):
        given, before = [np.array([20, 0, 0]), np.zeros(3, dtype=int)], 0
        for counts, _ in at_looks:
            given.append(counts[attempt] - before)
            before = counts[attempt]
        options = {"n0": 20, "max_n": 3000, "failure_prob": 0.05, "bound": bound, "reject_prob": 1e-9, "index": 0}
        run = answered(deciding(0.5, radii, **options), functools.partial(lambda rest, _: next(rest), iter(given)))
        reached = -1.0
        for counts, t in at_looks:
            bounds = anytime_bounds(bound, int(counts[attempt, 0]), int(rivals(counts, t)[attempt]), t, 0.05)
            reached = max(reached, accepted_radius(*bounds, 0.5))
        accepted = [answer.radius for answer in run.answers if answer.decision == "accept"]
        assert accepted == [radius for radius in radii if radius <= reached]


# --- real noise --------------------------------------------------------------------------------------------------


@pytest.mark.medium
@pytest.mark.parametrize(("failure_prob", "bound"), [(0.05, "two_class"), (0.001, "one_class"), (0.05, "one_class")])
def test_runs_with_real_noise_fail_no_more_often_than_they_say(failure_prob, bound):
    """Up to 50 to 2000 samples, four sigmas and three margins."""
    failed, tried, sigmas = 0, 0, cycle(SIGMAS)
    for max_n, each in ((50, 1000), (400, 600), (2000, 100)):
        for share in (0.0, 0.4, 0.8):
            sigma = next(sigmas)
            sampler, truth = at(share * largest_preset_radius(max_n, failure_prob, sigma, bound), sigma)
            hair = round(truth + MARGIN * sigma, 9)
            radii = [round(truth / 2, 9), hair, round(1.2 * hair, 9)]
            options = {"radii": radii, "n0": 20, "max_n": max_n, "failure_prob": failure_prob, "bound": bound}
            now = failures(certify_radii, sampled(sampler, each, 20 + max_n), truth, each, **options)
            assert not too_many(now, each, failure_prob), (max_n, sigma, truth)
            failed, tried = failed + now, tried + each
    assert not too_many(failed, tried, failure_prob)
    assert failed or failure_prob < 0.01, "some must fail for this to mean something"


# --- what would be wrong with it ---------------------------------------------------------------------------------


def with_all_of_failure_prob_on_each_side(k, rival, t):
    """The larger of the radii of both bounds, neither of which pays for the other."""
    p_lower = anytime_lower_bound(k, t, 0.05, MOSTLY)
    return p_lower, min(anytime_upper_bound(rival, t, 0.05, TRUNCATED), complement(p_lower))


def by_clopper_pearson(k, rival, t):
    """The natural mistake: bounds for a number of samples that was fixed beforehand, here those so far."""
    p_lower = lower_bound(k, t, 0.045)
    return p_lower, min(upper_bound(rival, t, 0.005), complement(p_lower))


def allowed(p_lower, p_upper, k, rival, t):
    """The probability with which Ville's inequality lets either bound be wrong, by the evidence against it; the rival's
    mirrored."""
    of_hits = log_mixture(k, t, MOSTLY) - k * np.log(p_lower) - (t - k) * np.log1p(-p_lower)
    of_rival = log_mixture(t - rival, t, TRUNCATED) - rival * np.log(p_upper) - (t - rival) * np.log1p(-p_upper)
    return np.exp(-of_hits) + np.exp(-of_rival)


@pytest.mark.parametrize(("k", "rival", "t"), [(400, 250, 1000), (30, 10, 50), (5500, 2000, 10_000)])
def test_all_of_failure_prob_on_each_side_would_show(k, rival, t):
    """Ville's inequality has room to spare in so few looks, so this is not left to chance."""
    assert 0.049 < allowed(*bounds_at(k, rival, t), k, rival, t) <= 0.05
    assert allowed(*with_all_of_failure_prob_on_each_side(k, rival, t), k, rival, t) > 0.09


@pytest.mark.parametrize("probabilities", [[0.5, 0.5], [0.6, 0.25, 0.15]])
def test_clopper_pearson_at_every_look_would_show(probabilities):
    assert not too_many(refuted(probabilities, bounds_at, 4000), ATTEMPTS, 0.05)
    assert too_many(refuted(probabilities, by_clopper_pearson, 4000), ATTEMPTS, 0.05)


def refuted_with_rival(probabilities, rival_of, lost=0.0, max_n=3000):
    """As `refuted`, with the rival's hits from `rival_of(counts at all looks)`: for each look, (attempts,)."""
    p_a, p_c = probabilities[0], max(probabilities[1:])
    failed, at_looks = np.zeros(ATTEMPTS, dtype=bool), list(counts_at_looks(probabilities, max_n, lost))
    for (counts, t), rival in zip(at_looks, rival_of(at_looks), strict=True):
        p_lower, p_upper = for_each(lambda k, hits, t=t: bounds_at(k, hits, t), counts[:, 0], rival)
        failed |= claims_too_much(p_lower, p_upper, p_a, p_c)
    return failed.sum()


def honest(at_looks):
    return [rivals(counts, t) for counts, t in at_looks]


def a_class_named_beforehand(at_looks):
    return [counts[:, 2] for counts, _ in at_looks]


def the_runner_up_of_the_first_look(at_looks):
    """Of the very samples that its bound counts, and kept."""
    chosen = 1 + at_looks[0][0][:, 1:].argmax(axis=1)
    return [np.take_along_axis(counts, chosen[:, None], 1)[:, 0] for counts, _ in at_looks]


def without_the_lost(at_looks):
    return [counts[:, 1:].max(axis=1) for counts, _ in at_looks]


MISTAKES = {
    "a rival named beforehand": (a_class_named_beforehand, [0.5, 0.3, 0.2], 0.0),
    "a rival chosen once on the same samples": (the_runner_up_of_the_first_look, [0.4, 0.24, *[0.18] * 2], 0.0),
    "a lost sample no hit of the rival": (without_the_lost, [0.46, 0.48, 0.06], 0.3),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_another_rival_would_show(name):
    mistake, probabilities, lost = MISTAKES[name]
    assert not too_many(refuted_with_rival(probabilities, honest, lost), ATTEMPTS, 0.05)
    assert too_many(refuted_with_rival(probabilities, mistake, lost), ATTEMPTS, 0.05)


def test_clopper_pearson_in_the_place_of_the_mixture_would_show(monkeypatch):
    """Inside the procedure, with real noise."""
    sampler, truth = at(0.1, 0.5)
    attempts = sampled(sampler, 1000, 2010)
    options = {"radii": [round(truth + MARGIN, 9)], "n0": 10, "max_n": 2000, "failure_prob": 0.05}
    assert not too_many(failures(certify_radii, attempts, truth, 1000, **options), 1000, 0.05)
    monkeypatch.setattr(preset_radii, "anytime_lower_bound", lambda k, t, prob, above: lower_bound(k, t, prob))
    assert too_many(failures(certify_radii, attempts, truth, 1000, **options), 1000, 0.05)
