"""Preset radii decided sequentially: exact probabilities, simulation, 50-digit arithmetic, linear classifiers."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtr, ndtri

from components.certification import sequential
from components.certification.bounds import DECIMALS
from components.certification.sampling import BLOCK, count_classes
from components.certification.sequential import (
    ROUNDING,
    Answer,
    anytime_lower_bound,
    certify_radii,
    decide,
    largest_preset_radius,
    log_mixture,
    next_look,
)
from components.certification.table import ABSTAIN
from tests.half_spaces import HalfSpaces

SIGMA = 0.5
UNIT = 10.0**-DECIMALS
ATTEMPTS = 20_000


IMAGE = torch.tensor([0.5, 0.5]).view(1, 1, 2)


def at(radius):
    """A classifier with IMAGE at that distance inside its class 1."""
    return HalfSpaces([1.2, -1.6], 2 * radius + 0.2)


def run(network, radii, **options):
    """certify_radii of IMAGE."""
    plain = {"sigma": SIGMA, "num_classes": 2, "n0": 100, "max_n": 10_000, "failure_prob": 0.001, "seed": 0, "index": 0}
    return certify_radii(network, IMAGE, radii=radii, **plain | options)


def decisions(certificate):
    return [answer.decision for answer in certificate.answers]


def looks(max_n):
    sizes = [next_look(0)]
    while sizes[-1] < max_n:
        sizes.append(next_look(sizes[-1]))
    return sizes


def hits_at_looks(p, max_n, attempts=ATTEMPTS, seed=0):
    """Yields (k, t) at each look: k holds the hits of all attempts, each with probability p per sample."""
    rng, hits, seen = np.random.default_rng(seed), np.zeros(attempts, dtype=np.int64), 0
    for t in looks(max_n):
        hits, seen = hits + rng.binomial(t - seen, p, attempts), t
        yield hits, t


def too_many(failures, attempts, failure_prob):
    """Whether so many failures refute that each happens with `failure_prob` at most."""
    return stats.binomtest(int(failures), attempts, failure_prob, alternative="greater").pvalue < 1e-6


@pytest.fixture
def recorded(monkeypatch):
    """The sample ranges that are drawn."""
    ranges = []

    def recording(*arguments, start, stop, **options):
        ranges.append((start, stop))
        return count_classes(*arguments, start=start, stop=stop, **options)

    monkeypatch.setattr(sequential, "count_classes", recording)
    return ranges


@pytest.fixture
def scripted(monkeypatch):
    """Lets a test say how many of the samples of each call hit class 1; the last number stays."""
    shares = [1.0]

    def answer(*_, start, stop, **__):
        share = shares.pop(0) if len(shares) > 1 else shares[0]
        hits = round(share * (stop - start))
        return np.array([stop - start - hits, hits])

    monkeypatch.setattr(sequential, "count_classes", answer)
    return lambda *given: shares.__setitem__(slice(None), given)


# --- the statistic -----------------------------------------------------------------------------------------------


def test_the_mixture_is_a_probability_of_sequences():
    """That of a sequence is the sum of those of its two continuations, and 1 at the start: so that its ratio to any
    Bernoulli likelihood is a martingale that starts at 1."""
    assert log_mixture(0, 0) == 0
    t, k = np.arange(301)[:, None], np.arange(301)[None]
    inside = k <= t
    now, miss, hit = (log_mixture(np.minimum(k, t) + i, t + j) for i, j in [(0, 0), (0, 1), (1, 1)])
    assert np.logaddexp(miss, hit)[inside] == pytest.approx(now[inside], abs=1e-9)


@pytest.mark.parametrize("t", [50, 1000, 100_000, 10**7])
def test_the_threshold_is_met_to_within_the_rounding_allowance(t):
    """Evidence of exactly log(1/prob), to 50 digits, is too little; two allowances more are enough, on the one side for
    failure_prob and on the other for reject_prob."""
    rng, tried = np.random.default_rng(t), 0
    with mpmath.workdps(50):
        while tried < 60:
            z = float(rng.uniform(0, 8))
            near = rng.binomial(t, ndtr(z)) + rng.uniform(-7, 7) * np.sqrt(t) * np.exp(-z * z / 4)
            k = int(near if z < 3 else t - rng.integers(6))
            if not 0 <= k <= t:
                continue
            half, p0, q0 = mpmath.mpf(0.5), mpmath.ncdf(mpmath.mpf(z)), mpmath.ncdf(-mpmath.mpf(z))
            mixture = mpmath.loggamma(k + half) + mpmath.loggamma(t - k + half) - mpmath.loggamma(t + 1)
            exact = mixture - mpmath.log(mpmath.pi) - k * mpmath.log(p0) - (t - k) * mpmath.log(q0)
            if not 1 < exact < 100:
                continue
            tried += 1
            exactly, enough = float(mpmath.exp(-exact)), float(mpmath.exp(2 * ROUNDING - exact))
            assert decide(k, t, z, enough, exactly) == ("accept" if k / t > p0 else "undecided")
            assert decide(k, t, z, exactly, enough) == ("reject" if k / t < p0 else "undecided")


def test_larger_radii_are_never_easier():
    """The decisions along the radii are acceptances, then the undecided, then rejections, after any number of hits."""
    order = {"accept": 0, "undecided": 1, "reject": 2}
    z = np.linspace(0, 4, 401)[None]
    for t in (1, 7, 50, 400, 1000, 10_000):
        k = np.unique(np.linspace(0, t, 201).astype(int))[:, None]
        ranks = np.vectorize(order.get)(decide(k, t, z, 0.001, 1e-4))
        assert (np.diff(ranks, axis=1) >= 0).all()
    assert set(ranks.ravel()) == {0, 1, 2}


@pytest.mark.parametrize("t", [1, 50, 1000, 100_000, 10**6])
@pytest.mark.parametrize("failure_prob", [0.05, 0.001, 1e-9])
def test_all_hits_and_no_hits_have_closed_forms(t, failure_prob):
    with mpmath.workdps(50):
        exact = (mpmath.beta(t + mpmath.mpf(0.5), 0.5) / mpmath.pi * failure_prob) ** (mpmath.mpf(1) / t)
        assert exact - 2 * UNIT - 2 * ROUNDING / t <= anytime_lower_bound(t, t, failure_prob) <= exact
    assert anytime_lower_bound(0, t, failure_prob) == 0


def test_p_lower_is_the_largest_p0_that_the_test_accepts():
    rng = np.random.default_rng(0)
    for t in (50, 800, 10_000, 100_000):
        for k in rng.integers(1, t + 1, 10).tolist():
            bound = anytime_lower_bound(k, t, 0.001)
            assert 0 <= bound < k / t
            assert decide(k, t, ndtri(bound), 0.001, 0.001) == "accept" or bound < UNIT
            assert decide(k, t, ndtri(bound + 3 * UNIT), 0.001, 0.001) == "undecided"


def test_the_largest_radii_are_those_of_the_specification():
    assert largest_preset_radius(100_000, 0.001, 1.0) == pytest.approx(3.648, abs=6e-4)
    for max_n in (50, 1000, 100_000):
        largest = largest_preset_radius(max_n, 0.001, SIGMA)
        assert largest == pytest.approx(SIGMA * largest_preset_radius(max_n, 0.001, 1.0), abs=2 * UNIT)
        assert decide(max_n, max_n, largest / SIGMA, 0.001, 0.001) == "accept"
        assert decide(max_n, max_n, largest / SIGMA + 1e-4, 0.001, 0.001) == "undecided"


# --- soundness, simulated and exact ------------------------------------------------------------------------------


def ever_decided(p, p0, decision, prob, longest=500):
    """The exact probability that a test with a look at *every* sample ever takes that decision."""
    paths, total = np.ones(1), 0.0
    for t in range(1, longest + 1):
        paths = np.append(paths, 0) * (1 - p) + np.append(0, paths) * p
        stopped = decide(np.arange(t + 1), t, ndtri(p0), prob, prob) == decision
        total += paths[stopped].sum()
        paths[stopped] = 0
    return total


@pytest.mark.parametrize("prob", [0.001, 0.05])
def test_the_exact_probability_of_a_wrong_decision_at_any_sample(prob):
    for p0 in (0.5, 0.6, 0.9):
        wrong = [ever_decided(p0, p0, "accept", prob), ever_decided(p0, p0, "reject", prob)]
        assert sum(wrong) <= prob
        assert sum(wrong) > prob / 2 or p0 > 0.6, "the test must be sharp enough for this to mean something"
        assert ever_decided(p0 - 0.01, p0, "accept", prob) < wrong[0]
        assert ever_decided(p0 + 0.01, p0, "reject", prob) < wrong[1]


def wrong_decisions(p, p0, prob, max_n):
    """How many attempts at any look wrongly accept p > p0, and how many p < p0."""
    accepted, rejected = np.zeros((2, ATTEMPTS), dtype=bool)
    for k, t in hits_at_looks(p, max_n):
        decision = decide(k, t, ndtri(p0), prob, prob)
        accepted |= decision == "accept"
        rejected |= decision == "reject"
    return accepted.sum(), rejected.sum()


@pytest.mark.parametrize("prob", [0.001, 0.05])
@pytest.mark.parametrize(("p0", "max_n"), [(0.5, 10_000), (0.84, 30_000), (0.98, 10_000)])
def test_simulated_attempts_decide_wrongly_no_more_often_than_they_may(p0, max_n, prob):
    at_p0 = wrong_decisions(p0, p0, prob, max_n)
    below, _ = wrong_decisions(p0 - 0.002, p0, prob, max_n)
    _, above = wrong_decisions(p0 + 0.002, p0, prob, max_n)
    assert not any(too_many(failures, ATTEMPTS, prob) for failures in (*at_p0, below, above))


def accepted_by_clopper_pearson(k, t, p0, failure_prob):
    """The natural mistake: accept where the lower bound of a fixed number of samples, here t, exceeds p0."""
    return stats.binom.sf(k - 1, t, p0) <= failure_prob


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_clopper_pearson_at_every_look_would_show(failure_prob):
    p0, honest, mistaken = 0.6, np.zeros(ATTEMPTS, dtype=bool), np.zeros(ATTEMPTS, dtype=bool)
    for k, t in hits_at_looks(p0, 20_000):
        honest |= decide(k, t, ndtri(p0), failure_prob, 1e-4) == "accept"
        mistaken |= accepted_by_clopper_pearson(k, t, p0, failure_prob)
    assert not too_many(honest.sum(), ATTEMPTS, failure_prob)
    assert too_many(mistaken.sum(), ATTEMPTS, failure_prob)


@pytest.mark.parametrize("p", [0.5, 0.7, 0.93])
def test_p_lower_of_all_looks_together_is_below_p(p):
    above = np.zeros(ATTEMPTS, dtype=bool)
    for k, t in hits_at_looks(p, 5000):
        values, attempt = np.unique(k, return_inverse=True)
        above |= np.array([anytime_lower_bound(value, t, 0.05) >= p for value in values.tolist()])[attempt]
    assert above.any()
    assert not too_many(above.sum(), ATTEMPTS, 0.05)


def test_all_radii_together_are_wrong_no_more_often_than_one():
    """p lies between the radii; those above it are wrong to accept, those below it wrong to reject."""
    p, p0 = 0.8, np.array([0.5, 0.6, 0.7, 0.79, 0.8, 0.801, 0.81, 0.82, 0.85, 0.9, 0.99])
    accepted, rejected = np.zeros((2, ATTEMPTS, len(p0)), dtype=bool)
    for k, t in hits_at_looks(p, 4000):
        decision = decide(k[:, None], t, ndtri(p0), 0.05, 0.05)
        accepted |= decision == "accept"
        rejected |= decision == "reject"
    assert not too_many(accepted[:, p0 >= p].any(axis=1).sum(), ATTEMPTS, 0.05)
    assert not too_many(rejected[:, p0 <= p].any(axis=1).sum(), ATTEMPTS, 0.05)
    assert accepted[:, p0 < 0.75].all()
    assert rejected[:, p0 > 0.84].all()


# --- completeness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "p0", "decision", "enough"),
    [
        (0.95, 0.84, "accept", 300),
        (0.99, 0.95, "accept", 800),
        (0.6, 0.5, "accept", 1000),
        (0.75, 0.84, "reject", 1000),
    ],
)
def test_clear_cases_need_few_samples(p, p0, decision, enough):
    used, other = np.zeros(2000), np.zeros(2000, dtype=bool)
    for k, t in hits_at_looks(p, 10_000, attempts=2000):
        answers = decide(k, t, ndtri(p0), 0.001, 1e-4)
        used[(used == 0) & (answers == decision)] = t
        other |= (used == 0) & ~np.isin(answers, ["undecided", decision])
    assert used.min() > 0, "all are decided"
    assert not other.any()
    assert used.mean() < enough


# --- one image ---------------------------------------------------------------------------------------------------


def test_radii_below_the_exact_one_are_accepted_and_those_above_rejected():
    certificate = run(at(0.5), [0, 0.1, 0.3, 0.45, 0.55, 0.7, 1.0], max_n=20_000)
    assert decisions(certificate) == ["accept"] * 4 + ["reject"] * 3
    assert (certificate.predict, certificate.selected, certificate.radius) == (1, 1, 0.45)
    assert ndtr(0.45 / SIGMA) - UNIT <= certificate.p_lower < ndtr(0.5 / SIGMA)
    assert certificate.n == sum(certificate.counts) == max(answer.t for answer in certificate.answers) < 20_000
    assert certificate.answers[0].t == 50, "the easiest radius is decided at the first look"
    for answer in certificate.answers:
        assert decide(answer.k, answer.t, answer.radius / SIGMA, 0.001, 1e-4) == answer.decision


def test_radii_scale_with_sigma():
    assert decisions(run(at(0.5), [0.4, 0.6], sigma=0.25)) == ["accept", "reject"]
    assert decisions(run(at(0.5), [0.4, 0.6], sigma=1.0)) == ["accept", "reject"]


def test_the_other_side_of_the_border_is_another_class():
    certificate = run(at(-0.5), [0.4, 0.6])
    assert (certificate.predict, certificate.radius, decisions(certificate)) == (0, 0.4, ["accept", "reject"])


def test_the_exact_radius_and_the_border_stay_undecided_or_rejected():
    certificate = run(at(0.5), [0.5], max_n=3000)
    assert decisions(certificate) == ["undecided"]
    assert (certificate.predict, certificate.radius, certificate.n) == (ABSTAIN, 0, 3000)
    assert certificate.answers[0] == Answer(0.5, "undecided", certificate.counts[1], 3000)
    assert certificate.p_lower == anytime_lower_bound(certificate.counts[1], 3000, 0.001)
    assert run(at(0.0), [0], max_n=3000).predict == ABSTAIN


def test_a_radius_of_zero_is_an_answer_of_its_own():
    certificate = run(at(0.5), [0])
    assert (certificate.predict, certificate.radius, decisions(certificate)) == (1, 0, ["accept"])


def test_real_attempts_at_the_exact_radius_fail_no_more_often_than_they_say():
    network = at(0.3)
    certificates = [run(network, [0.3], n0=10, max_n=400, failure_prob=0.05, index=i) for i in range(400)]
    assert not too_many(sum(c.predict == 1 for c in certificates), 400, 0.05)
    assert len({c.counts[1] for c in certificates}) > 20, "each with noise of its own"


def test_looks_grow_to_blocks_and_draw_each_sample_once(recorded):
    assert looks(3000) == [50, 100, 200, 400, 800, 1000, 2000, 3000]
    run(at(0.5), [0.5], n0=70, max_n=3000)
    assert recorded == [(0, 70)] + [(70 + a, 70 + b) for a, b in zip([0, *looks(2000)], looks(3000), strict=True)]
    assert all(stop - start <= BLOCK for start, stop in recorded)


def test_the_class_is_the_one_that_the_first_samples_choose(scripted):
    scripted(0.1, 0.9)
    certificate = run(at(0.5), [0, 0.2], n0=10)
    assert (certificate.selected, certificate.predict) == (0, ABSTAIN)
    assert decisions(certificate) == ["reject", "reject"]
    assert certificate.p_lower < 0.1


def test_what_was_decided_stays_whatever_follows(scripted):
    """All of the first 50 samples hit, none of the later ones."""
    scripted(1.0, 1.0, 0.0)
    certificate = run(at(0.5), [0.1, 0.3, 0.8])
    accepted, also, rejected = certificate.answers
    assert (accepted, also) == (Answer(0.1, "accept", 50, 50), Answer(0.3, "accept", 50, 50))
    assert rejected == Answer(0.8, "reject", 50, 100)
    assert (certificate.predict, certificate.radius, certificate.counts) == (1, 0.3, [50, 50])
    assert certificate.p_lower == anytime_lower_bound(50, 50, 0.001) > ndtr(0.3 / SIGMA)


# --- topping up --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.2, 0.45, 0.7])
def test_topping_up_gives_what_an_uninterrupted_run_gives(radius, recorded):
    radii, network = [0.1, 0.3, 0.4], at(radius)
    for index in range(5):
        recorded.clear()
        whole = run(network, radii, max_n=8000, index=index)
        drawn = recorded.copy()
        recorded.clear()
        topped_up = None
        for max_n in (50, 100, 800, 2000, 2000, 3000, 8000):
            topped_up = run(network, radii, max_n=max_n, index=index, earlier=topped_up)
            assert topped_up.n <= max_n
        assert topped_up == whole
        assert recorded == drawn


def test_topping_up_continues_an_undecided_answer_and_draws_nothing_for_a_decided_one(recorded):
    network = at(0.5)
    short = run(network, [0.45], max_n=100)
    assert decisions(short) == ["undecided"]
    recorded.clear()
    long = run(network, [0.45], max_n=20_000, earlier=short)
    assert decisions(long) == ["accept"]
    assert recorded[0] == (200, 300)
    recorded.clear()
    assert run(network, [0.45], max_n=100_000, earlier=long) == long
    assert recorded == []


def test_topping_up_keeps_what_was_accepted_though_the_counts_no_longer_would(scripted):
    scripted(0.9)
    short = run(at(0.5), [0.1, 0.45], max_n=50)
    assert decisions(short) == ["accept", "undecided"]
    assert decide(45, 100, 0.1 / SIGMA, 0.001, 1e-4) == "undecided"
    scripted(0.0)
    assert decisions(run(at(0.5), [0.1, 0.45], max_n=800, earlier=short)) == ["accept", "reject"]


@pytest.mark.parametrize(
    "change",
    [{"radii": [0.1]}, {"radii": [0.1, 0.5]}, {"n0": 50}, {"sigma": 1.0}, {"failure_prob": 1e-9}],
)
def test_topping_up_with_other_radii_or_settings_is_refused(change):
    earlier = run(at(0.45), [0.1, 0.49], max_n=400)
    assert decisions(earlier) == ["accept", "undecided"]
    with pytest.raises(ValueError, match="image 0: the earlier certificate has other"):
        run(at(0.45), **{"radii": [0.1, 0.49], "max_n": 800, "earlier": earlier} | change)


def test_a_forged_acceptance_is_refused():
    earlier = run(at(0.5), [0.45], max_n=100)
    forged = replace(earlier, answers=[replace(earlier.answers[0], decision="accept")])
    with pytest.raises(ValueError, match="earlier certificate"):
        run(at(0.5), [0.45], max_n=800, earlier=forged)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "radii", [[], [-0.1], [-0.1, 0.2], [0.2, 0.1], [0.1, 0.1], [float("nan")], [0.1, float("nan")]]
)
def test_radii_that_are_negative_unsorted_or_absent_are_refused(radii):
    with pytest.raises(ValueError, match="radii are"):
        run(at(0.5), radii)


@pytest.mark.parametrize("radius", [1.52, 3.0, float("inf")])
def test_radii_that_no_outcome_can_certify_are_refused_by_name(radius, recorded):
    """At sigma .5 and failure_prob .001, 10,000 samples reach 1.5168."""
    with pytest.raises(ValueError, match=f"radius {radius} cannot .* max_n = 10000 .* 0.001 .* at most 1.5168"):
        run(at(0.5), [0.5, radius])
    assert recorded == []
    assert decisions(run(at(2.9), [1.5168])) == ["accept"]


def test_a_radius_that_its_written_form_would_exceed_is_refused():
    with pytest.raises(ValueError, match="9 decimals"):
        run(at(0.5), [1 / 3])


@pytest.mark.parametrize("max_n", [0, -50, 49, 51, 700, 801, 1001, 10_500])
def test_a_size_that_is_no_look_is_refused(max_n):
    with pytest.raises(ValueError, match=f"max_n is {max_n}: .* look"):
        run(at(0.5), [0.1], max_n=max_n)


def test_a_size_that_certifies_nothing_is_refused():
    with pytest.raises(ValueError, match="max_n = 50 samples cannot certify anything at failure_prob 1e-15"):
        run(at(0.5), [0], max_n=50, failure_prob=1e-15)


@pytest.mark.parametrize("name", ["failure_prob", "reject_prob"])
@pytest.mark.parametrize("bad", [0.0, 0.5, -0.1, 1.0, float("nan")])
def test_probabilities_outside_their_range_are_refused(name, bad):
    with pytest.raises(ValueError, match=f"{name} is"):
        run(at(0.5), [0.1], **{name: bad})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.01, 1.01])
def test_images_that_are_not_in_the_unit_interval_are_refused(bad):
    image = torch.full((1, 1, 2), bad)
    with pytest.raises(ValueError, match=r"image 5 .* outside \[0, 1\]"):
        certify_radii(at(0.5), image, SIGMA, [0.1], num_classes=2, n0=10, max_n=50, failure_prob=0.001, seed=0, index=5)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="image 3: a logit is not finite"):
        run(HalfSpaces([1.0, 1.0], float("nan")), [0.1], index=3)
