"""SmoothAdv against a second statement of it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from components.methods import SmoothAdv
from components.training.attack import smoothed_pgd
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    NOISES,
    SIGMA,
    Drawn,
    assert_same_training_step,
    cross_entropy,
    gaussian_step,
    into_ball,
    logits_by_pair,
    slope_of_smoothed_loss,
    step_as,
    step_of,
    tiny_case,
)

WARMUP_EPOCHS, STEPS, RADIUS = 10, 3, 0.9
MISTAKES = [
    "warm-up starts at 0",
    "no warm-up",
    "step of radius / T",
    "projected before clipping",
    "attack in train mode",
    "random start",
    "attack on the mean of the losses",
    "attack under other noise",
]


@pytest.fixture
def zero_gradient_draws():
    """What a step goes along where the gradient is exactly zero."""
    return torch.randn(STEPS, 1, IMAGES, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def method_settings(settings, radius=RADIUS):
    return replace(settings, warmup_epochs=WARMUP_EPOCHS, smoothadv=SmoothAdv(NOISES, STEPS, radius))


def as_specified(network, images, labels, noise, radius, epoch, mistake=None):
    """mean_i CE(F(x_adv + delta_i), y), image by image."""
    warmup = min(1, (epoch if mistake == "warm-up starts at 0" else epoch + 1) / WARMUP_EPOCHS)
    reach = radius * (1 if mistake == "no warm-up" else warmup)
    seen = noise.flip(0, 1) if mistake == "attack under other noise" else noise
    network.train(mistake == "attack in train mode")
    adversaries = [attack(network, images[b], labels[b], SIGMA * seen[:, b], reach, mistake) for b in range(IMAGES)]
    network.train()
    logits = logits_by_pair(network, adversaries, noise)
    return sum(cross_entropy(logits[i, b], labels[b]) for i, b in logits) / (NOISES * IMAGES)


def attack(network, image, label, deltas, radius, mistake):
    start = 0.1 * torch.ones_like(image) if mistake == "random start" else torch.zeros_like(image)
    point = image + into_ball(start, radius)
    for _ in range(STEPS):
        if mistake == "attack on the mean of the losses":
            slope = sum(slope_of_smoothed_loss(network, point, label, [delta]) for delta in deltas)
        else:
            slope = slope_of_smoothed_loss(network, point, label, deltas)
        length = (1 if mistake == "step of radius / T" else 2) * radius / STEPS
        point = point + length * slope / slope.norm()
        if mistake == "projected before clipping":
            point = (image + into_ball(point - image, radius)).clip(0, 1)
        else:
            point = image + into_ball(point.clip(0, 1) - image, radius)
    return point


@pytest.mark.parametrize("epoch", [0, 3, 20])
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, zero_gradient_draws, epoch):
    case, settings = tiny_case(), method_settings(settings)
    draws = Drawn(case[3], *zero_gradient_draws)
    ours, loss, logits = step_of("smoothadv", case, settings, draws, epoch=epoch)
    theirs, expected = step_as(as_specified, case, RADIUS, epoch)
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, zero_gradient_draws, mistake):
    case, settings = tiny_case(), method_settings(settings)
    ours, loss, _ = step_of("smoothadv", case, settings, Drawn(case[3], *zero_gradient_draws), epoch=6)
    theirs, wrong = step_as(as_specified, case, RADIUS, 6, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


def test_with_radius_0_it_is_the_gaussian_loss_on_all_noises(settings, zero_gradient_draws):
    case, settings = tiny_case(), method_settings(settings, radius=0.0)
    ours, loss, _ = step_of("smoothadv", case, settings, Drawn(case[3], *zero_gradient_draws))
    theirs, expected, _ = gaussian_step(case, settings)
    assert_same_training_step(ours, loss, theirs, expected)


def test_the_attack_steps_along_a_draw_where_the_gradient_is_zero_and_nowhere_else():
    """Images of pixel mean above one half have a gradient, the others none: a network with a dead unit."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.fill_(0.25)
        network[1].bias.fill_(-0.5)
    images = torch.tensor([0.75, 0.25]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    draw = torch.tensor([0.3, -0.2, 0.1, 0.2]).view(1, 1, 1, 2, 2).expand(1, 2, 1, 2, 2)
    noise, labels = torch.zeros(3, 2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    steps = smoothed_pgd(network, images, labels, noise, steps=1, radius=0.1, draws=Drawn(draw)) - images
    torch.testing.assert_close(steps[1], 2 * 0.1 * draw[0, 1], rtol=1e-5, atol=0)
    torch.testing.assert_close(steps[0].abs(), torch.full((1, 2, 2), 0.05), rtol=1e-5, atol=0)


def test_the_attack_stays_in_the_ball_and_the_pixel_range_and_leaves_the_network_as_it_was(zero_gradient_draws):
    network, images, labels, noise = tiny_case()
    before = copy.deepcopy(network.state_dict())
    draws = Drawn(*zero_gradient_draws)
    adversaries = smoothed_pgd(network, images, labels, SIGMA * noise, steps=STEPS, radius=0.4, draws=draws)
    assert ((adversaries - images).flatten(1).norm(dim=1) <= 0.4).all()
    assert ((adversaries - images).flatten(1).norm(dim=1) > 0.3).all()
    assert adversaries.min() >= 0
    assert adversaries.max() <= 1
    assert not adversaries.requires_grad
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)
