"""Optimisers, rates per layer, schedules and frozen layers: each combination resumes bit for bit."""

import copy
import itertools
from dataclasses import replace
from itertools import islice

import pytest
import torch

from components.data.prepared import Description
from components.training import checkpoint, state
from components.training.optimizer import learning_rate
from components.training.ranks import Ranks
from components.training.state import Training
from tests.support.small_training import begin, same_weights, steps_of

CPU = torch.device("cpu")
OPTIMIZERS, SCHEDULES, BACKBONE_RATES = ("sgd", "adamw"), ("textbook", "cosine"), (1.0, 0.1, 0.0)


def trained(network, data, settings):
    training = begin(copy.deepcopy(network), settings)
    list(steps_of(training, data, settings))
    return training


@pytest.mark.medium
@pytest.mark.parametrize(
    ("optimizer", "schedule", "backbone_rate"), list(itertools.product(OPTIMIZERS, SCHEDULES, BACKBONE_RATES))
)
def test_every_combination_resumes_bit_for_bit(tmp_path, network, data, settings, optimizer, schedule, backbone_rate):
    settings = replace(
        settings, epochs=3, optimizer=optimizer, decay_schedule=schedule, backbone_rate=backbone_rate, decay_every=2
    )
    whole = trained(network, data, settings)
    for finished in (1, 7, 12):
        stopped = begin(copy.deepcopy(network), settings)
        list(islice(steps_of(stopped, data, settings), finished))
        checkpoint.save(tmp_path / str(finished), "key", stopped.epoch, stopped.step, stopped.state())
        resumed = begin(copy.deepcopy(network), settings)
        resumed.load_state(checkpoint.load_newest(tmp_path / str(finished), "key", CPU))
        list(steps_of(resumed, data, settings))
        assert same_weights(whole.network, resumed.network)
        states = [list(training.optimizer.state_dict()["state"].values()) for training in (whole, resumed)]
        for one, other in zip(*states, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(value, other[name]) for name, value in one.items() if value is not None)
        histories = [[replace(stats, seconds=0) for stats in training.history] for training in (whole, resumed)]
        assert histories[0] == histories[1]


def test_the_default_is_the_sgd_of_the_published_runs(network, data, settings):
    whole = trained(network, data, settings)
    plain = copy.deepcopy(network)
    sgd = torch.optim.SGD(plain.parameters(), lr=settings.learning_rate, momentum=0.9, weight_decay=1e-4)
    list(steps_of(Training(plain, sgd), data, settings))
    assert same_weights(whole.network, plain)


def test_the_weight_decay_shrinks_every_parameter(network, data, settings):
    settings = replace(settings, method="gaussian", learning_rate=1e-3, optimizer="adamw")
    norms = [
        sum(
            float(value.detach().norm())
            for value in trained(network, data, replace(settings, weight_decay=decay)).network.parameters()
        )
        for decay in (0.0, 100.0)
    ]
    assert norms[1] < 0.8 * norms[0]


def test_cosine_falls_from_the_whole_rate_to_nearly_nothing(settings):
    settings = replace(settings, epochs=4, learning_rate=0.2, decay_schedule="cosine", decay_every=None)
    rates = [learning_rate(epoch, settings) for epoch in range(4)]
    assert rates == pytest.approx([0.2, 0.2 * (2 + 2**0.5) / 4, 0.1, 0.2 * (2 - 2**0.5) / 4])


def test_the_backbone_learns_at_its_part_of_the_rate_and_the_history_has_the_whole(network, data, settings):
    settings = replace(settings, epochs=2, decay_every=1, backbone_rate=0.1)
    training = trained(network, data, settings)
    assert [group["lr"] for group in training.optimizer.param_groups] == pytest.approx([0.005, 0.0005])
    assert [len(group["params"]) for group in training.optimizer.param_groups] == [2, 4]
    assert [stats.learning_rate for stats in training.history] == pytest.approx([0.05, 0.005])


@pytest.mark.parametrize("method", ["smoothmix", "smoothadv", "gaussian", "macer"])
def test_a_frozen_backbone_keeps_weights_and_statistics_through_the_attack_too(network, data, settings, method):
    network[1].running_mean.fill_(0.3)
    before = copy.deepcopy(network)
    training = trained(network, data, replace(settings, method=method, backbone_rate=0.0))
    after = training.network.state_dict()
    changed = [name for name, value in before.state_dict().items() if not torch.equal(value, after[name])]
    assert changed == ["4.weight", "4.bias"]


def test_a_mean_that_does_not_fit_the_channels_is_refused(settings):
    description = Description("digits", "", ["0", "1"], [1, 16, 16], 16, None, None, 2, 2, "", "")
    settings = replace(settings, mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"train\.mean is \[0\.1, 0\.2, 0\.3\]: the images have 1 channel, give one"):
        state.begin(settings, description, 0, CPU, Ranks())
    own = replace(settings, mean=[0.1], std=[0.5])
    assert state.begin(own, description, 0, CPU, Ranks()).network[0].mean.item() == pytest.approx(0.1)
