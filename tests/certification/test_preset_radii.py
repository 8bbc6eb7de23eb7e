"""Preset radii decided sequentially on one image: linear classifiers, classes by number, what is refused."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from components.certification.bounds import DECIMALS, complement
from components.certification.confidence_sequences import anytime_lower_bound
from components.certification.preset_radii import (
    TRUNCATED,
    Answer,
    anytime_bounds,
    certifiable,
    check_size,
    deciding,
    largest_preset_radius,
    limits,
    look_at,
    unanswered,
)
from components.certification.sampling import answered
from components.certification.table import ABSTAIN
from tests.support.half_spaces import GRID
from tests.support.presets import SIGMA, Recorded, answering, at, decisions, looks, run
from tests.support.procedures import certify_radii

UNIT = 10.0**-DECIMALS
BOUNDS = ["one_class", "two_class"]


def decided(radius, k, rival, t, *, bound="one_class", failure_prob=0.001, reject_prob=1e-4, num_classes=2):
    """The decision of a look on one radius, at sigma = .5."""
    settings = {"failure_prob": failure_prob, "reject_prob": reject_prob, "num_classes": num_classes}
    return look_at(unanswered([radius]), k, rival, t, sigma=SIGMA, bound=bound, **settings)[0].decision


# --- one look ----------------------------------------------------------------------------------------------------


def possible_counts(t):
    """Hits of the class and of its rival among t samples of four classes, a few of each."""
    for k in np.unique(np.linspace(0, t, 21).astype(int)).tolist():
        for rival in np.unique(np.linspace(-(-(t - k) // 3), t - k, 7).astype(int)).tolist():
            yield k, rival


@pytest.mark.parametrize("bound", BOUNDS)
def test_larger_radii_are_never_easier(bound):
    """The decisions along the radii are acceptances, then the undecided, then rejections, whatever was counted."""
    order, seen = {"accept": 0, "undecided": 1, "reject": 2}, set()
    radii = np.linspace(0, 2, 201).tolist()
    settings = {"sigma": SIGMA, "bound": bound, "failure_prob": 0.001, "reject_prob": 1e-4, "num_classes": 4}
    for t in (1, 7, 50, 1000, 10_000):
        for k, rival in possible_counts(t):
            ranks = [order[a.decision] for a in look_at(unanswered(radii), k, rival, t, **settings)]
            assert ranks == sorted(ranks)
            seen |= set(ranks)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_limits_of_rejections_enclose_the_bounds(bound):
    for t in (50, 1000, 100_000):
        for k, rival in possible_counts(t):
            p_lower, p_upper = anytime_bounds(bound, k, rival, t, 0.4)
            most, least = limits(bound, k, rival, t, 0.4, num_classes=4)
            assert p_lower <= k / t <= most
            assert least <= p_upper <= complement(p_lower)
            assert bound == "one_class" or least <= rival / t <= p_upper or p_upper == complement(p_lower)


def test_one_class_rejects_where_p_itself_is_too_small_and_two_class_where_the_rival_stands_against_it():
    """45 % of the samples are of the class: more than of any other, but less than a half."""
    assert decided(0.1, 4500, 600, 10_000, num_classes=10) == "reject"
    assert decided(0.1, 4500, 600, 10_000, num_classes=10, bound="two_class") == "accept"
    assert decided(0.1, 4500, 4600, 10_000, num_classes=10, bound="two_class") == "reject"
    assert decided(0.5, 4500, 3000, 10_000, num_classes=10, bound="two_class") == "reject"
    assert decided(0.1, 450, 400, 1000, num_classes=10, bound="two_class") == "undecided"


def test_the_largest_radius_is_the_one_that_all_hits_just_accept():
    assert largest_preset_radius(100_000, 0.001, 1.0, "one_class") == pytest.approx(3.661, abs=6e-4)
    for bound in BOUNDS:
        for max_n in (50, 1000, 100_000):
            largest = largest_preset_radius(max_n, 0.001, SIGMA, bound)
            assert largest == pytest.approx(SIGMA * largest_preset_radius(max_n, 0.001, 1.0, bound), abs=2 * UNIT)
            assert decided(largest, max_n, 0, max_n, bound=bound) == "accept"
            assert decided(largest + UNIT, max_n, 0, max_n, bound=bound) == "undecided"


# --- one image ---------------------------------------------------------------------------------------------------


def test_radii_below_the_exact_one_are_accepted_and_those_above_rejected():
    certificate = run(at(0.5), [0, 0.1, 0.3, 0.45, 0.55, 0.7, 1.0], max_n=20_000)
    assert decisions(certificate) == ["accept"] * 4 + ["reject"] * 3
    assert (certificate.predict, certificate.selected, certificate.radius) == (1, 1, 0.45)
    assert ndtr(0.45 / SIGMA) - UNIT <= certificate.p_lower < ndtr(0.5 / SIGMA)
    assert certificate.n == sum(certificate.counts) == max(answer.t for answer in certificate.answers) < 20_000
    assert certificate.answers[0].t == 50, "the easiest radius is decided at the first look"
    for answer in certificate.answers:
        assert answer.rival == answer.t - answer.k
        assert decided(answer.radius, answer.k, answer.rival, answer.t) == answer.decision


def test_radii_scale_with_sigma():
    assert decisions(run(at(0.5, 0.25), [0.4, 0.6])) == ["accept", "reject"]
    assert decisions(run(at(0.5, 1.0), [0.4, 0.6])) == ["accept", "reject"]


def test_the_other_side_of_the_border_is_another_class():
    certificate = run(at(-0.5), [0.4, 0.6])
    assert (certificate.predict, certificate.radius, decisions(certificate)) == (0, 0.4, ["accept", "reject"])


def test_the_exact_radius_and_the_border_stay_undecided_or_rejected():
    certificate = run(at(0.5), [0.5], max_n=3000)
    assert decisions(certificate) == ["undecided"]
    assert (certificate.predict, certificate.radius, certificate.n) == (ABSTAIN, 0, 3000)
    misses, hits = certificate.counts
    assert certificate.answers[0] == Answer(0.5, "undecided", hits, misses, 3000)
    assert certificate.p_lower == anytime_lower_bound(hits, 3000, 0.001, TRUNCATED)
    assert certificate.p_upper == complement(certificate.p_lower)
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
    assert (accepted, also) == (Answer(0.1, "accept", 50, 0, 50), Answer(0.3, "accept", 50, 0, 50))
    assert rejected == Answer(0.8, "reject", 50, 50, 100)
    assert (certificate.predict, certificate.radius, certificate.counts) == (1, 0.3, [50, 50])
    assert certificate.p_lower == anytime_lower_bound(50, 50, 0.001, TRUNCATED) > ndtr(0.3 / SIGMA)


# --- several classes ---------------------------------------------------------------------------------------------


def on_drawn(shares, radii, **options):
    """Decided on counts that are drawn with these probabilities of the classes."""
    rng = np.random.default_rng(0)
    procedure = deciding(SIGMA, radii, n0=100, max_n=10_000, failure_prob=0.001, index=0, **options)
    return answered(procedure, lambda num: rng.multinomial(num, shares))


def test_two_class_answers_where_no_class_has_a_half():
    alone, against_rival = (on_drawn([0.45, 0.2, 0.2, 0.15], [0, 0.1], bound=bound) for bound in BOUNDS)
    assert (alone.predict, decisions(alone)) == (ABSTAIN, ["reject", "reject"])
    assert (against_rival.predict, decisions(against_rival)) == (0, ["accept", "accept"])
    assert 0.3 < against_rival.p_lower < 0.45
    assert 0.2 < against_rival.p_upper < against_rival.p_lower
    with pytest.raises(ValueError, match="the earlier certificate has other"):
        on_drawn([0.45, 0.2, 0.2, 0.15], [0, 0.1], bound="one_class", earlier=against_rival)


def test_two_class_rejects_what_the_rival_leaves_no_room_for():
    """sigma / 2 (Phi^-1(.6) - Phi^-1(.3)) = .194"""
    certificate = on_drawn([0.6, 0.3, 0.1], [0.05, 0.1, 0.3, 0.5], bound="two_class")
    assert decisions(certificate) == ["accept", "accept", "reject", "reject"]
    for answer in certificate.answers:
        settings = {"bound": "two_class", "num_classes": 3}
        assert decided(answer.radius, answer.k, answer.rival, answer.t, **settings) == answer.decision


def test_the_rival_is_whichever_class_has_most_at_the_look():
    labels = [0] * 60 + [1] * 40 + [0] * 30 + [1] * 15 + [2] * 5 + [0] * 30 + [2] * 20
    certificate = run(answering(labels, 3), [0.3], max_n=100, bound="two_class")
    assert certificate.answers == [Answer(0.3, "undecided", 60, 25, 100)]
    assert (certificate.p_lower, certificate.p_upper) == anytime_bounds("two_class", 60, 25, 100, 0.001)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_lost_sample_is_a_miss_and_a_hit_of_the_rival(bound):
    """Of 50 samples 3 are lost."""
    procedure = deciding(SIGMA, [0.1], n0=100, max_n=50, failure_prob=0.001, bound=bound, index=0)
    certificate = answered(procedure, {100: np.array([100, 0, 0]), 0: np.zeros(3, int), 50: np.array([40, 2, 5])}.get)
    assert certificate.answers == [Answer(0.1, decided(0.1, 40, 8, 50, bound=bound, num_classes=3), 40, 8, 50)]
    assert (certificate.counts, certificate.n) == ([40, 2, 5], 50)
    assert certificate.p_upper == anytime_bounds(bound, 40, 8, 50, 0.001)[1]


def test_the_bounds_are_the_best_of_the_looks_that_decided():
    certificate = run(answering([1] * 150 + [0] * 50), [0.1, 0.8], bound="two_class")
    (first, second), bounds = certificate.answers, []
    for answer in (first, second):
        bounds.append(anytime_bounds("two_class", answer.k, answer.rival, answer.t, 0.001))
    assert first.t < second.t
    assert (certificate.p_lower, certificate.p_upper) == (max(b[0] for b in bounds), min(b[1] for b in bounds))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "radii", [[], [-0.1], [-0.1, 0.2], [0.2, 0.1], [0.1, 0.1], [float("nan")], [0.1, float("nan")]]
)
def test_radii_that_are_negative_unsorted_or_absent_are_refused(radii):
    with pytest.raises(ValueError, match="radii are"):
        run(at(0.5), radii)


@pytest.mark.parametrize("radius", [1.53, 3.0, float("inf")])
def test_radii_that_no_outcome_can_certify_are_refused_by_name(radius):
    """At sigma .5 and failure_prob .001, 10,000 samples reach 1.5257."""
    sampler = Recorded(at(0.5))
    with pytest.raises(ValueError, match=f"radius {radius} cannot .* max_n = 10000 .* 0.001 .* at most 1.5257"):
        run(sampler, [0.5, radius])
    assert sampler.ranges == []
    assert decisions(run(at(2.9), [1.5257])) == ["accept"]


def test_the_certifiable_radii_are_those_that_are_not_refused():
    radii = [0, 0.25, 0.5, 1.0, 1.5, 1.5257, 1.53, 3.0]
    assert certifiable(radii, 10_000, 0.001, SIGMA, "one_class") == [0, 0.25, 0.5, 1.0, 1.5, 1.5257]
    assert certifiable(radii, 50, 0.001, SIGMA, "one_class") == [0, 0.25]
    assert certifiable([2.0], 50, 0.001, SIGMA, "one_class") == []
    largest = largest_preset_radius(50, 0.001, SIGMA, "one_class")
    assert certifiable([largest, largest + UNIT], 50, 0.001, SIGMA, "one_class") == [largest]
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


@pytest.mark.parametrize("bad", [-1, GRID + 1])
def test_images_that_are_not_on_the_grid_are_refused(bad):
    image = torch.full((1, 1, 2), bad, dtype=torch.int32)
    with pytest.raises(ValueError, match="image 5 has values outside"):
        certify_radii(at(0.5), image, [0.1], n0=10, max_n=50, failure_prob=0.001, seed=0, index=5)


@pytest.mark.parametrize("broken", [0, 99, 100, 149, 180])
def test_a_single_logit_that_is_not_finite_is_refused(broken):
    labels = np.tile([0, 1], 450)
    labels[broken] = -1
    with pytest.raises(FloatingPointError, match="image 0: a logit is not finite"):
        run(answering(labels), [0.1], max_n=800)
