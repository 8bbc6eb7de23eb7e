"""Preset radii decided sequentially: exact probabilities, simulation, 50-digit arithmetic, linear classifiers."""

from dataclasses import replace

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.special import ndtr, ndtri

from components.certification import preset_radii, table
from components.certification.bounds import DECIMALS
from components.certification.preset_radii import (
    COLUMNS,
    ROUNDING,
    Answer,
    anytime_lower_bound,
    certifiable,
    check_size,
    decide,
    format_row,
    largest_preset_radius,
    log_mixture,
    next_look,
    parse_row,
)
from components.certification.table import ABSTAIN
from tests.support.half_spaces import ByNumber, HalfSpaces, sampler_of
from tests.support.procedures import certify_radii

SIGMA = 0.5
UNIT = 10.0**-DECIMALS
ATTEMPTS = 20_000


IMAGE = torch.tensor([0.5, 0.5]).view(1, 1, 2)


def at(radius, sigma=SIGMA):
    """A sampler of a classifier that has IMAGE at that distance inside its class 1."""
    return sampler_of(HalfSpaces([1.2, -1.6], 2 * radius + 0.2), IMAGE, sigma=sigma)


def answering(labels, num_classes=2):
    """A sampler whose network answers to sample i of IMAGE what the list says."""
    return sampler_of(ByNumber(labels, num_classes, IMAGE, SIGMA), IMAGE, num_classes=num_classes)


def run(sampler, radii, **options):
    """certify_radii of IMAGE."""
    plain = {"n0": 100, "max_n": 10_000, "failure_prob": 0.001, "seed": 0, "index": 0}
    return certify_radii(sampler, IMAGE, radii, **plain | options)


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


class Recorded:
    """A sampler that keeps which samples were counted."""

    def __init__(self, sampler):
        self.sampler, self.sigma, self.ranges = sampler, sampler.sigma, []

    def stream(self, image, *, seed, index, start=0):
        stream = self.sampler.stream(image, seed=seed, index=index, start=start)
        count = stream.count

        def recording(num):
            if num:
                self.ranges.append((stream.position, stream.position + num))
            return count(num)

        stream.count = recording
        return stream


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
    assert decisions(run(at(0.5, 0.25), [0.4, 0.6])) == ["accept", "reject"]
    assert decisions(run(at(0.5, 1.0), [0.4, 0.6])) == ["accept", "reject"]


@pytest.mark.parametrize("sigma", [0.7, 1.4, 0.1, SIGMA])
def test_radii_are_decided_for_the_sigma_that_is_drawn(sigma, monkeypatch):
    """In float32, which makes .7 and 1.4 smaller."""
    asked = []
    monkeypatch.setattr(preset_radii, "decide", lambda k, t, z, *_: asked.append(z) or np.array("accept"))
    run(at(5.0, sigma), [0.2])
    assert set(asked) == {0.2 / min(sigma, float(np.float32(sigma)))}


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


def test_each_image_has_noise_of_its_own():
    assert len({run(at(0.3), [0.3], n0=10, max_n=400, index=i).counts[1] for i in range(50)}) > 10


def test_looks_grow_to_blocks_and_draw_each_sample_once():
    assert looks(3000) == [50, 100, 200, 400, 800, 1000, 2000, 3000]
    sampler = Recorded(at(0.5))
    run(sampler, [0.5], n0=70, max_n=3000)
    assert sampler.ranges == [(0, 70)] + [(70 + a, 70 + b) for a, b in zip([0, *looks(2000)], looks(3000), strict=True)]


def test_selection_and_decisions_use_disjoint_samples():
    """A network that names the samples: sample i is of class i, so that the counts say which were used."""
    sampler = answering(range(870), 870)
    certificate = run(sampler, [0.1], n0=70, max_n=800)
    assert certificate.selected == 0
    used = certificate.n
    assert certificate.counts == [0] * 70 + [1] * used + [0] * (800 - used)
    undecided = run(answering([0] * 70 + [*range(800)], 800), [0], n0=70, max_n=50, failure_prob=0.4, reject_prob=1e-99)
    topped_up = run(
        answering([0] * 70 + [*range(800)], 800),
        [0],
        n0=70,
        max_n=200,
        failure_prob=0.4,
        reject_prob=1e-99,
        earlier=undecided,
    )
    assert topped_up.counts == [1] * 200 + [0] * 600


def test_the_class_is_the_one_that_the_first_samples_choose():
    certificate = run(answering([0] * 6 + [1] * 4 + [1] * 500), [0, 0.2], n0=10)
    assert (certificate.selected, certificate.predict) == (0, ABSTAIN)
    assert decisions(certificate) == ["reject", "reject"]
    assert certificate.p_lower == 0


def test_what_was_decided_stays_whatever_follows():
    """All of the first 50 samples hit, none of the later ones."""
    certificate = run(answering([1] * 150 + [0] * 50), [0.1, 0.3, 0.8])
    accepted, also, rejected = certificate.answers
    assert (accepted, also) == (Answer(0.1, "accept", 50, 50), Answer(0.3, "accept", 50, 50))
    assert rejected == Answer(0.8, "reject", 50, 100)
    assert (certificate.predict, certificate.radius, certificate.counts) == (1, 0.3, [50, 50])
    assert certificate.p_lower == anytime_lower_bound(50, 50, 0.001) > ndtr(0.3 / SIGMA)


# --- topping up --------------------------------------------------------------------------------------------------


def through_a_table(certificate, radii):
    """What a row that was written and read again says."""
    return None if certificate is None else parse_row(format_row(7, 1, certificate), radii)


@pytest.mark.parametrize("radius", [0.2, 0.45, 0.7])
def test_topping_up_gives_what_an_uninterrupted_run_gives(radius):
    """Also when what was computed before comes from a row of a table."""
    radii = [0.1, 0.3, 0.4]
    for index in range(3):
        sampler = Recorded(at(radius))
        whole = run(sampler, radii, max_n=8000, index=index)
        drawn, topped_up = sampler.ranges, None
        sampler.ranges = []
        for max_n in (50, 100, 800, 2000, 2000, 3000, 8000):
            topped_up = run(sampler, radii, max_n=max_n, index=index, earlier=through_a_table(topped_up, radii))
            assert topped_up.n <= max_n
        assert topped_up == whole
        assert format_row(7, 1, topped_up) == format_row(7, 1, whole)
        assert sampler.ranges == drawn


def test_topping_up_continues_an_undecided_answer_and_draws_nothing_for_a_decided_one():
    sampler = Recorded(at(0.5))
    short = run(sampler, [0.45], max_n=100)
    assert decisions(short) == ["undecided"]
    sampler.ranges = []
    long = run(sampler, [0.45], max_n=20_000, earlier=short)
    assert decisions(long) == ["accept"]
    assert sampler.ranges[0] == (200, 300)
    sampler.ranges = []
    assert run(sampler, [0.45], max_n=100_000, earlier=long) == long
    assert sampler.ranges == []


def test_topping_up_keeps_what_was_accepted_though_the_counts_no_longer_would():
    sampler = answering([1] * 100 + [1] * 45 + [0] * 755)
    short = run(sampler, [0.1, 0.45], max_n=50)
    assert decisions(short) == ["accept", "undecided"]
    assert decide(45, 100, 0.1 / SIGMA, 0.001, 1e-4) == "undecided"
    assert decisions(run(sampler, [0.1, 0.45], max_n=800, earlier=short)) == ["accept", "reject"]


@pytest.mark.parametrize(
    "change",
    [{"radii": [0.1]}, {"radii": [0.1, 0.5]}, {"n0": 50}, {"sampler": at(0.45, 1.0)}, {"failure_prob": 1e-9}],
)
def test_topping_up_with_other_radii_or_settings_is_refused(change):
    earlier = run(at(0.45), [0.1, 0.49], max_n=400)
    assert decisions(earlier) == ["accept", "undecided"]
    with pytest.raises(ValueError, match="image 0: the earlier certificate has other"):
        run(**{"sampler": at(0.45), "radii": [0.1, 0.49], "max_n": 800, "earlier": earlier} | change)


def test_a_forged_acceptance_is_refused():
    earlier = run(at(0.5), [0.45], max_n=100)
    forged = replace(earlier, answers=[replace(earlier.answers[0], decision="accept")])
    with pytest.raises(ValueError, match="earlier certificate"):
        run(at(0.5), [0.45], max_n=800, earlier=forged)


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_row_says_all_that_the_certificate_says(tmp_path):
    radii = [0.1, 0.3, 0.49, 0.9]
    certificate = run(at(0.5), radii, max_n=800)
    assert set(decisions(certificate)) == {"accept", "undecided", "reject"}
    line = format_row(7, 1, certificate)
    assert parse_row(line, radii) == certificate
    assert table.samples(line) == certificate.n0 + certificate.n
    table.write(tmp_path / "table.tsv", [line], COLUMNS)
    row = pd.Series(table.read(tmp_path / "table.tsv").iloc[0])
    assert (row["idx"], row["label"], row["predict"], row["correct"]) == (7, 1, 1, 1)
    assert (row["radius"], row["n"], row["p_lower"]) == (certificate.radius, certificate.n, certificate.p_lower)
    assert row["decisions"].split(" ") == decisions(certificate)
    assert row["looks"].split(" ") == [f"{answer.k}/{answer.t}" for answer in certificate.answers]


def test_a_row_of_other_radii_is_refused():
    line = format_row(7, 1, run(at(0.5), [0.1, 0.3]))
    with pytest.raises(ValueError, match="zip"):
        parse_row(line, [0.1])


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "radii", [[], [-0.1], [-0.1, 0.2], [0.2, 0.1], [0.1, 0.1], [float("nan")], [0.1, float("nan")]]
)
def test_radii_that_are_negative_unsorted_or_absent_are_refused(radii):
    with pytest.raises(ValueError, match="radii are"):
        run(at(0.5), radii)


@pytest.mark.parametrize("radius", [1.52, 3.0, float("inf")])
def test_radii_that_no_outcome_can_certify_are_refused_by_name(radius):
    """At sigma .5 and failure_prob .001, 10,000 samples reach 1.5168."""
    sampler = Recorded(at(0.5))
    with pytest.raises(ValueError, match=f"radius {radius} cannot .* max_n = 10000 .* 0.001 .* at most 1.5168"):
        run(sampler, [0.5, radius])
    assert sampler.ranges == []
    assert decisions(run(at(2.9), [1.5168])) == ["accept"]


def test_the_certifiable_radii_are_those_that_are_not_refused():
    radii = [0, 0.25, 0.5, 1.0, 1.5, 1.5168, 1.52, 3.0]
    assert certifiable(radii, 10_000, 0.001, SIGMA) == [0, 0.25, 0.5, 1.0, 1.5, 1.5168]
    assert certifiable(radii, 50, 0.001, SIGMA) == [0, 0.25]
    assert certifiable([2.0], 50, 0.001, SIGMA) == []
    largest = largest_preset_radius(50, 0.001, SIGMA)
    assert certifiable([largest, largest + UNIT], 50, 0.001, SIGMA) == [largest]
    assert decisions(run(answering([1] * 150), [largest], max_n=50)) == ["accept"]


def test_a_radius_that_its_written_form_would_exceed_is_refused():
    with pytest.raises(ValueError, match="9 decimals"):
        run(at(0.5), [1 / 3])


@pytest.mark.parametrize(
    ("max_n", "look"),
    [(0, 50), (-50, 50), (49, 50), (51, 100), (700, 800), (801, 1000), (1001, 2000), (10_500, 11_000)],
)
def test_a_size_that_is_no_look_is_refused(max_n, look):
    with pytest.raises(ValueError, match=f"n is {max_n}: .* the next one is at {look}$"):
        check_size(max_n)
    with pytest.raises(ValueError, match=f"n is {max_n}: .* look"):
        run(at(0.5), [0.1], max_n=max_n)


def test_the_sizes_of_looks_are_accepted():
    for max_n in [*looks(20_000), 100_000]:
        check_size(max_n)


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
        certify_radii(at(0.5), image, [0.1], n0=10, max_n=50, failure_prob=0.001, seed=0, index=5)


@pytest.mark.parametrize("broken", [0, 99, 100, 149, 180])
def test_a_single_logit_that_is_not_finite_is_refused(broken):
    labels = np.tile([0, 1], 450)
    labels[broken] = -1
    with pytest.raises(FloatingPointError, match="image 0: a logit is not finite"):
        run(answering(labels), [0.1], max_n=800)
