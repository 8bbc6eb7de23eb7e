"""Consistency regularization against a second statement of it."""

from dataclasses import replace

import pytest
import torch

from components.methods import Consistency
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    NOISES,
    Drawn,
    assert_same_loss_and_gradients,
    assert_same_training_step,
    cross_entropy,
    gaussian_step,
    logits_by_pair,
    softmax,
    step_as,
    step_of,
    tiny_case,
)

MISTAKES = [
    "target detached",
    "divergences summed over the noises",
    "divergence the other way round",
    "entropy subtracted",
    "entropy of each noise's answer",
    "a forward for each noise",
]


def method_settings(settings, weight, entropy_weight):
    return replace(settings, consistency=Consistency(NOISES, weight, entropy_weight))


def as_specified(network, images, labels, noise, own, mistake=None):
    """mean_i CE(z_i, y) + lambda * mean_i KL(p-bar || softmax z_i) + eta * H(p-bar), image by image."""
    if mistake == "a forward for each noise":
        logits = {
            (i, b): z for i in range(NOISES) for (_, b), z in logits_by_pair(network, images, noise[i : i + 1]).items()
        }
    else:
        logits = logits_by_pair(network, images, noise)
    total = 0.0
    for b in range(IMAGES):
        answers = [softmax(logits[i, b]) for i in range(NOISES)]
        mean = sum(answers) / NOISES
        target = mean.detach() if mistake == "target detached" else mean
        pairs = [
            (answer, target) if mistake == "divergence the other way round" else (target, answer) for answer in answers
        ]
        spread = sum((p * (p / q).log()).sum() for p, q in pairs)
        spread = spread if mistake == "divergences summed over the noises" else spread / NOISES
        entropy = -(target * target.log()).sum()
        if mistake == "entropy of each noise's answer":
            entropy = -sum((answer * answer.log()).sum() for answer in answers) / NOISES
        if mistake == "entropy subtracted":
            entropy = -entropy
        natural = sum(cross_entropy(logits[i, b], labels[b]) for i in range(NOISES)) / NOISES
        total += natural + own.weight * spread + own.entropy_weight * entropy
    return total / IMAGES


@pytest.mark.parametrize(("weight", "entropy_weight"), [(10.0, 0.5), (5.0, 0.0), (0.0, 0.5)])
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, weight, entropy_weight):
    case, settings = tiny_case(), method_settings(settings, weight, entropy_weight)
    ours, loss, logits = step_of("consistency", case, settings, Drawn(case[3]))
    theirs, expected = step_as(as_specified, case, settings.consistency)
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, mistake):
    case, settings = tiny_case(), method_settings(settings, 10.0, 0.5)
    ours, loss, _ = step_of("consistency", case, settings, Drawn(case[3]))
    theirs, wrong = step_as(as_specified, case, settings.consistency, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


def test_without_its_weights_it_is_the_gaussian_loss_on_all_noises(settings):
    case, settings = tiny_case(), method_settings(settings, 0.0, 0.0)
    ours, loss, _ = step_of("consistency", case, settings, Drawn(case[3]))
    theirs, expected, _ = gaussian_step(case, settings)
    assert_same_training_step(ours, loss, theirs, expected)


def test_with_one_noise_nothing_diverges(settings):
    case, settings = tiny_case(), replace(settings, consistency=Consistency(1, 10.0, 0.0))
    ours, loss, _ = step_of("consistency", case, settings, Drawn(case[3][:1]))
    theirs, expected, _ = step_of("gaussian", case, settings, Drawn(case[3][:1]))
    assert_same_loss_and_gradients(ours, loss, theirs, expected)


def test_certain_answers_leave_no_nan(settings):
    """Probabilities of 0 and 1 in float32: 0 * log 0 counts as 0, in the gradient too."""
    network, images, labels, noise = tiny_case()
    with torch.no_grad():
        network[4].weight.mul_(1e4)
    case, settings = (network, images, labels, noise), method_settings(settings, 10.0, 0.5)
    ours, loss, _ = step_of("consistency", case, settings, Drawn(noise))
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())
