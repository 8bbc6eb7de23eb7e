"""The training loop: grouping into steps, schedules, determinism, resumption."""

import copy
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from components.training import checkpoint
from components.training.checks import check_data
from components.training.draws import Draws
from components.training.objectives import OBJECTIVES
from components.training.optimizer import learning_rate
from components.training.order import images_per_epoch, steps_of_epoch
from components.training.views import augmented
from tests.support.small_training import begin, same_weights, steps_of, validation_on

CPU = torch.device("cpu")


def train(network, data, settings, seed=0):
    """The epochs' statistics of a training of `network` in place."""
    training = begin(network, settings)
    list(steps_of(training, data, settings, seed))
    return training.history


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


def test_each_group_is_one_step(network, data, settings):
    settings = replace(settings, epochs=1)
    assert list(steps_of(begin(network, settings), data, settings)) == [4, 4, 4, 4, 2, 2]


@pytest.mark.parametrize(("num_images", "num_noises"), [(20, 2), (20, 3), (17, 5), (16, 3), (5, 4)])
def test_an_epoch_holds_as_many_images_as_its_steps(settings, num_images, num_noises):
    settings = replace(settings, smoothmix=replace(settings.smoothmix, num_noises=num_noises))
    assert images_per_epoch(num_images, settings) == sum(map(len, steps(settings, num_images)))


@pytest.mark.parametrize(("schedule", "first_epochs"), [("textbook", [0, 30, 60, 90]), ("published", [0, 31, 61, 91])])
def test_the_rate_falls_to_a_tenth_at_the_schedule_s_epochs(settings, schedule, first_epochs):
    settings = replace(settings, learning_rate=0.01, decay_every=30, decay_schedule=schedule)
    for drops, epoch in enumerate(first_epochs):
        assert learning_rate(epoch, settings) == pytest.approx(0.01 * 0.1**drops)
        assert learning_rate(epoch + 29, settings) == pytest.approx(0.01 * 0.1**drops)


def test_epochs_train_at_the_rate_of_the_schedule(network, data, settings):
    settings = replace(settings, epochs=4, decay_every=2)
    training = begin(network, settings)
    used = [training.optimizer.param_groups[0]["lr"] for _ in steps_of(training, data, settings)]
    assert used == pytest.approx([0.05] * 12 + [0.005] * 12)
    assert [stats.epoch for stats in training.history] == [0, 1, 2, 3]
    assert [stats.learning_rate for stats in training.history] == used[::6]


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


@pytest.mark.parametrize("method", ["smoothmix", "gaussian"])
@pytest.mark.parametrize(
    "finished", [5, 6, 23, *(pytest.param(steps, marks=pytest.mark.medium) for steps in (1, 10, 18, 24))]
)
def test_a_training_resumed_after_any_step_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path, network, data, settings, method, finished
):
    """Six steps an epoch (SmoothMix) or three (Gaussian), augmented: weights, optimiser, history and streams."""
    mix = replace(settings.smoothmix, clean_step=1)
    settings = replace(
        settings, method=method, epochs=4, decay_every=3, warmup_epochs=4, smoothmix=mix, augment="crop_flip"
    )
    finished = finished if method == "smoothmix" else finished // 2
    validation = validation_on(data, settings)
    resumed = copy.deepcopy(network)
    whole = begin(copy.deepcopy(network), settings, validation)
    list(steps_of(whole, data, settings))

    stopped = begin(network, settings, validation)
    list(islice(steps_of(stopped, data, settings), finished))
    checkpoint.save(tmp_path, "key", stopped.epoch, stopped.step, stopped.state())

    torch.manual_seed(12345)  # whatever else the new process has drawn
    training = begin(resumed, settings, validation)
    training.load_state(checkpoint.load_newest(tmp_path, "key", CPU))
    assert len(list(steps_of(training, data, settings))) == (24 if method == "smoothmix" else 12) - finished
    assert same_weights(whole.network, resumed)
    momenta = [[state["momentum_buffer"] for state in t.optimizer.state.values()] for t in (whole, training)]
    assert all(torch.equal(*pair) for pair in zip(*momenta, strict=True))
    histories = [[replace(stats, seconds=0) for stats in t.history] for t in (whole, training)]
    assert histories[0] == histories[1]
    assert len({stats.val_noisy_accuracy for stats in whole.history}) > 1


def test_a_loss_that_is_not_finite_is_refused_by_epoch_and_step(network, data, settings):
    settings = replace(settings, method="gaussian", epochs=3, learning_rate=1e38)
    with pytest.raises(FloatingPointError, match=r"epoch 0, step 1: lower train\.learning_rate \(1e\+38\)"):
        train(network, data, settings)


def test_no_state_that_is_not_finite_is_given_away_for_a_checkpoint(network, data, settings):
    """The loss of a step is finite; the weights after it are not."""
    settings = replace(settings, method="gaussian", epochs=3)
    training = begin(network, settings)
    running = steps_of(training, data, settings)
    next(running)
    training.state()
    nn.init.constant_(network[4].weight, float("inf"))
    with pytest.raises(FloatingPointError, match="the weights are not finite at epoch 0, after 1 step: lower"):
        training.state()
    next(running)
    with pytest.raises(FloatingPointError, match="the loss is not finite at epoch 0, step 1: lower"):
        training.state()


def test_fewer_images_than_groups_are_refused(network, data, settings):
    settings = replace(settings, smoothmix=replace(settings.smoothmix, num_noises=30))
    with pytest.raises(ValueError, match=r"20 training images cannot be split into 30 groups \(num_noises\)"):
        train(network, data, settings)


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (lambda pixels, labels: labels.__setitem__(7, 3), "image 7 has the label 3, outside the classes 0 to 2: mend"),
        (lambda pixels, labels: labels.__setitem__(4, -1), "image 4 has the label -1, outside the classes 0 to 2"),
        (lambda pixels, labels: labels.clamp_(max=1), "no training image is of class 'two': drop the class or lower"),
        (lambda pixels, labels: pixels[5].fill_(17), "image 5 has the pixel value 17, above 16 which stands for 1.0"),
    ],
    ids=["label too large", "label negative", "empty class", "pixel too large"],
)
def test_data_to_learn_nonsense_from_is_refused(data, poison, message):
    check_data(*data, classes=["zero", "one", "two"], max_value=16)
    poison(*data)
    with pytest.raises(ValueError, match=message):
        check_data(*data, classes=["zero", "one", "two"], max_value=16)


def test_bfloat16_gives_the_gradients_of_float32_within_its_precision(data, settings):
    """A relative rounding of 2^-8 per layer; weights and their gradients stay float32."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    settings = replace(settings, epochs=1, batch_size=20, learning_rate=1.0)
    updates = {}
    for precision in ("float32", "bfloat16"):
        trained = copy.deepcopy(network)
        training = begin(trained, settings)
        next(steps_of(training, data, replace(settings, precision=precision)))
        updates[precision] = torch.cat(
            [(b - a).flatten() for a, b in zip(network.parameters(), trained.parameters(), strict=True)]
        )
        assert all(parameter.dtype == torch.float32 for parameter in trained.parameters())
    exact, rounded = updates.values()
    assert not torch.equal(exact, rounded)
    assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_augmented_images_are_shifted_by_up_to_the_border_and_mirrored_half_of_the_time():
    pixels = torch.zeros(2000, 1, 9, 9, dtype=torch.uint8)
    pixels[:, 0, 4, 4:6] = torch.tensor([7, 9], dtype=torch.uint8)
    out = augmented(pixels, Draws(0, 0, 0, CPU, use="augment"))
    found = (out == 7).nonzero()
    assert torch.equal(found[:, 2].unique(), torch.arange(9))
    left_of = torch.roll(out == 9, -1, dims=3) & (out == 7)
    mirrored = 1 - left_of.sum() / (out == 7).sum()
    assert 0.4 < mirrored < 0.6
    assert torch.equal(out, augmented(pixels, Draws(0, 0, 0, CPU, use="augment")))
    assert not torch.equal(out, augmented(pixels, Draws(0, 0, 1, CPU, use="augment")))


def test_training_learns_to_tell_noisy_images_apart(settings):
    """Bright images against dark ones, under noise."""
    labels = torch.arange(40) % 2
    pixels = (16 * labels).to(torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4).contiguous()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    epochs = train(network, (pixels, labels), replace(settings, epochs=8))
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].noisy_accuracy > 0.95


def test_a_value_of_16_bits_above_what_stands_for_one_is_refused():
    pixels = torch.from_numpy(np.full((4, 1, 2, 2), 4095, dtype=np.uint16))
    labels = torch.tensor([0, 1, 0, 1])
    check_data(pixels, labels, classes=["a", "b"], max_value=4095)
    with pytest.raises(ValueError, match="training image 0 has the pixel value 4095, above 4000"):
        check_data(pixels, labels, classes=["a", "b"], max_value=4000)
