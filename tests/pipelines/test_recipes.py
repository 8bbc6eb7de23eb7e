"""What each recipe comes to, whatever of it stands in its file and whatever is a default."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from benchmarks.published.kept import flat
from components import params
from components.methods import Catrs, Consistency, Macer, SmoothAdv, SmoothMix, Stability, Sun2025
from components.params import Certify, Evaluate, Params, Promote, Validate, parse
from components.parsing import ParamsError, convert, read_yaml

ROOT = Path(__file__).parents[2]
RECIPES = ["digits", "image_folder", "cifar10", "imagenet", "mnist", "mnist_laptop", "certify_existing"]
ALL = [*RECIPES, "mnist_fast"]
FAST: dict[str, Any] = {
    "train.epochs": 22,
    "train.learning_rate": 0.06,
    "train.decay_every": 7,
    "train.decay_schedule": "cosine",
    "train.warmup_epochs": 1,
    "train.precision": "bfloat16",
    "register.name": "mnist-fast",
}
"""What mnist_fast has otherwise than mnist, besides fewer noise levels."""
EVERYWHERE: dict[str, Any] = {
    "seed": 0,
    "validate.min_class_share": 0.5,
    "train.weights": None,
    "train.optimizer": "sgd",
    "train.weight_decay": 1e-4,
    "train.backbone_rate": 1.0,
    "train.processes": 1,
    "train.device": "auto",
    "train.smoothmix.mix_weight": 5.0,
    "train.smoothmix.attack_radius": None,
    "train.macer.num_noises": 16,
    "train.macer.margin": 8.0,
    "train.consistency.num_noises": 2,
    "train.consistency.entropy_weight": 0.5,
    "train.catrs.num_noises": 4,
    "train.catrs.attack_steps": 4,
    "train.catrs.attack_radius": 1.0,
    "train.catrs.weight": 1.0,
    "train.catrs.targets": None,
    "train.catrs.targets_sigma": 0.25,
    "train.catrs.targets_copies": 10_000,
    "train.sun2025.num_noises": 4,
    "train.sun2025.least_share": 0.4,
    "train.sun2025.attack_steps": 6,
    "train.sun2025.step_size": 0.25,
    "certify.mode": "reference",
    "certify.n0": 100,
    "certify.failure_prob": 0.001,
    "certify.early_abstention": False,
    "certify.sequential.reject_prob": 0.0001,
    "certify.processes": 1,
    "certify.device": "auto",
    "certify.block": None,
    "promote.min_gain": 0.005,
    "promote.confidence": 0.95,
    "promote.max_abstention": 0.5,
    "promote.approval": "on_hold",
    "promote.approval_hours": 48.0,
}
EACH: dict[str, list[Any]] = {
    "prepare.source": ["digits", "image_folder", "cifar10", "imagenet", "mnist", "mnist", "cifar10"],
    "prepare.root": [None, "data/raw/images", None, "data/raw/imagenet", None, None, None],
    "prepare.download": [False, False, True, False, True, True, True],
    "prepare.test_share": [0.25, 0.2, None, None, None, None, None],
    "prepare.enlarge": [2, None, None, None, None, None, None],
    "prepare.image_size": [None, 32, None, None, None, None, None],
    "prepare.channels": [None, 3, None, None, None, None, None],
    "prepare.background": [None] * 7,
    "train.network": ["small_convnet", "small_convnet", "resnet110", "resnet50", "lenet", "lenet", "resnet110"],
    "train.epochs": [30, 60, 150, 90, 90, 1, 0],
    "train.batch_size": [256, 32, 256, 256, 256, 256, 256],
    "train.learning_rate": [0.05, 0.05, 0.1, 0.1, 0.01, 0.01, 0.1],
    "train.decay_every": [10, 20, 50, 30, 30, 30, None],
    "train.decay_schedule": ["textbook", "textbook", "published", "published", "published", "textbook", "textbook"],
    "train.warmup_epochs": [3, 3, 10, 10, 10, 1, 1],
    "train.threads": [1, 1, 2, 2, 2, 2, 2],
    "train.precision": ["float32", "float32", "bfloat16", "bfloat16", "float32", "float32", "float32"],
    "train.augment": ["none", "none", "crop_flip", "none", "none", "none", "none"],
    "train.smoothmix.num_noises": [4, 2, 2, 1, 4, 4, 2],
    "train.smoothmix.attack_steps": [4, 4, 4, 1, 4, 4, 4],
    "train.smoothmix.step_size": [0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0],
    "train.smoothmix.clean_step": [0, 0, 1, 0, 1, 1, 1],
    "train.stability.weight": [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
    "train.smoothadv.num_noises": [4, 8, 8, 8, 4, 4, 8],
    "train.smoothadv.attack_steps": [4, 10, 10, 10, 10, 10, 10],
    "train.smoothadv.attack_radius": [1.0, 1.0, 1.0, 1.0, 0.99609375, 0.99609375, 1.0],
    "train.macer.weight": [3.0, 4.0, 4.0, 4.0, 16.0, 16.0, 4.0],
    "train.macer.inverse_temperature": [4.0, 16.0, 16.0, 16.0, 16.0, 16.0, 16.0],
    "train.macer.deferred": [True, False, False, False, True, True, False],
    "train.consistency.weight": [5.0, 10.0, 10.0, 10.0, 5.0, 5.0, 10.0],
    "train.sun2025.selection_epoch": [12, 70, 70, 70, 70, 70, 70],
    "certify.n": [10000, 10000, 100000, 100000, 100000, 1000, 100000],
    "certify.bound": ["two_class", "two_class", "one_class", "one_class", "one_class", "one_class", "one_class"],
    "certify.sequential.radii": [
        [0.25, 0.5, 1.0],
        [0.25, 0.5, 1.0],
        [0.25, 0.5, 1.0],
        [0.25, 0.5, 1.0],
        [0.5, 1.0, 1.5],
        [0.5, 1.0],
        [0.25, 0.5, 1.0],
    ],
    "certify.every": [1, 1, 20, 100, 1, 20, 20],
    "certify.compile": [False, False, True, True, True, False, True],
    "evaluate.radii": [
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5],
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5],
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
    ],
    "register.name": ["digits", "images", "cifar10", "imagenet", "mnist", "mnist-laptop", "existing"],
    "promote.radii": [
        [0.0, 0.25, 0.5, 1.0],
        [0.0, 0.25, 0.5, 1.0],
        [0.0, 0.25, 0.5, 1.0],
        [0.0, 0.5, 1.0],
        [0.0, 0.5, 1.0, 1.5],
        [0.0, 0.5, 1.0],
        [0.0, 0.25, 0.5, 1.0],
    ],
    "promote.min_clean_accuracy": [0.5, 0.3, 0.3, 0.3, 0.5, 0.5, 0.3],
    "train.method": ["smoothmix", "smoothmix", "smoothmix", "smoothmix", "smoothmix", "smoothmix", "gaussian"],
    "train.mean": [None, None, None, None, None, None, [0.4914, 0.4822, 0.4465]],
    "train.std": [None, None, None, None, None, None, [0.2023, 0.1994, 0.201]],
}
"""For each of RECIPES, in their order."""


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_and_the_defaults_give_these_values(recipe):
    loaded = asdict(params.load(ROOT / f"recipes/{recipe}.yaml"))
    del loaded["noise_levels"]
    column = RECIPES.index("mnist" if recipe == "mnist_fast" else recipe)
    own = {key: values[column] for key, values in EACH.items()}
    assert flat(loaded) == EVERYWHERE | own | (FAST if recipe == "mnist_fast" else {})


def test_mnist_fast_has_some_of_the_noise_levels_of_mnist_as_they_are():
    fast, whole = (read_yaml(ROOT / f"recipes/{name}.yaml")["noise_levels"] for name in ("mnist_fast", "mnist"))
    assert fast
    assert fast.items() <= whole.items()


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_says_its_bound_and_those_of_published_settings_have_the_published_one(recipe):
    written = read_yaml(ROOT / f"recipes/{recipe}.yaml")["certify"]["bound"]
    assert written == ("two_class" if recipe in ("digits", "image_folder") else "one_class")


def test_the_published_settings_of_cifar10_differ_by_noise_level():
    recipe = params.load(ROOT / "recipes/cifar10.yaml")
    catrs = replace(recipe, train=replace(recipe.train, method="catrs"))
    assert [catrs.train_at(sigma).catrs.weight for sigma in (0.25, 0.5, 1.0)] == [0.5, 1.0, 2.0]
    sun2025 = replace(recipe, train=replace(recipe.train, method="sun2025"))
    assert [sun2025.train_at(sigma).sun2025 for sigma in (0.25, 0.5, 1.0)] == [
        Sun2025(4, 60, 0.5, 3, 0.25),
        Sun2025(4, 70, 0.4, 6, 0.25),
        Sun2025(4, 60, 0.4, 4, 0.5),
    ]


def test_these_are_all_recipes():
    assert {path.stem for path in (ROOT / "recipes").iterdir()} == set(ALL)


@pytest.mark.parametrize("recipe", ALL)
def test_a_file_that_says_everything_gives_the_same(recipe):
    short = params.load(ROOT / f"recipes/{recipe}.yaml")
    assert parse(asdict(short)) == short


@pytest.mark.parametrize(
    "section",
    [Validate, SmoothMix, Stability, SmoothAdv, Macer, Consistency, Catrs, Sun2025, Certify, Evaluate, Promote],
)
def test_the_defaults_are_such_values_as_a_file_may_hold(section):
    problems: list[str] = []
    assert convert(asdict(section()), section, "x", problems) == section() == convert({}, section, "x", problems)
    assert problems == []


def test_dvc_finds_every_section_in_every_recipe():
    for recipe in ALL:
        assert list(read_yaml(ROOT / f"recipes/{recipe}.yaml")) == list(get_type_hints(Params))


def test_a_section_that_is_left_out_is_missed_as_dvc_would_miss_it():
    raw = read_yaml(ROOT / "recipes/digits.yaml")
    del raw["validate"]
    with pytest.raises(ParamsError, match=r"validate is missing: a mapping with min_class_share, or \{\} for"):
        parse(raw)
