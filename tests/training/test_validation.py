"""The accuracy on the validation split: what it is, and that no training depends on it."""

import copy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from components.training.draws import Draws
from tests.support.small_training import begin, same_weights, steps_of, validation_on


@pytest.fixture
def validation(settings):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 17, (21, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return validation_on((pixels, torch.randint(0, 3, (21,), generator=generator)), settings, "a")


def test_it_is_the_share_of_noisy_images_that_the_network_has_right_in_eval_mode(network, validation):
    """Image by image; twenty-one images are two batches of eight and one of five."""
    network(torch.rand(9, 1, 4, 4))  # which moves the statistics of batch norm
    before = copy.deepcopy(network.state_dict())
    twin = copy.deepcopy(network).eval()
    noises = [Draws(0, 0, step, torch.device("cpu"), use="validation") for step in range(3)]
    noise = torch.cat([draws.normal(1, torch.zeros(n, 1, 4, 4))[0] for draws, n in zip(noises, (8, 8, 5), strict=True)])
    images = [pixels / 16 + 0.5 * own for pixels, own in zip(validation.pixels, noise, strict=True)]
    right = sum(
        int(twin(image[None]).argmax()) == label
        for image, label in zip(images, validation.labels.tolist(), strict=True)
    )
    assert 0 < right < 21
    assert validation.noisy_accuracy(network) == right / 21 == validation.noisy_accuracy(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


class Drawing(nn.Module):
    """Draws numbers of its own in eval mode too."""

    def forward(self, images):
        return images + 0.1 * torch.rand_like(images)


def test_a_training_is_the_same_with_and_without_it_even_if_the_network_draws(network, data, settings, validation):
    drawing, twin = (nn.Sequential(Drawing(), copy.deepcopy(network)) for _ in range(2))
    states = []
    for own, measured in ((drawing, validation), (twin, None)):
        torch.manual_seed(3)
        training = begin(own, settings, measured)
        list(steps_of(training, data, settings))
        states.append(torch.get_rng_state())
        assert [stats.val_noisy_accuracy is None for stats in training.history] == 2 * [measured is None]
    assert same_weights(drawing, twin)
    assert torch.equal(*states)


def test_figures_of_another_split_are_forgotten_and_the_last_epoch_is_measured_anew(
    network, data, settings, validation
):
    settings = replace(settings, method="gaussian", epochs=3)
    training = begin(network, settings, validation)
    list(islice(steps_of(training, data, settings), 7))  # three steps an epoch
    within = training.state()
    list(steps_of(training, data, settings))
    finished, figures = training.state(), [stats.val_noisy_accuracy for stats in training.history]
    other = replace(validation, labels=1 - validation.labels, sha256="b")
    for state, measured, expected in (
        (finished, validation, figures),
        (finished, other, [None, None, other.noisy_accuracy(network)]),
        (finished, None, [None, None, None]),
        (finished | {"validation": None}, validation, [None, None, figures[-1]]),
        (within, other, [None, None]),
    ):
        again = begin(copy.deepcopy(network), settings, measured)
        again.load_state(state)
        assert [stats.val_noisy_accuracy for stats in again.history] == expected


def test_the_state_of_a_training_of_before_is_continued(network, data, settings, validation):
    training = begin(network, settings)
    list(islice(steps_of(training, data, settings), 7))  # six steps an epoch
    state = training.state()
    state.pop("validation")
    for row in state["history"]:
        row.pop("val_noisy_accuracy")
    again = begin(copy.deepcopy(network), settings, validation)
    again.load_state(state)
    list(steps_of(again, data, settings))
    assert [stats.val_noisy_accuracy is None for stats in again.history] == [True, False]
