"""What holds for every training method, and the numbers that a refactoring must not change."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from components.training.draws import Draws
from components.training.objectives import OBJECTIVES, PREPARATIONS, method_of
from components.training.objectives.catrs import TARGET
from components.training.optimizer import make_optimizer
from components.training.smoothing import warmup_weight
from tests.support.training_steps import (
    CLASSES,
    IMAGES,
    SIGMA,
    Drawn,
    assert_same_training_step,
    cross_entropy,
    gradients,
    step_of,
    tiny_case,
)

GOLDEN_LOSSES = {
    "smoothmix": [2.400277, 2.050028, 1.294092],
    "gaussian": [2.572008, 1.964801, 1.044320],
    "stability": [3.572593, 3.195635, 2.890906],
    "smoothadv": [2.572555, 2.344877, 1.801461],
    "macer": [2.423747, 2.285841, 2.163683],
    "consistency": [3.346468, 2.888237, 2.140146],
    "catrs": [1.477317, 1.234729, 0.833627],
    "sun2025": [2.298048, 2.086883, 1.751351],
}
"""The losses of three optimiser steps in float32, in the epochs 0, 1 and 2: computed once, kept."""


class SeededDraws:
    """Draws of the test's own, so that the numbers above depend on the objectives alone."""

    def __init__(self, seed):
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, num, images):
        return torch.randn((num, *images.shape), generator=self._generator)

    def uniform(self, images, *, high):
        return high * torch.rand(len(images), generator=self._generator)


def per_image(rows=slice(None)):
    """What catrs knows of the images."""
    frequencies = torch.rand(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0))
    return {TARGET: (frequencies / frequencies.sum(1, keepdim=True))[rows]}


@pytest.mark.parametrize("method", OBJECTIVES)
def test_the_losses_of_the_first_steps_are_those_on_record(settings, method):
    network, images, labels, _ = tiny_case()
    network, images = network.float(), images.float()
    gentle = replace(settings.macer, inverse_temperature=3.0, weight=2.0)  # at 16 the numbers depend on rounding
    early = replace(settings.sun2025, selection_epoch=1)
    settings = replace(settings, method=method, warmup_epochs=4, macer=gentle, sun2025=early)
    optimizer = make_optimizer(network, settings)
    losses = []
    for epoch in range(3):
        told = {"sigma": SIGMA, "settings": settings, "epoch": epoch, "draws": SeededDraws(epoch)}
        objective = method_of(settings).loss(per_image(), **told)
        loss, logits = objective(network, images, labels)
        assert loss.dtype == logits.dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(GOLDEN_LOSSES[method], rel=1e-5)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_the_loss_is_a_mean_over_the_images(settings, method):
    """Without batch norm: the mean of the losses of two halves, so that halves may be computed apart."""
    _, images, labels, _ = tiny_case()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    draws = [torch.randn(num, *images.shape, dtype=torch.float64) for num in normals_of(method, settings)]
    unit, units = torch.rand(IMAGES, dtype=torch.float64), torch.rand(settings.catrs.num_noises, IMAGES)
    settings = replace(settings, sun2025=replace(settings.sun2025, selection_epoch=0))
    results = []
    for rows in (slice(0, IMAGES), slice(0, IMAGES // 2), slice(IMAGES // 2, IMAGES)):
        case = (network, images[rows], labels[rows], None)
        part = Drawn(*(normal[:, rows] for normal in draws), uniform=unit[rows])
        prepared = {}
        if method in PREPARATIONS:
            part = Drawn(*(normal[:, rows] for normal in draws), uniforms=units[:, rows])
            prepared["per_image"] = per_image(rows)
        copied, loss, _ = step_of(method, case, settings, part, **prepared)
        results.append((loss.double(), gradients(copied)))
    (loss, gradient), (first, first_gradient), (second, second_gradient) = results
    torch.testing.assert_close(loss, (first + second) / 2, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, (first_gradient + second_gradient) / 2, rtol=1e-4, atol=1e-6)


def normals_of(method, settings):
    """How many noises a method draws for each image, draw by draw."""
    own = getattr(settings, method, None)
    first = 1 if method in ("gaussian", "stability") else own.num_noises
    return [first] + [1] * own.attack_steps if method == "smoothadv" else [first]


def test_gaussian_is_the_mean_cross_entropy_under_one_noise_per_image(settings):
    network, images, labels, noise = case = tiny_case()
    ours, loss, logits = step_of("gaussian", case, settings, Drawn(noise[:1]))
    outputs = network(torch.stack([images[b] + SIGMA * noise[0, b] for b in range(IMAGES)]))
    expected = sum(cross_entropy(outputs[b], labels[b]) for b in range(IMAGES)) / IMAGES
    expected.backward()
    assert logits.shape == (1, IMAGES, CLASSES)
    assert_same_training_step(ours, loss, network, expected)


def test_warm_up_starts_at_one_share_and_reaches_one(settings):
    settings = replace(settings, warmup_epochs=4)
    assert [warmup_weight(epoch, settings) for epoch in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


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
