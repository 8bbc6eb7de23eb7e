"""The method of Sun et al. (2025) against a second statement of it, and which images it draws."""

import copy
from dataclasses import replace
from math import comb
from statistics import NormalDist

import pytest
import torch
from torch import nn

from components.methods import Sun2025
from components.training.objectives.sun2025 import noise_on_sphere, selection, weight_by_right
from components.training.preparation import CHANCE, TrainingImages
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    NOISES,
    SIGMA,
    Drawn,
    assert_same_training_step,
    cross_entropy,
    gaussian_step,
    logits_by_pair,
    step_as,
    step_of,
    tiny_case,
)

STEPS, STEP_SIZE, BEGIN = 3, 0.3, 7
MISTAKES = [
    "checked after the last step",
    "moves those already misclassified",
    "a misclassified one goes back to its start",
    "stops for all noises of an image at once",
    "noise not on the sphere",
    "on the sphere after the last step alone",
    "gradient not at unit length",
    "noisy image clipped to the pixel range",
    "attack in train mode",
    "attack under other noise",
]


def case_of_every_kind():
    """Copies that are wrong from the start, after one step or two, or to the end right: answers are narrow."""
    network, images, _, noise = tiny_case()
    with torch.no_grad():
        network[4].bias[0] -= 0.6
    return network, images, torch.tensor([0, 1, 0, 3, 0, 0]), noise


def method_settings(settings, **changes):
    own = {"num_noises": NOISES, "selection_epoch": BEGIN, "attack_steps": STEPS, "step_size": STEP_SIZE} | changes
    return replace(settings, sun2025=Sun2025(**own))


def as_specified(network, images, labels, noise, mistake=None):
    """The loss, and for how many steps each copy has moved."""
    seen = noise.flip(0, 1) if mistake == "attack under other noise" else noise
    network.train(mistake == "attack in train mode")
    moves, moved = [], torch.zeros_like(noise)
    for b in range(IMAGES):
        for i in range(NOISES):
            others = [SIGMA * seen[j, b] for j in range(NOISES)]
            found, steps = attack(network, images[b], labels[b], SIGMA * seen[i, b], others, mistake)
            moved[i, b] = found / SIGMA
            moves.append(steps)
    network.train()
    logits = logits_by_pair(network, images, moved)
    return sum(cross_entropy(logits[i, b], labels[b]) for i, b in logits) / (NOISES * IMAGES), moves


def attack(network, image, label, delta, others, mistake):
    def seen(e):
        return (image + e).clip(0, 1) if mistake == "noisy image clipped to the pixel range" else image + e

    def wrong(e):
        return network(seen(e)[None])[0].argmax() != label

    e, steps = delta, 0
    for _ in range(STEPS):
        stop = wrong(e)
        if mistake == "stops for all noises of an image at once":
            stop = all(wrong(other) for other in others)
        if stop and mistake == "a misclassified one goes back to its start":
            return delta, steps
        if stop and mistake != "moves those already misclassified":
            break
        steps += 1
        e = e.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(network(seen(e)[None])[0], label), e)
        e = e.detach() + STEP_SIZE * (slope if mistake == "gradient not at unit length" else slope / slope.norm())
        if mistake not in ("noise not on the sphere", "on the sphere after the last step alone"):
            e = e * delta.norm() / e.norm()
    if mistake == "on the sphere after the last step alone":
        e = e * delta.norm() / e.norm()
    if mistake == "checked after the last step" and not wrong(e):
        return delta, steps
    return e, steps


@pytest.mark.parametrize("epoch", [BEGIN, BEGIN + 3])
def test_it_is_the_specified_loss_with_its_gradients_and_batch_statistics(settings, epoch):
    case = case_of_every_kind()
    ours, loss, logits = step_of("sun2025", case, method_settings(settings), Drawn(case[3]), epoch=epoch, per_image={})
    theirs, expected, moves = step_as(as_specified, case)
    assert set(moves) == {0, 1, 2, 3}, "the case must hold copies of every kind"
    assert logits.shape == (NOISES, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, theirs, expected)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_notices(settings, mistake):
    case = case_of_every_kind()
    ours, loss, _ = step_of("sun2025", case, method_settings(settings), Drawn(case[3]), epoch=BEGIN, per_image={})
    theirs, wrong, _ = step_as(as_specified, case, mistake)
    with pytest.raises(AssertionError):
        assert_same_training_step(ours, loss, theirs, wrong)


@pytest.mark.parametrize(("epoch", "changes"), [(BEGIN - 1, {}), (BEGIN, {"attack_steps": 0})], ids=str)
def test_before_its_epoch_or_without_steps_it_is_the_gaussian_loss_on_all_noises(settings, epoch, changes):
    case, settings = case_of_every_kind(), method_settings(settings, **changes)
    ours, loss, _ = step_of("sun2025", case, settings, Drawn(case[3]), epoch=epoch, per_image={})
    theirs, expected, _ = gaussian_step(case, settings)
    assert_same_training_step(ours, loss, theirs, expected)


def test_where_all_are_wrong_nothing_moves():
    network, images, _, noise = tiny_case()
    moved = noise_on_sphere(network, images, torch.full((IMAGES,), 2), SIGMA * noise, steps=STEPS, step_size=1.0)
    assert torch.equal(moved, SIGMA * noise)


def test_the_noise_keeps_its_length_and_the_network_stays_as_it_was():
    network, images, labels, noise = case_of_every_kind()
    before = copy.deepcopy(network.state_dict())
    moved = noise_on_sphere(network, images, labels, SIGMA * noise, steps=STEPS, step_size=STEP_SIZE)
    lengths = [values.flatten(2).norm(dim=2) for values in (moved, SIGMA * noise)]
    torch.testing.assert_close(*lengths, rtol=1e-6, atol=0)
    assert not torch.equal(moved, SIGMA * noise)
    assert not moved.requires_grad
    assert network.training
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("factor", [0.0, 1.0], ids=["no noise", "noise"])
def test_a_gradient_or_a_noise_of_zero_leaves_no_nan(factor):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)  # answers 0 for each image, without a slope
    _, images, _, noise = tiny_case()
    labels = torch.zeros(IMAGES, dtype=torch.int64)
    moved = noise_on_sphere(network, images, labels, factor * noise, steps=2, step_size=1.0)
    torch.testing.assert_close(moved, factor * noise, rtol=1e-9, atol=0)


# --- which images are drawn --------------------------------------------------------------------------------------


def test_the_weights_are_the_quantiles_of_the_lower_bounds():
    weights = weight_by_right().tolist()
    assert [round(weight, 3) for weight in weights[12:]] == [0.154, 0.329, 0.526, 0.765, 1.108]
    assert weights[:12] == [weights[12]] * 12
    for m in range(12, 17):  # the bound is the p at which m or more of 16 have the probability .1
        p = NormalDist().cdf(weights[m])
        assert sum(comb(16, k) * p**k * (1 - p) ** (16 - k) for k in range(m, 17)) == pytest.approx(0.1, rel=1e-9)


VALUES = {"surely": 40, "mostly": 16, "evenly": 8, "rarely": 0}
"""Pixels of 1x1 images, where 16 is 1.0: under noise of sigma 0.5 they are above 0.5 with the probabilities 1, .84, .5
and .16."""


def images_at(epoch, settings, labels=None):
    """Ten images of each of VALUES, of class 1."""
    pixels = torch.tensor(list(VALUES.values()), dtype=torch.uint8).repeat_interleave(10).view(-1, 1, 1, 1)
    labels = torch.ones(len(pixels), dtype=torch.int64) if labels is None else labels
    return TrainingImages(pixels, labels, 16, settings, seed=0, epoch=epoch)


def above_one_half():
    """Answers 1 where the pixel is above 0.5, else 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        network[1].bias.copy_(torch.tensor([0.5, -0.5]))
    return network


def selected(images, settings, known=None):
    """The chance of each image, by its kind."""
    told = {"sigma": 0.5, "own": settings.sun2025, "gaussian": None}
    found = list(selection(above_one_half(), images, known or {}, **told))
    return found and found[-1][1][CHANCE]


def test_an_image_is_kept_if_it_is_right_under_the_share_of_noise_that_is_asked_for(settings):
    settings = method_settings(settings, least_share=0.7)
    chance = selected(images_at(BEGIN, settings), settings)
    kept = {kind: (values > 0).sum().item() for kind, values in zip(VALUES, chance.split(10), strict=True)}
    assert kept == {"surely": 10, "mostly": 10, "evenly": 0, "rarely": 0}
    chance = selected(images_at(BEGIN, settings), method_settings(settings, least_share=0.3))
    kept = {kind: (values > 0).sum().item() for kind, values in zip(VALUES, chance.split(10), strict=True)}
    assert kept == {"surely": 10, "mostly": 10, "evenly": 10, "rarely": 0}


def test_the_chance_of_a_kept_image_is_the_weight_of_its_right_copies(settings):
    settings = method_settings(settings, least_share=0.3)
    surely, mostly, evenly, _ = selected(images_at(BEGIN, settings), settings).split(10)
    weights = weight_by_right()
    assert surely.tolist() == [weights[16]] * 10
    assert set(mostly.tolist()) <= set(weights.tolist())
    assert len(set(mostly.tolist())) > 1
    assert weights[12] < mostly.mean() < weights[15], "13.5 of 16 are right on average"
    assert evenly.mean() < weights[13]


def test_a_share_of_exactly_p_t_is_kept(settings):
    """All copies of the images of class 1 are right: the share is 1."""
    settings = method_settings(settings, least_share=1.0)
    chance = selected(images_at(BEGIN, settings), settings)
    assert (chance[:10] > 0).all()
    assert not chance[10:].any()


def test_it_is_decided_again_every_10_epochs_by_fresh_noise_and_what_was_left_out_stays_out(settings):
    settings = method_settings(settings, least_share=0.7)
    first = selected(images_at(BEGIN, settings), settings)
    for epoch in (0, BEGIN - 1, BEGIN + 1, BEGIN + 9, BEGIN + 11):
        assert selected(images_at(epoch, settings), settings, {CHANCE: first}) == []
    later = selected(images_at(BEGIN + 10, settings), settings, {CHANCE: first})
    assert torch.equal(later > 0, first > 0)
    assert not torch.equal(later, first)
    only_one = torch.zeros_like(first)
    only_one[3] = 0.5
    assert selected(images_at(BEGIN + 20, settings), settings, {CHANCE: only_one}).nonzero().flatten().tolist() == [3]


def test_where_none_is_kept_one_line_says_so(settings):
    images = images_at(BEGIN, settings, labels=torch.zeros(40, dtype=torch.int64))
    images = replace(images, pixels=torch.full_like(images.pixels, 40))
    with pytest.raises(ValueError, match=r"train\.sun2025\.least_share is 0\.4: at epoch 7 no training image is"):
        selected(images, method_settings(settings))
