"""CAT-RS against a second statement of it, and the frequencies that it takes as targets."""

import copy
from dataclasses import replace
from math import comb

import pytest
import torch
from torch import nn

from components.methods import Catrs
from components.training.draws import Draws
from components.training.objectives.catrs import TARGET, hardest_noise, number_kept, with_moments
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
    softmax,
    step_as,
    step_of,
    tiny_case,
)

STEPS, RADIUS = 3, 0.6
MISTAKES = [
    "divided by k instead of M",
    "largest instead of smallest",
    "k is the number of right noises",
    "nothing kept where none is right",
    "mean over the noises in the hardest loss",
    "hardest loss of every image",
    "hardest loss where none is right",
    "label as target",
    "divergence the other way round",
    "step of radius / T",
    "gradient not at unit length",
    "no projection",
    "projected after restoring the moments",
    "moments restored after the last step alone",
    "standard deviation instead of root mean square",
    "moments not restored",
    "attack in train mode",
    "attack before the first pass",
    "one attack for all noises of an image",
]
UNIFORMS = torch.tensor(
    [[0.5, 0.0, 0.9, 0.1, 0.999, 0.3], [0.2, 0.5, 0.1, 0.9, 0.0, 0.1], [0.7, 0.1, 0.4, 0.3, 0.5, 0]]
)
"""Of image 3, one noise of three is right, and k is 2."""


def case_and_target():
    """The network answers 0 but once: images 0, 2 and 4 are always right, 1 and 5 never, 3 once."""
    network, images, _, noise = tiny_case()
    frequencies = (
        torch.tensor([[6, 1, 0, 3], [2, 8, 0, 0], [10, 0, 0, 0], [1, 2, 3, 4], [5, 0, 4, 1], [0, 0, 9, 1]]) / 10
    )
    return (network, images, torch.tensor([0, 1, 0, 3, 0, 2]), noise), frequencies


def method_settings(settings, **changes):
    own = {"num_noises": NOISES, "attack_steps": STEPS, "attack_radius": RADIUS, "weight": 2.0} | changes
    return replace(settings, catrs=Catrs(**own))


def ours(settings, case, target, uniforms=UNIFORMS):
    draws = Drawn(case[3], uniforms=uniforms)
    return step_of("catrs", case, settings, draws, per_image={TARGET: target})


def as_specified(network, images, labels, noise, target, own, mistake=None):
    """Image by image and noise by noise; the loss, and k of each image."""
    early = mistake == "attack before the first pass"
    attacked = attacks(network, images, labels, noise, target, own, mistake) if early else None
    network.train()
    logits = logits_by_pair(network, images, noise)
    attacked = attacked or attacks(network, images, labels, noise, target, own, mistake)
    network.train()
    pairs = [(i, b) for i in range(NOISES) for b in range(IMAGES)]
    hardest = dict(zip(pairs, network(torch.stack([images[b] + attacked[i, b] for i, b in pairs])), strict=True))
    total, drawn = 0.0, []
    for b in range(IMAGES):
        share = sum(logits[i, b].argmax() == labels[b] for i in range(NOISES)) / NOISES
        k = sum(bool(UNIFORMS[i, b] < share) for i in range(NOISES))
        if mistake == "k is the number of right noises":
            k = round(NOISES * share.item())
        if mistake != "nothing kept where none is right":
            k = max(1, k)
        drawn.append(k)
        losses = sorted((cross_entropy(logits[i, b], labels[b]) for i in range(NOISES)), key=lambda loss: loss.item())
        kept = losses[-k:] if mistake == "largest instead of smallest" else losses[:k]
        low = sum(kept) / (k if mistake == "divided by k instead of M" else NOISES)
        far = [
            divergence(softmax(hardest[i, b]), answers_of(target, labels, b, mistake), mistake) for i in range(NOISES)
        ]
        high = sum(far) / NOISES if mistake == "mean over the noises in the hardest loss" else max(far)
        counted = k == NOISES or mistake == "hardest loss of every image"
        counted = counted or (mistake == "hardest loss where none is right" and share == 0)
        total += low + own.weight * counted * high
    return total / IMAGES, drawn


def answers_of(target, labels, b, mistake):
    return torch.eye(CLASSES)[labels[b]].double() if mistake == "label as target" else target[b].double()


def divergence(predicted, q, mistake=None):
    """KL(q || predicted), where 0 log 0 is 0."""
    if mistake == "divergence the other way round":
        return sum(predicted[c] * (predicted[c] / q[c].clamp(min=1e-20)).log() for c in range(CLASSES))
    return sum(q[c] * (q[c] / predicted[c]).log() for c in range(CLASSES) if q[c] > 0)


def attacks(network, images, labels, noise, target, own, mistake):
    network.train(mistake == "attack in train mode")
    found = {}
    for b in range(IMAGES):
        q = answers_of(target, labels, b, mistake)
        for i in range(NOISES):
            alike = mistake == "one attack for all noises of an image" and i > 0
            step = found[0, b] - SIGMA * noise[0, b] if alike else 0
            delta = SIGMA * noise[i, b]
            found[i, b] = delta + step if alike else attack(network, images[b], delta, q, own.attack_radius, mistake)
    return found


def attack(network, image, delta, q, radius, mistake):
    e = delta
    for step in range(STEPS):
        e = e.clone().requires_grad_()
        (slope,) = torch.autograd.grad(divergence(softmax(network((image + e)[None])[0]), q, mistake), e)
        if mistake != "gradient not at unit length":
            slope = slope / slope.norm()
        e = e.detach() + (1 if mistake == "step of radius / T" else 2) * radius / STEPS * slope
        if mistake == "projected after restoring the moments":
            e = delta + into_ball(restored(e, delta, mistake) - delta, radius)
            continue
        if mistake != "no projection":
            e = delta + into_ball(e - delta, radius)
        late = mistake == "moments restored after the last step alone" and step + 1 < STEPS
        if mistake != "moments not restored" and not late:
            e = restored(e, delta, mistake)
    return e


def restored(e, delta, mistake):
    """m0 + s0 * (e - mean e) / rms e, pixel by pixel."""
    values, origin = e.flatten().tolist(), delta.flatten().tolist()
    mean, m0 = sum(values) / len(values), sum(origin) / len(origin)
    centres = (mean, m0) if mistake == "standard deviation instead of root mean square" else (0, 0)
    rms = (sum((value - centres[0]) ** 2 for value in values) / len(values)) ** 0.5
    s0 = (sum((value - centres[1]) ** 2 for value in origin) / len(origin)) ** 0.5
    return torch.tensor([m0 + s0 * (value - mean) / rms for value in values], dtype=torch.float64).view_as(e)


@pytest.mark.parametrize("changes", [{}, {"weight": 0.5, "attack_radius": 2.0}], ids=str)
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, changes):
    (case, target), settings = case_and_target(), method_settings(settings, **changes)
    network, loss, logits = ours(settings, case, target)
    theirs, expected, drawn = step_as(as_specified, case, target, settings.catrs)
    assert drawn == [3, 1, 3, 2, 3, 1], "the case must hold images of every kind"
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(network, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, mistake):
    (case, target), settings = case_and_target(), method_settings(settings)
    network, loss, _ = ours(settings, case, target)
    theirs, wrong, _ = step_as(as_specified, case, target, settings.catrs, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(network, loss, theirs, wrong)


def test_where_all_are_right_and_the_weight_is_0_it_is_the_gaussian_loss_on_all_noises(settings):
    (network, images, _, noise), target = case_and_target()
    case = (network, images, torch.zeros(IMAGES, dtype=torch.int64), torch.stack([noise[0]] * NOISES))
    _, loss, logits = ours(method_settings(settings, weight=0.0), case, target)
    _, expected, _ = gaussian_step(case, settings)
    assert (logits.argmax(-1) == 0).all()
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=0)


def test_where_all_are_wrong_the_easiest_noise_counts_and_the_hardest_does_not(settings):
    (network, images, _, noise), target = case_and_target()
    case = (network, images, torch.full((IMAGES,), 2), noise)
    (_, heavy, logits), (_, light, _) = (
        ours(method_settings(settings, weight=weight), case, target) for weight in (1e6, 0.0)
    )
    assert (logits.argmax(-1) != 2).all()
    easiest = (-logits.detach().log_softmax(-1)[..., 2]).min(0).values
    assert heavy.item() == light.item() == pytest.approx(easiest.mean().item() / NOISES, rel=1e-5)


def test_k_is_binomial_and_at_least_1():
    images, cpu = torch.zeros(40_000, 1, 1, 1), torch.device("cpu")
    for share in (0.0, 0.25, 0.5, 1.0):
        k = number_kept(torch.full((len(images),), share), 4, images, Draws(0, 0, 0, cpu))
        found = k.bincount(minlength=5) / len(images)
        expected = torch.tensor([comb(4, n) * share**n * (1 - share) ** (4 - n) for n in range(5)])
        expected[1] += expected[0]
        expected[0] = 0
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
        assert share not in (0.0, 1.0) or torch.equal(found, expected)


def test_without_a_radius_or_without_a_gradient_the_noise_stays():
    (network, images, _, noise), target = case_and_target()
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    nn.init.zeros_(constant[1].weight)
    for answering, radius in ((network, 0.0), (constant, 1.0)):
        moved = hardest_noise(answering, images, target, SIGMA * noise, steps=2, radius=radius)
        torch.testing.assert_close(moved, SIGMA * noise, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_noise_that_is_the_same_everywhere_leaves_no_nan(value):
    (network, images, _, _), target = case_and_target()
    noise = torch.full((1, IMAGES, 1, 4, 4), value, dtype=torch.float64)
    assert torch.equal(with_moments(noise[0], noise[0]), noise[0])
    assert hardest_noise(network, images, target, noise, steps=2, radius=1.0).isfinite().all()


def test_the_attack_leaves_the_network_as_it_was():
    (network, images, _, noise), target = case_and_target()
    before = copy.deepcopy(network.state_dict())
    moved = hardest_noise(network, images, target, SIGMA * noise, steps=STEPS, radius=RADIUS)
    assert not moved.requires_grad
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)
