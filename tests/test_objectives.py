"""Losses and gradients against a second statement of the method: loops, float64, no code in common."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from components.training.draws import Draws
from components.training.objectives import OBJECTIVES

NOISES, IMAGES, CLASSES, SIGMA = 3, 6, 4, 0.3

SMOOTHMIX_CASES = {
    "clean step 0": ({"clean_step": 0}, 1.0),
    "clean step 0 in warm-up": ({"clean_step": 0}, 0.3),
    "clean step 1": ({"clean_step": 1}, 1.0),
    "clean step 1 in warm-up": ({"clean_step": 1}, 0.3),
    "clean step 1 within a radius": ({"clean_step": 1, "attack_radius": 0.4}, 0.7),
    "clean step 1 of 1": ({"clean_step": 1, "attack_steps": 1}, 0.7),
    "no attack": ({"attack_steps": 0}, 1.0),
}


class Drawn:
    """Numbers that were drawn before; asking twice is an error."""

    def __init__(self, normal, uniform):
        self._normal, self._uniform = [normal], [uniform]

    def normal(self, num, images):
        (drawn,) = self._normal.pop()[None]
        assert drawn.shape == (num, *images.shape)
        return drawn

    def uniform(self, images, *, high):
        return high * self._uniform.pop()


@pytest.fixture
def case():
    """Network with batch norm, images that touch 0 and 1, labels of which some are right, noise, lambda / (1/2)."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Softplus(), nn.Flatten(), nn.Linear(48, CLASSES)
    ).double()
    with torch.no_grad():
        network[1].weight.uniform_(0.5, 2)
        network[1].running_mean.uniform_(-0.5, 0.5)
        network[1].running_var.uniform_(0.2, 2)
        network[4].weight.mul_(3)
    images = (1.4 * torch.rand(IMAGES, 1, 4, 4, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    noise = torch.randn(NOISES, IMAGES, 1, 4, 4, dtype=torch.float64)
    return network, images, labels, noise, torch.rand(IMAGES, dtype=torch.float64)


def softmax(logits):
    powers = (logits - logits.max()).exp()
    return powers / powers.sum()


def into_ball(step, radius):
    return step * radius / (step.norm() + 1e-7) if step.norm() > radius else step


def smoothmix_as_specified(network, images, labels, noise, unit, mix, sigma, warmup):
    """The specification's steps 0 to 4, image by image and noise by noise; the loss and which images are right."""
    m, num = noise.shape[:2]
    delta, mixing = sigma * noise, unit / 2
    network.eval()
    adversaries, cleans = [], []
    for b in range(num):
        path = [images[b]]
        for _ in range(mix.attack_steps):
            point = path[-1].clone().requires_grad_()
            smoothed = sum(softmax(network((point + delta[i, b])[None])[0]) for i in range(m)) / m
            (slope,) = torch.autograd.grad(-torch.log(smoothed[labels[b]].clamp(min=1e-20)), point)
            point = point.detach() + mix.step_size * slope / (slope.norm() + 1e-8)
            if mix.attack_radius is not None:
                point = images[b] + into_ball(point - images[b], mix.attack_radius)
            path.append(point.clip(0, 1))
        adversaries.append(path[mix.attack_steps])
        start = path[mix.clean_step] if mix.clean_step < mix.attack_steps else images[b]
        step = into_ball(start - images[b], warmup * mix.step_size * mix.clean_step)
        cleans.append((images[b] + step).clip(0, 1))
    network.train()

    pairs = [(i, b) for i in range(m) for b in range(num)]
    logits = dict(zip(pairs, network(torch.stack([cleans[b] + delta[i, b] for i, b in pairs])), strict=True))
    natural = sum(-softmax(logits[i, b])[labels[b]].log() for i, b in pairs) / (m * num)
    smoothed = [sum(softmax(logits[i, b]) for i in range(m)) / m for b in range(num)]
    right = [int(smoothed[b].argmax()) == int(labels[b]) for b in range(num)]

    mixed = [(1 - mixing[b]) * cleans[b] + mixing[b] * adversaries[b] for b in range(num)]
    target = [(1 - mixing[b]) * smoothed[b] + mixing[b] / CLASSES for b in range(num)]
    outputs = dict(zip(pairs, network(torch.stack([mixed[b] + delta[i, b] for i, b in pairs])), strict=True))
    divergences = [(target[b] * (target[b] / softmax(outputs[i, b])).log()).sum() for i, b in pairs if right[b]]
    return natural + mix.mix_weight * warmup * sum(divergences) / (m * num), right


def gradients(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def assert_same_training_step(ours, loss, theirs, expected):
    """Losses, gradients and batch-norm statistics, up to the float32 that our logits are rounded to."""
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    scale = gradients(theirs).abs().max().item()
    torch.testing.assert_close(gradients(ours), gradients(theirs), rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("changes", "warmup"), SMOOTHMIX_CASES.values(), ids=SMOOTHMIX_CASES)
def test_smoothmix_is_the_specified_loss_with_its_gradients_and_batch_statistics(case, settings, changes, warmup):
    network, images, labels, noise, unit = case
    theirs = copy.deepcopy(network)
    mix = replace(settings.smoothmix, **{"num_noises": NOISES, "attack_steps": 3, "step_size": 0.5, **changes})
    settings = replace(settings, smoothmix=mix)
    expected, right = smoothmix_as_specified(theirs, images, labels, noise, unit, mix, SIGMA, warmup)
    expected.backward()
    loss, logits = OBJECTIVES["smoothmix"](
        network, images, labels, sigma=SIGMA, settings=settings, warmup=warmup, draws=Drawn(noise, unit)
    )
    loss.backward()
    assert 0 < sum(right) < IMAGES, "the case must hold images of both kinds"
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(network, loss, theirs, expected)


def test_the_attack_leaves_no_gradient_and_train_mode_behind(case, settings):
    network, images, labels, noise, unit = case
    draws = Drawn(noise[:2], unit)
    OBJECTIVES["smoothmix"](network, images, labels, sigma=SIGMA, settings=settings, warmup=1.0, draws=draws)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


def test_gaussian_is_the_mean_cross_entropy_under_one_noise_per_image(case, settings):
    network, images, labels, noise, unit = case
    theirs = copy.deepcopy(network)
    outputs = theirs(torch.stack([images[b] + SIGMA * noise[0, b] for b in range(IMAGES)]))
    expected = sum(-softmax(outputs[b])[labels[b]].log() for b in range(IMAGES)) / IMAGES
    expected.backward()
    loss, logits = OBJECTIVES["gaussian"](
        network, images, labels, sigma=SIGMA, settings=settings, warmup=1.0, draws=Drawn(noise[:1], unit)
    )
    loss.backward()
    assert logits.shape == (1, IMAGES, CLASSES)
    assert_same_training_step(network, loss, theirs, expected)


def test_smoothmix_without_mixing_weight_and_clean_step_is_gaussian(case, settings):
    network, images, labels, _, _ = case
    other = copy.deepcopy(network)
    settings = replace(settings, smoothmix=replace(settings.smoothmix, num_noises=1, mix_weight=0.0))
    losses = []
    for net, name in [(network, "smoothmix"), (other, "gaussian")]:
        draws = Draws(0, 0, 0, images.device)
        loss, _ = OBJECTIVES[name](net, images, labels, sigma=SIGMA, settings=settings, warmup=1.0, draws=draws)
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients(network), gradients(other), rtol=1e-5, atol=1e-7)


def test_draws_are_standard_normal_and_uniform_and_differ_by_seed_epoch_and_step():
    images, cpu = torch.zeros(2000, 1, 3, 3), torch.device("cpu")
    draws = Draws(0, 0, 0, cpu)
    normal, uniform = draws.normal(2, images), draws.uniform(images, high=0.5)
    assert normal.shape == (2, 2000, 1, 3, 3)
    assert normal.dtype == uniform.dtype == torch.float32
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.02
    assert uniform.shape == (2000,)
    assert 0 <= uniform.min() < 0.01
    assert 0.49 < uniform.max() < 0.5
    assert abs(uniform.mean() - 0.25) < 0.02
    assert torch.equal(Draws(0, 0, 0, cpu).normal(2, images), normal)
    for key in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        other = Draws(*key, cpu).normal(2, images)
        assert abs((other * normal).mean()) < 0.03
