"""The training loop: grouping into steps, schedules, determinism, resumption."""

import copy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from components.training import checkpoint
from components.training.draws import Draws
from components.training.fit import fit, learning_rate, make_optimizer, steps_of_epoch
from components.training.objectives import OBJECTIVES

CPU = torch.device("cpu")


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randint(0, 17, (20, 1, 4, 4), dtype=torch.uint8), torch.randint(0, 3, (20,))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def train(network, data, settings, seed=0, optimizer=None, **options):
    """The epochs' statistics of a training of `network` in place."""
    optimizer = optimizer or make_optimizer(network, settings)
    return list(fit(network, optimizer, *data, max_value=16, sigma=0.5, settings=settings, seed=seed, **options))


def same_weights(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def steps(settings, num_images=20, epoch=0, seed=0):
    return [rows.tolist() for rows in steps_of_epoch(num_images, epoch, settings, seed, CPU)]


@pytest.mark.parametrize("method", ["smoothmix", "smoothadv", "consistency"])
def test_a_batch_is_split_into_consecutive_groups_without_its_remainder(settings, method):
    whole = steps(replace(settings, method="gaussian", batch_size=8))
    assert [len(batch) for batch in whole] == [8, 8, 4]
    own = replace(getattr(settings, method), num_noises=3)
    groups = steps(replace(settings, batch_size=8, **{"method": method, method: own}))
    first, second, last = whole
    assert groups == [*(b[i : i + 2] for b in (first, second) for i in (0, 2, 4)), *([row] for row in last[:3])]


@pytest.mark.parametrize("method", ["stability", "macer"])
def test_a_method_that_takes_the_whole_batch_keeps_its_remainder(settings, method):
    settings = replace(settings, batch_size=8)
    assert steps(replace(settings, method=method)) == steps(replace(settings, method="gaussian"))


def test_a_last_batch_with_fewer_images_than_groups_is_left_out(settings):
    mix = replace(settings.smoothmix, num_noises=5)
    assert [len(group) for group in steps(replace(settings, batch_size=16, smoothmix=mix))] == [3] * 5


def test_every_epoch_has_its_own_order_of_all_images(settings):
    settings = replace(settings, method="gaussian", batch_size=20)
    ((first,), (second,), (other_seed,)) = steps(settings), steps(settings, epoch=1), steps(settings, seed=1)
    assert sorted(first) == sorted(second) == sorted(other_seed) == list(range(20))
    assert first != second
    assert first != other_seed
    assert steps(settings) == [first]


def test_each_group_is_one_step_that_is_told(network, data, settings):
    sizes = []
    train(network, data, replace(settings, epochs=1), on_step=sizes.append)
    assert sizes == [4, 4, 4, 4, 2, 2]


@pytest.mark.parametrize(("schedule", "first_epochs"), [("textbook", [0, 30, 60, 90]), ("published", [0, 31, 61, 91])])
def test_the_rate_falls_to_a_tenth_at_the_schedule_s_epochs(settings, schedule, first_epochs):
    settings = replace(settings, learning_rate=0.01, decay_every=30, decay_schedule=schedule)
    for drops, epoch in enumerate(first_epochs):
        assert learning_rate(epoch, settings) == pytest.approx(0.01 * 0.1**drops)
        assert learning_rate(epoch + 29, settings) == pytest.approx(0.01 * 0.1**drops)


def test_epochs_train_at_the_rate_of_the_schedule(network, data, settings):
    settings = replace(settings, epochs=4, decay_every=2)
    optimizer = make_optimizer(network, settings)
    epochs = fit(network, optimizer, *data, max_value=16, sigma=0.5, settings=settings, seed=0)
    used = [(stats.epoch, stats.learning_rate, optimizer.param_groups[0]["lr"]) for stats in epochs]
    assert [epoch for epoch, _, _ in used] == [0, 1, 2, 3]
    assert [said for _, said, _ in used] == pytest.approx([0.05, 0.05, 0.005, 0.005])
    assert [said for _, said, _ in used] == [rate for _, _, rate in used]


def test_every_step_is_told_its_epoch(network, data, settings, monkeypatch):
    seen = []

    def recording(*arguments, epoch, **options):
        seen.append(epoch)
        return gaussian(*arguments, epoch=epoch, **options)

    gaussian = OBJECTIVES["gaussian"]
    monkeypatch.setitem(OBJECTIVES, "gaussian", recording)
    train(network, data, replace(settings, method="gaussian", epochs=3, batch_size=10))
    assert seen == [0, 0, 1, 1, 2, 2]


def test_steps_are_sgd_with_momentum_and_weight_decay_on_scaled_images(data, settings):
    """Two steps of Gaussian training by hand: v = .9 v + g + 1e-4 p, p = p - rate v."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    theirs = copy.deepcopy(network)
    pixels, labels = data
    velocity = [torch.zeros_like(parameter) for parameter in theirs.parameters()]
    settings = replace(settings, method="gaussian", epochs=1, batch_size=10, learning_rate=0.5)
    losses, right = [], 0
    for step, rows in enumerate(steps(settings, seed=3)):
        noise = Draws(3, 0, step, CPU).normal(1, torch.zeros(10, 1, 4, 4))[0]
        logits = theirs(pixels[rows] / 16 + 0.5 * noise)
        losses.append(F.cross_entropy(logits, labels[rows]))
        right += (logits.argmax(1) == labels[rows]).sum().item()
        gradients = torch.autograd.grad(losses[-1], list(theirs.parameters()))
        with torch.no_grad():
            for parameter, v, gradient in zip(theirs.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(gradient + 1e-4 * parameter)
                parameter.sub_(0.5 * v)
    (stats,) = train(network, data, settings, seed=3)
    torch.testing.assert_close(network.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)
    assert stats.loss == pytest.approx(sum(losses).item() / 2, rel=1e-5)
    assert stats.noisy_accuracy == right / 20


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others(network, data, settings):
    twin, other = copy.deepcopy(network), copy.deepcopy(network)
    first, second = train(network, data, settings), train(twin, data, settings)
    train(other, data, settings, seed=1)
    assert same_weights(network, twin)
    assert [stats.loss for stats in first] == [stats.loss for stats in second]
    assert not same_weights(network, other)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, network, data, settings, method):
    mix = replace(settings.smoothmix, clean_step=1)
    settings = replace(settings, method=method, epochs=4, decay_every=3, warmup_epochs=4, smoothmix=mix)
    stopped, resumed = copy.deepcopy(network), copy.deepcopy(network)
    whole = train(network, data, settings)

    optimizer = make_optimizer(stopped, settings)
    list(islice(fit(stopped, optimizer, *data, max_value=16, sigma=0.5, settings=settings, seed=0), 2))
    checkpoint.save(tmp_path, 2, {"network": stopped.state_dict(), "optimizer": optimizer.state_dict()})

    torch.manual_seed(12345)  # whatever else the new process has drawn
    state, optimizer = checkpoint.load_newest(tmp_path, CPU), make_optimizer(resumed, settings)
    resumed.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    rest = train(resumed, data, settings, optimizer=optimizer, first_epoch=2)
    assert same_weights(network, resumed)
    assert [replace(stats, seconds=0) for stats in rest] == [replace(stats, seconds=0) for stats in whole[2:]]


def test_a_loss_that_is_not_finite_is_refused_by_epoch_and_step(network, data, settings):
    settings = replace(settings, method="gaussian", epochs=3, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match=r"epoch 0, step 1: lower train\.learning_rate \(1e\+38\)"):
        train(network, data, settings)
    nn.init.constant_(network[4].weight, float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 2, step 0"):
        train(network, data, settings, first_epoch=2)


def test_training_learns_to_tell_noisy_images_apart(settings):
    """Bright images against dark ones, under noise."""
    labels = torch.arange(40) % 2
    pixels = (16 * labels).to(torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4).contiguous()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    epochs = train(network, (pixels, labels), replace(settings, epochs=8))
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].noisy_accuracy > 0.95
