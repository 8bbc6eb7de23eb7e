"""The reference procedure, early abstention and prediction, on classifiers that are known exactly."""

import functools

import numpy as np
import pytest
from scipy import stats

from components.certification import cohen
from components.certification.bounds import certified_radius, lower_bound
from components.certification.cohen import hits_needed, is_futile
from components.certification.side_by_side import certify_images
from components.certification.table import ABSTAIN
from tests.support.half_spaces import ByNumber, HalfSpaces, random_images, sampler_of, steps
from tests.support.procedures import certify_image, predict_image

SIGMA = 0.5
IMAGE = steps(*8 * [0.5])


def half_space_at(radius, sigma=SIGMA):
    """A sampler of a classifier that has IMAGE at that distance inside its class 1."""
    return sampler_of(HalfSpaces([0.6, -0.8], radius + 0.1), IMAGE, sigma=sigma)


def answering(labels, num_classes=2):
    """A sampler whose network answers to sample i of IMAGE what the list says."""
    return sampler_of(ByNumber(labels, num_classes, IMAGE, SIGMA), IMAGE, num_classes=num_classes)


def hits(k, n):
    """k labels 1 among n, the others 0."""
    return np.random.default_rng(0).permutation(np.arange(n) < k).astype(int)


def run(sampler, image=IMAGE, *, n0=100, n=1000, failure_prob=0.001, seed=0, index=0, **options):
    options |= {"n0": n0, "n": n, "failure_prob": failure_prob}
    return certify_image(sampler, image, seed=seed, index=index, **options)


# --- one image ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "predict"), [(0.2, 1), (0.5, 1), (0.9, 1), (-0.5, 0)])
def test_the_radius_is_below_the_exact_one_and_close_to_it(radius, predict):
    certificate = run(half_space_at(radius), n=100_000)
    assert certificate.predict == certificate.selected == predict
    assert abs(radius) - 0.03 < certificate.radius <= abs(radius)
    assert 0 <= stats.norm.cdf(abs(radius) / SIGMA) - certificate.p_lower < 0.01
    assert certificate.n == sum(certificate.counts) == 100_000


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_the_radius_scales_with_sigma(sigma):
    assert 0.47 < run(half_space_at(0.5, sigma), n=100_000).radius <= 0.5


def test_an_image_on_the_border_is_abstained_from():
    certificate = run(half_space_at(0.0), n=10_000)
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)
    assert certificate.selected in (0, 1)
    assert certificate.p_lower <= 0.5


@pytest.mark.parametrize("k", [0, 1, 500, 549, 600, 999, 1000])
def test_bound_and_radius_are_those_of_the_counts(k):
    certificate = run(answering(np.append(np.ones(100), hits(k, 1000))))
    p_lower = lower_bound(k, 1000, 0.001)
    assert certificate.counts == [1000 - k, k]
    assert (certificate.n0, certificate.n, certificate.selected) == (100, 1000, 1)
    assert certificate.p_lower == p_lower
    assert certificate.predict == (1 if p_lower > 0.5 else ABSTAIN)
    assert certificate.radius == (certified_radius(p_lower, SIGMA) if p_lower > 0.5 else 0)


def test_the_class_is_the_one_that_the_first_samples_choose():
    """Also where the other class wins the estimation: it then abstains."""
    certificate = run(answering([0] * 51 + [1] * 49 + [1] * 1000))
    assert (certificate.selected, certificate.predict) == (0, ABSTAIN)
    assert certificate.p_lower == 0


@pytest.mark.parametrize(("n0", "n"), [(1, 10), (70, 900), (250, 250), (100, 1150)])
def test_selection_and_estimation_use_disjoint_samples(n0, n):
    """A network that names the samples: sample i is of class i, so that the counts say which were used."""
    certificate = run(answering(range(n0 + n), n0 + n), n0=n0, n=n)
    assert certificate.selected == 0, "of the samples that select, each of a class of its own, the first"
    assert certificate.counts == [0] * n0 + [1] * n


@pytest.mark.parametrize("n0", [1, 99, 100])
def test_all_of_the_first_samples_select(n0):
    """The class of the last of them decides."""
    labels = np.arange(n0 - 1) % 2
    last = int(np.bincount(labels, minlength=2).argmin())
    assert run(answering([*labels, last, *[1 - last] * 50]), n0=n0, n=50).selected == (last if n0 % 2 else 0)


# --- early abstention --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_the_hits_needed_are_those_of_a_linear_search(failure_prob):
    for n in (10, 11, 100, 1000, 10_000):
        low, high = lower_bound(hits_needed(n, failure_prob) - 1, n, failure_prob), hits_needed(n, failure_prob)
        assert low <= 0.5 < lower_bound(high, n, failure_prob)
        if n <= 100:
            assert high == min(k for k in range(n + 1) if lower_bound(k, n, failure_prob) > 0.5)


def test_clear_abstentions_stop_early_and_state_no_bound():
    certificate = run(answering([1] * 100 + [0, 1, 0] * 1000), n=50_000, early_abstention=True)
    assert (certificate.predict, certificate.radius, certificate.selected) == (ABSTAIN, 0.0, 1)
    assert certificate.p_lower == 0.0
    assert certificate.n == sum(certificate.counts) == 1000
    assert certificate.counts[1] == 333


@pytest.mark.parametrize("radius", [0.0, -0.02, 0.02, 0.5])
def test_what_early_abstention_certifies_is_what_the_plain_procedure_certifies(radius):
    """With the same noise: it draws the same samples, and only ever stops where the plain procedure abstains."""
    sampler, stopped = half_space_at(radius), 0
    for index in range(6):
        plain = run(sampler, n0=20, n=20_000, index=index)
        early = run(sampler, n0=20, n=20_000, index=index, early_abstention=True)
        assert early.selected == plain.selected
        if early.n == 20_000:
            assert early == plain
        else:
            stopped += 1
            assert (plain.predict, early.predict, early.p_lower) == (ABSTAIN, ABSTAIN, 0.0)
            assert early.n in (1000, 2000, 4000, 8000, 16_000)
    assert stopped == 0 or radius < 0.5


def test_the_looks_are_at_doublings_below_n():
    """Half hits: passing 1/2 is not improbable, but where one sample more is all there is."""
    labels = np.append(np.ones(20), np.tile([0, 1], 2500))
    for n, used in ((999, 999), (1000, 1000), (1001, 1000), (5000, 5000)):
        certificate = run(answering(labels), n0=20, n=n, failure_prob=0.05, early_abstention=True)
        assert certificate.n == used


def test_images_below_one_half_need_far_fewer_samples():
    used = [run(half_space_at(-0.05), n0=1, n=50_000, index=i, early_abstention=True) for i in range(8)]
    wrongly_selected = [certificate.n for certificate in used if certificate.selected == 1]
    assert wrongly_selected
    assert np.mean(wrongly_selected) < 50_000 / 5


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
@pytest.mark.parametrize("n", [10_000, 100_000])
def test_early_abstention_loses_a_certificate_with_a_probability_of_about_1e_6(n, failure_prob):
    """The exact probability that a look stops what would pass in the end, for any p near 1/2: below 1e-6 at each look,
    below 2e-6 at all of them."""
    needed, look, p = hits_needed(n, failure_prob), cohen.FIRST_LOOK, np.linspace(0.48, 0.53, 51)[:, None]
    lost = np.zeros(len(p))
    while look < n:
        low, high = 0, look // 2  # the most hits that stop, by bisection: the more hits, the less futile
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_futile(middle, look, n, failure_prob) else (low, middle)
        k = np.arange(max(0, low - 300), low + 1)
        here = (stats.binom.pmf(k, look, p) * stats.binom.sf(needed - k - 1, n - look, p)).sum(axis=1)
        assert here.max() < 1e-6
        lost += here
        look *= 2
    assert 1e-8 < lost.max() < 2e-6


def test_futility_grows_with_the_misses_and_never_holds_at_half_the_hits():
    for t in (1000, 8000, 64_000):
        answers = [is_futile(k, t, 100_000, 0.001) for k in range(0, t // 2 + 1, t // 50)]
        assert answers == sorted(answers, reverse=True)
        assert answers[0]
        assert not is_futile(t // 2 + 1, t, t + 1, 0.001), "though one sample more cannot help"


# --- prediction without a radius ---------------------------------------------------------------------------------


def predict(sampler, *, n=1000, failure_prob=0.001, index=0):
    return predict_image(sampler, IMAGE, n=n, failure_prob=failure_prob, seed=0, index=index)


def test_a_clear_class_is_predicted_and_the_border_abstained_from():
    assert predict(half_space_at(0.3)) == 1
    assert predict(half_space_at(-0.3)) == 0
    assert predict(half_space_at(0.0)) == ABSTAIN


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_the_prediction_is_the_two_sided_binomial_test_of_the_two_most_frequent_classes(failure_prob):
    rng = np.random.default_rng(0)
    predicted = set()
    for counts in [(0, 55, 45, 0), (10, 60, 30, 0), (1, 99, 0, 0), (30, 0, 31, 39), (5, 5, 5, 85), (49, 51, 0, 0)]:
        labels = rng.permutation(np.repeat(range(4), counts))
        second, first = np.sort(counts)[-2:]
        sure = 2 * stats.binom.sf(first - 1, first + second, 0.5) <= failure_prob
        answer = predict(answering(labels, 4), n=100, failure_prob=failure_prob)
        assert answer == (int(np.argmax(counts)) if sure else ABSTAIN)
        predicted.add(answer)
    assert ABSTAIN in predicted
    assert len(predicted) > 2


@pytest.mark.parametrize("counts", [(50, 50, 0), (34, 33, 33), (0, 0, 100), (100, 0, 0), (1, 0, 0), (0, 1, 1)])
def test_ties_are_abstained_from_and_a_single_class_is_predicted_when_often_enough(counts):
    answer = predict(answering(np.repeat(range(3), counts), 3), n=sum(counts))
    assert answer == (int(np.argmax(counts)) if max(counts) == 100 else ABSTAIN)


@pytest.mark.parametrize("failure_prob", [0.001, 0.05])
def test_predictions_are_wrong_no_more_often_than_they_say(failure_prob, monkeypatch):
    """Near-ties, drawn: class 0 is the smoothed classifier's by a hair, and a third class has the rest."""

    class Drawn:
        def __init__(self, rest):
            self.rng, self.shares = np.random.default_rng(0), [0.5001 - rest / 2, 0.4999 - rest / 2, rest]

        def stream(self, image, *, seed, index):
            return self

        def count(self, num):
            return self.rng.multinomial(num, self.shares)

    monkeypatch.setattr(cohen, "binomtest", functools.cache(stats.binomtest))
    for rest in (0.0, 0.3):
        drawn = Drawn(rest)
        wrong = sum(predict(drawn, n=500, failure_prob=failure_prob) not in (0, ABSTAIN) for _ in range(10_000))
        assert stats.binomtest(wrong, 10_000, failure_prob, alternative="greater").pvalue > 1e-6
        assert wrong > 0


@pytest.mark.medium
def test_real_predictions_on_the_border_are_made_no_more_often_than_failure_prob():
    sampler = half_space_at(0.0)
    predicted = sum(predict(sampler, n=250, failure_prob=0.05, index=i) != ABSTAIN for i in range(1000))
    assert stats.binomtest(predicted, 1000, 0.05, alternative="greater").pvalue > 1e-6
    assert predicted > 15


# --- many images -------------------------------------------------------------------------------------------------


def certify_all(indices, workers=1):
    images = random_images(6, 1, 2, 2)
    sampler = sampler_of(HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.5), images[0])
    pairs = ((index, images[index]) for index in indices)
    return list(
        certify_images(pairs, lambda image, index: run(sampler, image, n0=20, n=300, index=index), workers=workers)
    )


def test_workers_and_order_and_other_images_change_no_certificate():
    one = certify_all(range(6))
    assert [index for index, _ in one] == list(range(6))
    assert len({tuple(certificate.counts) for _, certificate in one}) > 1
    assert certify_all(range(6), workers=3) == one
    assert certify_all([4, 1, 5], workers=2) == [one[4], one[1], one[5]]
    assert certify_all([]) == []


def test_each_image_has_noise_of_its_own():
    sampler = half_space_at(0.1)
    assert len({run(sampler, index=index).counts[1] for index in range(10)}) > 5
    assert len({run(sampler, seed=seed).counts[1] for seed in range(10)}) > 5
    assert run(sampler, seed=3, index=4) == run(sampler, seed=3, index=4)


def test_images_are_decoded_when_their_turn_comes():
    asked = []

    def images():
        for index in range(50):
            asked.append(index)
            yield index, IMAGE

    results = certify_images(images(), lambda image, index: index, workers=2)
    assert next(results) == (0, 0)
    assert len(asked) <= 5
    assert [index for index, _ in results] == list(range(1, 50))


def test_an_image_that_fails_stops_the_others_and_names_itself():
    started = []

    def check(image, index):
        started.append(index)
        return run(half_space_at(0.5), image, index=index).predict

    images = ((index, IMAGE + 500 * (index == 3)) for index in range(1000))
    results = certify_images(images, check, workers=2)
    assert [next(results) for _ in range(3)] == [(0, 1), (1, 1), (2, 1)]
    with pytest.raises(ValueError, match=r"image 3 .* outside \[0, 256\]"):
        next(results)
    assert len(started) < 12


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [0, 99, 100, 777, 1099])
@pytest.mark.parametrize("early_abstention", [False, True])
def test_a_single_logit_that_is_not_finite_is_refused(broken, early_abstention):
    labels = np.ones(1100, dtype=int)
    labels[broken] = -1
    with pytest.raises(FloatingPointError, match="image 0: a logit is not finite"):
        run(answering(labels), early_abstention=early_abstention)


@pytest.mark.parametrize("n", [1, 5, 9])
def test_a_size_that_certifies_nothing_abstains_even_where_all_samples_agree(n):
    """The pipeline refuses it by name before it starts."""
    certificate = run(half_space_at(5.0), n=n)
    assert certificate.counts == [0, n]
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)
    assert run(half_space_at(5.0), n=10).predict == 1
