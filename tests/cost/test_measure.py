"""Speeds that are measured by real steps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components import params as parameters
from components.cost import measure
from components.cost.measure import Data, speed
from components.data.prepared import Description
from components.params import METHODS


@pytest.fixture(autouse=True)
def same_settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def recipe(**train):
    found = parameters.load(Path(__file__).parents[2] / "recipes/digits.yaml")
    return replace(found, train=replace(found.train, **train))


def data(images=600, shape=(1, 16, 16)):
    facts = {"origin": "", "max_value": 16, "mean": None, "std": None, "train_sha256": "", "test_sha256": ""}
    classes = list(map(str, range(10)))
    description = Description(
        source="digits", classes=classes, image_shape=list(shape), train_images=images, test_images=9, **facts
    )
    return Data(description)


@pytest.mark.medium
@pytest.mark.parametrize("method", METHODS.names)
def test_every_method_is_measured_with_the_whole_batch(method):
    found = speed(recipe(method=method, network="small_convnet", batch_size=8), 0.5, data(), seconds=0.5)
    assert found.train_images > 0
    assert found.samples > 0
    assert (found.block, found.batch_share, found.gpu_memory) == (250, 1.0, 0)
    assert 0 < found.memory < 2**36


def test_few_images_and_warm_up_longer_than_the_training_are_no_obstacle():
    assert speed(recipe(epochs=1, warmup_epochs=5), 0.5, data(images=30), seconds=0.1).train_images > 0


@pytest.mark.medium
def test_a_step_that_takes_too_long_is_made_smaller_and_scaled():
    heavy = recipe(network="resnet20", batch_size=4096)
    found = speed(heavy, 0.5, data(images=5000), seconds=0.02)
    assert found.batch_share < 0.1


@pytest.mark.medium
def test_more_attack_steps_cost_more():
    few, many = (
        speed(replace(recipe(), noise_levels={"0.5": {"smoothmix": {"attack_steps": steps}}}), 0.5, data(), seconds=0.2)
        for steps in (1, 40)
    )
    assert few.train_images > 1.5 * many.train_images


def test_the_steps_are_at_full_strength(monkeypatch):
    epochs = []
    real = measure.fit

    def watched(training, *arguments, **options):
        epochs.append(training.epoch)
        return real(training, *arguments, **options)

    monkeypatch.setattr(measure, "fit", watched)
    speed(recipe(warmup_epochs=40), 0.5, data(), seconds=0.1)
    assert min(epochs) >= 40
