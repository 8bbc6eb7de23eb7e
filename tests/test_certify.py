"""The reference procedure on linear classifiers, whose smoothed version has the exact radius |w.x + b| / |w|."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from components.certification import certify
from components.certification.bounds import lower_bound
from components.certification.certify import certify_image, certify_images
from components.certification.sampling import BLOCK, count_classes
from components.certification.table import ABSTAIN
from components.params import Certify
from tests.half_spaces import HalfSpaces

SIGMA = 0.5
SETTINGS = Certify(n0=20, n=300, failure_prob=0.001, every=1)


class Recording(nn.Module):
    """Keeps what it is given; answers class 0, or the given logits."""

    def __init__(self, logits=(1.0, 0.0)):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits), requires_grad=False)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.logits.expand(len(images), -1)


def half_space_at(radius):
    """A classifier, and an image at that distance inside its class 1."""
    return HalfSpaces([0.6, -0.8], radius + 0.1), torch.tensor([0.5, 0.5]).view(1, 1, 2)


def run(network, image, *, n0=100, n=1000, failure_prob=0.001, seed=0, index=0, sigma=SIGMA):
    return certify_image(
        network, image, sigma, num_classes=2, n0=n0, n=n, failure_prob=failure_prob, seed=seed, index=index
    )


def too_many(failures, attempts, failure_prob):
    """Whether so many failures refute that each happens with `failure_prob` at most."""
    return stats.binomtest(failures, attempts, failure_prob, alternative="greater").pvalue < 1e-6


def pixels(num):
    return np.random.default_rng(0).integers(0, 17, (num, 1, 2, 2), dtype=np.uint8)


def certify_all(indices, workers=1, network=None, images=None, settings=SETTINGS):
    network = network or HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.2)
    images = pixels(6) if images is None else images
    certificates = certify_images(
        network, images, indices, SIGMA, max_value=16, num_classes=2, settings=settings, seed=7, workers=workers
    )
    return list(certificates)


# --- one image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius", "predict"), [(0.2, 1), (0.5, 1), (0.9, 1), (-0.5, 0)])
def test_the_radius_is_below_the_exact_one_and_close_to_it(radius, predict):
    certificate = run(*half_space_at(radius), n=100_000)
    assert certificate.predict == certificate.selected == predict
    assert abs(radius) - 0.03 < certificate.radius <= abs(radius)
    assert 0 <= stats.norm.cdf(abs(radius) / SIGMA) - certificate.p_lower < 0.01
    assert certificate.p_lower == lower_bound(certificate.counts[predict], 100_000, 0.001)
    assert sum(certificate.counts) == 100_000


def test_the_radius_scales_with_sigma():
    network, image = half_space_at(0.5)
    assert 0.48 < run(network, image, n=100_000, sigma=0.25).radius <= 0.5
    assert 0.47 < run(network, image, n=100_000, sigma=1.0).radius <= 0.5


def test_an_image_on_the_border_is_abstained_from():
    certificate = run(*half_space_at(0.0), n=10_000)
    assert (certificate.predict, certificate.radius) == (ABSTAIN, 0.0)
    assert certificate.selected in (0, 1)
    assert certificate.p_lower <= 0.5


def test_the_class_is_the_one_that_the_first_samples_choose(monkeypatch):
    """Also where the other class wins the estimation: it then abstains."""
    answers = iter([np.array([9, 1]), np.array([100, 900])])
    monkeypatch.setattr(certify, "count_classes", lambda *_, **__: next(answers))
    certificate = run(*half_space_at(0.5), n0=10)
    assert (certificate.selected, certificate.predict) == (0, ABSTAIN)
    assert certificate.p_lower == lower_bound(100, 1000, 0.001)


def test_selection_and_estimation_use_disjoint_samples_of_the_image_s_own_noise(monkeypatch):
    calls = []

    def recording(*arguments, **options):
        calls.append(options)
        return count_classes(*arguments, **options)

    monkeypatch.setattr(certify, "count_classes", recording)
    run(*half_space_at(0.5), n0=70, n=1500, seed=3, index=4)
    selection, estimation = (set(range(call["start"], call["stop"])) for call in calls)
    assert (len(selection), len(estimation)) == (70, 1500)
    assert not selection & estimation
    assert all((call["seed"], call["index"]) == (3, 4) for call in calls)


# --- soundness ---------------------------------------------------------------------------------------------------


def failures_of(procedure, radius, attempts, **options):
    """How many of the attempts, each with noise of its own, certify more than the exact radius or a wrong class."""
    network, image = half_space_at(radius)
    certificates = [procedure(network, image, index=i, failure_prob=0.05, **options) for i in range(attempts)]
    return sum(c.predict != ABSTAIN and (c.predict != 1 or c.radius > radius) for c in certificates)


def test_certificates_fail_no_more_often_than_they_say():
    failures = failures_of(run, 0.3, 2000, n0=20, n=200)
    assert not too_many(failures, 2000, 0.05)
    assert failures > 0.02 * 2000, "the bound must be tight enough for this test to mean something"


def selects_on_its_own_samples(network, image, *, n0, n, failure_prob, index):
    """The classical mistake: the class is the winner of the very samples that its bound counts."""
    counts = count_classes(network, image, SIGMA, num_classes=2, seed=0, index=index, start=n0, stop=n0 + n)
    p_lower = lower_bound(int(counts.max()), n, failure_prob)
    predict = int(counts.argmax()) if p_lower > 0.5 else ABSTAIN
    return certify.Certificate(predict, float(p_lower > 0.5), int(counts.argmax()), counts.tolist(), p_lower)


def test_on_the_border_the_failures_stay_rare_and_the_classical_mistake_would_show():
    honest = failures_of(run, 0.0, 1200, n0=20, n=1000)
    mistaken = failures_of(selects_on_its_own_samples, 0.0, 1200, n0=20, n=1000)
    assert not too_many(honest, 1200, 0.05)
    assert too_many(mistaken, 1200, 0.05)


# --- many images -------------------------------------------------------------------------------------------------


def test_workers_and_order_change_no_certificate():
    one = certify_all(range(6))
    assert [index for index, _ in one] == list(range(6))
    assert certify_all(range(6), workers=2) == one
    assert certify_all([4, 1, 5], workers=2) == [one[4], one[1], one[5]]


def test_each_image_has_noise_of_its_own():
    same = np.repeat(pixels(1), 6, axis=0)
    assert len({tuple(certificate.counts) for _, certificate in certify_all(range(6), images=same)}) > 1


def test_many_images_follow_the_settings_in_eval_mode():
    network = nn.Sequential(nn.Dropout(0.9), HalfSpaces([1.0, -0.5, 0.3, 0.2], -0.2)).train()
    settings = replace(SETTINGS, n0=30, n=400, failure_prob=0.01)
    image = torch.from_numpy(pixels(6)[2]).float() / 16
    ((index, certificate),) = certify_all([2], network=network, settings=settings)
    assert index == 2
    assert certificate == run(network[1], image, n0=30, n=400, failure_prob=0.01, seed=7, index=2)


# --- sampling ----------------------------------------------------------------------------------------------------


def test_counts_of_adjoining_ranges_add_up():
    network, image = half_space_at(0.1)

    def count(start, stop):
        return count_classes(network, image, SIGMA, num_classes=3, seed=0, index=0, start=start, stop=stop)

    whole = count(0, 2 * BLOCK + 1)
    assert (count(0, 330) + count(330, 2 * BLOCK + 1)).tolist() == whole.tolist()
    assert whole.sum() == 2 * BLOCK + 1
    assert whole[2] == 0


def test_the_network_sees_the_image_plus_noise_in_float32_in_blocks():
    network, image = Recording(), torch.rand(1, 3, 3)
    run(network, image, n0=100, n=2 * BLOCK + 100)
    assert [len(seen) for seen in network.seen] == [100, BLOCK, BLOCK, 100]
    assert {seen.dtype for seen in network.seen} == {torch.float32}
    noise = torch.cat(network.seen) - image
    assert abs(noise.std() - SIGMA) < 0.02
    assert abs(noise.mean()) < 0.02


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.01, 1.01, 255.0])
def test_images_that_are_not_in_the_unit_interval_are_refused(bad):
    image = torch.full((1, 2, 2), 0.5)
    image[0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"image 5 .* outside \[0, 1\]"):
        run(Recording(), image, index=5)


def test_pixels_above_the_greatest_are_refused():
    images = pixels(3)
    images[1] = 17
    with pytest.raises(ValueError, match="image 1 "):
        certify_all(range(3), workers=2, images=images)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_are_refused(bad):
    with pytest.raises(FloatingPointError, match="image 3: a logit is not finite"):
        run(Recording((1.0, bad)), torch.rand(1, 2, 2), index=3)


class BreaksLate(nn.Module):
    """One logit of one sample in the middle of the estimation is NaN."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        logits = torch.zeros(len(images), 2)
        logits[5, 1] = float("nan") if self.calls == 3 else 0.0
        return logits


def test_a_single_logit_that_is_not_finite_is_refused():
    with pytest.raises(FloatingPointError, match="not finite"):
        run(BreaksLate(), torch.rand(1, 2, 2), n=5 * BLOCK)
