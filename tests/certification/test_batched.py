"""Many images in shared blocks: each gets the answer that it gets alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from components.certification.batched import answer_together
from components.certification.cohen import certifying, predicting
from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.preset_radii import deciding, last_look, next_look
from tests.support.half_spaces import GRID, HalfSpaces, four_classes, random_images, sampler_of
from tests.support.procedures import certify_image, certify_radii, predict_image

SIGMA, SHAPE = 0.5, (1, 4, 4)


@pytest.fixture(scope="module")
def images():
    return random_images(7, *SHAPE)


@pytest.fixture(scope="module")
def sampler():
    return four_classes(SHAPE, SIGMA)


def together(sampler, images, procedure, at_once=3):
    with ThreadPoolExecutor(2) as pool:
        return answer_together(sampler, images, procedure, seed=5, pool=pool, at_once=at_once)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_every_procedure_answers_as_it_does_alone(sampler, images, at_once):
    common = {"n0": 100, "failure_prob": 0.001}
    pairs = [
        (
            lambda index: certifying(SIGMA, n=1234, bound="one_class", **common),
            lambda image, index: certify_image(sampler, image, n=1234, seed=5, index=index, **common),
        ),
        (
            lambda index: certifying(SIGMA, n=5000, bound="two_class", early_abstention=True, **common),
            lambda image, index: certify_image(
                sampler, image, n=5000, bound="two_class", early_abstention=True, seed=5, index=index, **common
            ),
        ),
        (
            lambda index: deciding(SIGMA, [0.05, 0.3], max_n=3000, index=index, bound="one_class", **common),
            lambda image, index: certify_radii(sampler, image, [0.05, 0.3], max_n=3000, seed=5, index=index, **common),
        ),
        (
            lambda index: predicting(n=321, failure_prob=0.01),
            lambda image, index: predict_image(sampler, image, n=321, failure_prob=0.01, seed=5, index=index),
        ),
    ]
    for procedure, alone in pairs:
        answers = together(sampler, images, procedure, at_once)
        assert answers == [alone(image, index) for index, image in enumerate(images)]


def test_the_network_sees_whole_blocks_and_each_sample_of_each_image_once(images):
    seen = []

    class Keeping(HalfSpaces):
        def forward(self, batch):
            seen.append(batch.clone())
            return super().forward(batch)

    network = Keeping([1.0] * 16, -8.0)
    together(sampler_of(network, images[0]), images, lambda index: predicting(n=90 + index, failure_prob=0.01))
    assert {len(batch) for batch in seen} == {250}
    assert len(seen) == 3, "7 images with 90 to 96 samples fill three blocks, not seven"
    given = {copy.numpy().tobytes() for copy in torch.cat(seen)}
    assert len(given) == 750, "no sample twice"
    for index, image in enumerate(images):
        own, _ = noisy_copies(image, discrete_normal(SIGMA, GRID), seed=5, index=index, start=0, stop=90 + index)
        assert {copy.numpy().tobytes() for copy in own} <= given


def test_one_bad_image_stops_the_request_before_a_sample_is_drawn(sampler, images):
    bad = images.clone()
    bad[3, 0, 0, 0] = -1
    started = []
    with pytest.raises(ValueError, match="image 3 has values outside"):
        together(sampler, bad, lambda index: started.append(index))
    assert not started


def test_a_logit_that_is_not_finite_certifies_nothing(images):
    network = HalfSpaces([float("nan")] * 16, 0.0)
    with pytest.raises(FloatingPointError, match="a logit is not finite"):
        together(sampler_of(network, images[0]), images, lambda index: predicting(n=10, failure_prob=0.01))


def test_the_last_look_is_the_largest_that_is_not_above_n():
    looks = [0]
    while looks[-1] < 5000:
        looks.append(next_look(looks[-1]))
    for n in range(5000):
        assert last_look(n) == max(look for look in looks if look <= n)
