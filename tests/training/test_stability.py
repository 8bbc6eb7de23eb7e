"""Stability training against a second statement of it."""

from dataclasses import replace

import pytest
import torch

from components.methods import Stability
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    SIGMA,
    Drawn,
    assert_same_loss_and_gradients,
    assert_same_training_step,
    cross_entropy,
    softmax,
    step_as,
    step_of,
    tiny_case,
)

MISTAKES = [
    "target detached",
    "first term under noise",
    "noisy forward first",
    "both passes in one forward",
    "target and prediction exchanged",
    "divided by sigma",
]


def as_specified(network, images, labels, noise, weight, mistake=None):
    """CE(F(x), y) + lambda * H(softmax F(x), softmax F(x + delta)), image by image; two forwards."""
    noisy_images = images + SIGMA * noise[0]
    if mistake == "noisy forward first":
        noisy = network(noisy_images)
        clean = network(images)
    elif mistake == "both passes in one forward":
        clean, noisy = network(torch.cat([images, noisy_images])).split(IMAGES)
    else:
        clean = network(images)
        noisy = network(noisy_images)
    total = 0.0
    for b in range(IMAGES):
        target, predicted = softmax(clean[b]), softmax(noisy[b])
        if mistake == "target and prediction exchanged":
            target, predicted = predicted, target
        if mistake == "target detached":
            target = target.detach()
        instability = -sum(target[k] * predicted[k].log() for k in range(CLASSES))
        total += cross_entropy((noisy if mistake == "first term under noise" else clean)[b], labels[b])
        total += weight / (SIGMA if mistake == "divided by sigma" else 1) * instability
    return total / IMAGES


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, weight):
    case, settings = tiny_case(), replace(settings, stability=Stability(weight))
    ours, loss, logits = step_of("stability", case, settings, Drawn(case[3][:1]))
    theirs, expected = step_as(as_specified, case, weight)
    assert logits.shape == (1, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, mistake):
    case, settings = tiny_case(), replace(settings, stability=Stability(2.0))
    ours, loss, _ = step_of("stability", case, settings, Drawn(case[3][:1]))
    theirs, wrong = step_as(as_specified, case, 2.0, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


def test_with_weight_0_it_is_the_cross_entropy_without_noise(settings):
    case, settings = tiny_case(), replace(settings, stability=Stability(0.0))
    ours, loss, _ = step_of("stability", case, settings, Drawn(case[3][:1]))
    theirs, expected, _ = step_of("gaussian", case, settings, Drawn(torch.zeros_like(case[3][:1])))
    assert_same_loss_and_gradients(ours, loss, theirs, expected)
