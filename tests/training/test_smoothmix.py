"""SmoothMix against a second statement of it, and against the mistakes that others have shipped."""

from dataclasses import replace

import pytest
import torch

from components.training.objectives import OBJECTIVES
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    NOISES,
    SIGMA,
    Drawn,
    assert_same_loss_and_gradients,
    assert_same_training_step,
    cross_entropy,
    gaussian_step,
    into_ball,
    logits_by_pair,
    slope_of_smoothed_loss,
    softmax,
    step_as,
    step_of,
    tiny_case,
)

WARMUP_EPOCHS = 10
CASES = {
    "clean step 0": ({"clean_step": 0}, 9),
    "clean step 0 in warm-up": ({"clean_step": 0}, 2),
    "clean step 0 in the first epoch": ({"clean_step": 0}, 0),
    "clean step 1": ({"clean_step": 1}, 20),
    "clean step 1 in warm-up": ({"clean_step": 1}, 2),
    "clean step 1 within a radius": ({"clean_step": 1, "attack_radius": 0.4}, 6),
    "clean step 1 of 1": ({"clean_step": 1, "attack_steps": 1}, 6),
    "no attack": ({"attack_steps": 0}, 9),
}
MISTAKES = [
    "warm-up starts at 0",
    "clean step is not warmed up",
    "attack in train mode",
    "target detached",
    "lambda in [0, 1)",
    "divided by the number of correct images",
    "wrongly classified images are mixed too",
    "both passes in one forward",
    "noise drawn anew for the mixed pass",
]


@pytest.fixture
def unit():
    """lambda / (1/2), one per image."""
    return torch.rand(IMAGES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def method_settings(settings, **changes):
    mix = replace(settings.smoothmix, **{"num_noises": NOISES, "attack_steps": 3, "step_size": 0.5, **changes})
    return replace(settings, smoothmix=mix, warmup_epochs=WARMUP_EPOCHS)


def as_specified(network, images, labels, noise, unit, mix, epoch, mistake=None):
    """The specification's steps 0 to 4, image by image and noise by noise; the loss and which images are right."""
    m, num = noise.shape[:2]
    warmup = min(1, (epoch if mistake == "warm-up starts at 0" else epoch + 1) / WARMUP_EPOCHS)
    mixing = unit if mistake == "lambda in [0, 1)" else unit / 2
    network.train(mistake == "attack in train mode")
    points = [attack(network, images[b], labels[b], SIGMA * noise[:, b], mix) for b in range(num)]
    adversaries = [path[mix.attack_steps] for path in points]
    starts = [path[mix.clean_step] if mix.clean_step < mix.attack_steps else path[0] for path in points]
    radius = (1 if mistake == "clean step is not warmed up" else warmup) * mix.step_size * mix.clean_step
    cleans = [(images[b] + into_ball(starts[b] - images[b], radius)).clip(0, 1) for b in range(num)]
    mixed = [(1 - mixing[b]) * cleans[b] + mixing[b] * adversaries[b] for b in range(num)]
    network.train()

    if mistake == "both passes in one forward":
        both = logits_by_pair(network, [*cleans, *mixed], torch.cat([noise, noise], 1))
        logits = {(i, b): value for (i, b), value in both.items() if b < num}
        outputs = {(i, b - num): value for (i, b), value in both.items() if b >= num}
    else:
        logits = logits_by_pair(network, cleans, noise)
        outputs = logits_by_pair(network, mixed, noise.roll(1, 1) if mistake == MISTAKES[-1] else noise)
    natural = sum(cross_entropy(logits[i, b], labels[b]) for i, b in logits) / (m * num)
    smoothed = [sum(softmax(logits[i, b]) for i in range(m)) / m for b in range(num)]
    right = [int(smoothed[b].argmax()) == int(labels[b]) for b in range(num)]
    if mistake == "target detached":
        smoothed = [probabilities.detach() for probabilities in smoothed]

    kept = [True] * num if mistake == "wrongly classified images are mixed too" else right
    target = [(1 - mixing[b]) * smoothed[b] + mixing[b] / CLASSES for b in range(num)]
    divergences = [(target[b] * (target[b] / softmax(outputs[i, b])).log()).sum() for i, b in outputs if kept[b]]
    divisor = m * (sum(right) if mistake == "divided by the number of correct images" else num)
    return natural + mix.mix_weight * warmup * sum(divergences) / divisor, right


def attack(network, image, label, deltas, mix):
    path = [image]
    for _ in range(mix.attack_steps):
        slope = slope_of_smoothed_loss(network, path[-1], label, deltas)
        point = path[-1] + mix.step_size * slope / (slope.norm() + 1e-8)
        if mix.attack_radius is not None:
            point = image + into_ball(point - image, mix.attack_radius)
        path.append(point.clip(0, 1))
    return path


@pytest.mark.parametrize(("changes", "epoch"), CASES.values(), ids=CASES)
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, unit, changes, epoch):
    case, settings = tiny_case(), method_settings(settings, **changes)
    ours, loss, logits = step_of("smoothmix", case, settings, Drawn(case[3], uniform=unit), epoch=epoch)
    theirs, expected, right = step_as(as_specified, case, unit, settings.smoothmix, epoch)
    assert 0 < sum(right) < IMAGES, "the case must hold images of both kinds"
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, unit, mistake):
    case, settings = tiny_case(), method_settings(settings, clean_step=1)
    ours, loss, _ = step_of("smoothmix", case, settings, Drawn(case[3], uniform=unit), epoch=2)
    theirs, wrong, _ = step_as(as_specified, case, unit, settings.smoothmix, 2, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


def test_the_attack_leaves_no_gradient_behind(settings, unit):
    """Before the loss's own backward, only the attack could have left one."""
    network, images, labels, noise = tiny_case()
    settings = method_settings(settings)
    draws = Drawn(noise, uniform=unit)
    told = {"sigma": SIGMA, "settings": settings, "epoch": 0, "draws": draws, "own": settings.smoothmix}
    OBJECTIVES["smoothmix"](network, images, labels, **told)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


def test_without_mixing_weight_and_clean_step_it_is_the_gaussian_loss_on_all_noises(settings, unit):
    case, settings = tiny_case(), method_settings(settings, mix_weight=0.0, clean_step=0)
    ours, loss, _ = step_of("smoothmix", case, settings, Drawn(case[3], uniform=unit))
    theirs, expected, _ = gaussian_step(case, settings)
    assert_same_loss_and_gradients(ours, loss, theirs, expected)
