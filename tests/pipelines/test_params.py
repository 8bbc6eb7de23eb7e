"""What params.yaml may say: every refusal names the key, its value and what is allowed."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from components import params
from components.params import ParamsError, SmoothMix, level_key, parse

ROOT = Path(__file__).parents[2]
MISSING = object()

NO_OPTIONS = {"test_share": None, "enlarge": None, "image_size": None, "channels": None}
MNIST = {"source": "mnist", "root": None, "download": True, **NO_OPTIONS}
IMAGES = NO_OPTIONS | {"source": "image_folder", "root": "d", "download": False, "image_size": 32, "channels": 3}
REFUSED = {
    "unknown section": ("wandb", {}, "wandb is {}: unknown key, allowed are seed, noise_levels"),
    "unknown key": ("train.optimiser", "adam", "train.optimiser is 'adam': unknown key, allowed are method"),
    "unknown method key": ("train.smoothmix.alpha", 1.0, "train.smoothmix.alpha is 1.0: unknown key"),
    "missing key": ("train.epochs", MISSING, "train.epochs is missing: a whole number >= 1"),
    "missing choice": ("train.method", MISSING, "train.method is missing: one of smoothmix, gaussian, stability"),
    "missing optional": ("train.smoothmix.attack_radius", MISSING, "attack_radius is missing: a number > 0"),
    "missing section": ("certify", MISSING, "certify is missing: a mapping with mode, n0, n, failure_prob"),
    "section is a number": ("certify", 3, "certify is 3: must be a mapping"),
    "unknown method": ("train.method", "magic", "train.method is 'magic': must be one of smoothmix, gaussian"),
    "unknown network": ("train.network", "vgg", "train.network is 'vgg': must be one of small_convnet, lenet"),
    "unknown source": ("prepare.source", "svhn", "prepare.source is 'svhn': must be one of digits"),
    "root for digits": (
        "prepare.root",
        "data",
        "prepare.root is 'data': digits takes enlarge, test_share alone, so set",
    ),
    "empty root": ("prepare", MNIST | {"root": ""}, "prepare.root is '': must be a path, or null"),
    "no root": ("prepare", MNIST | {"download": False}, "prepare.root is null: mnist needs the path of its files"),
    "download for digits": (
        "prepare.download",
        True,
        "prepare.download is True: digits takes enlarge, test_share alone",
    ),
    "text for a truth": ("prepare.download", "yes", "prepare.download is 'yes': must be true or false"),
    "no share for digits": ("prepare.test_share", None, "prepare.test_share is null: digits needs the share of"),
    "no enlarging for digits": ("prepare.enlarge", None, "prepare.enlarge is null: digits needs the side of a pixel"),
    "share 1": ("prepare.test_share", 1.0, "prepare.test_share is 1.0: must be > 0 and < 1"),
    "share for mnist": ("prepare", MNIST | {"test_share": 0.2}, "test_share is 0.2: mnist takes download, root alone"),
    "enlarged mnist": ("prepare", MNIST | {"enlarge": 2}, "prepare.enlarge is 2: mnist takes download, root alone, so"),
    "resized mnist": ("prepare", MNIST | {"image_size": 32}, "image_size is 32: mnist takes download, root alone, so"),
    "own images without a size": (
        "prepare",
        IMAGES | {"image_size": None},
        "image_folder needs the side of the images",
    ),
    "own images without channels": ("prepare", IMAGES | {"channels": None}, "channels is null: image_folder needs 1"),
    "two channels": ("prepare", IMAGES | {"channels": 2}, "prepare.channels is 2: must be one of 1, 3"),
    "images without a root": ("prepare", IMAGES | {"root": None}, "prepare.root is null: image_folder needs the path"),
    "download of own images": ("prepare", IMAGES | {"download": True}, "image_folder takes channels, image_size, root"),
    "text for a number": ("train.learning_rate", "0.05", "train.learning_rate is '0.05': must be a number"),
    "text for a count": ("train.epochs", "30", "train.epochs is '30': must be a whole number"),
    "truth for a count": ("train.epochs", True, "train.epochs is True: must be a whole number"),
    "truth for a choice": ("train.smoothmix.clean_step", True, "clean_step is True: must be one of 0, 1"),
    "truth for a number": ("train.learning_rate", True, "train.learning_rate is True: must be a number"),
    "fraction for a count": ("certify.n", 1e4, "certify.n is 10000.0: must be a whole number"),
    "null for a number": ("train.smoothmix.step_size", None, "step_size is None: must be a number"),
    "no epochs": ("train.epochs", 0, "train.epochs is 0: must be >= 1"),
    "negative seed": ("seed", -1, "seed is -1: must be >= 0 and <= 9.22337e+18"),
    "no learning rate": ("train.learning_rate", 0, "train.learning_rate is 0.0: must be > 0"),
    "learning rate not finite": ("train.learning_rate", float("inf"), "learning_rate is inf: must be > 0 and < inf"),
    "learning rate no number": ("train.learning_rate", float("nan"), "learning_rate is nan: must be > 0"),
    "attack radius 0": ("train.smoothmix.attack_radius", 0.0, "attack_radius is 0.0: must be > 0"),
    "negative mix weight": ("train.smoothmix.mix_weight", -1.0, "mix_weight is -1.0: must be >= 0"),
    "negative weight": ("train.stability.weight", -1.0, "train.stability.weight is -1.0: must be >= 0"),
    "no steps to attack in": ("train.smoothadv.attack_steps", 0, "smoothadv.attack_steps is 0: must be >= 1"),
    "margin 0": ("train.macer.margin", 0, "train.macer.margin is 0.0: must be > 0"),
    "number for a truth": ("train.macer.deferred", 1, "train.macer.deferred is 1: must be true or false"),
    "missing truth": ("train.macer.deferred", MISSING, "train.macer.deferred is missing: true or false"),
    "no noises": ("train.consistency.num_noises", 0, "train.consistency.num_noises is 0: must be >= 1"),
    "section of a rival missing": ("train.macer", MISSING, "train.macer is missing: a mapping with num_noises, weight"),
    "failure_prob one half": ("certify.failure_prob", 0.5, "certify.failure_prob is 0.5: must be > 0 and < 0.5"),
    "n too small": ("certify.n", 9, "certify.n is 9: at least 10 samples are needed to certify anything"),
    "batch too small": ("train.batch_size", 3, "train.batch_size is 3: must be >= num_noises at every level (4)"),
    "radii not increasing": ("evaluate.radii", [0.5, 0.25], "evaluate.radii is [0.5, 0.25]: must be increasing"),
    "no radii": ("evaluate.radii", [], "evaluate.radii is []: must be increasing and not empty"),
    "radii not a list": ("evaluate.radii", 0.5, "evaluate.radii is 0.5: must be a list"),
    "negative radius": ("evaluate.radii", [-0.5, 0.25], "evaluate.radii[0] is -0.5: must be >= 0"),
    "preset radii not increasing": ("certify.sequential.radii", [1.0, 0.5], "certify.sequential.radii is [1.0, 0.5]"),
    "no preset radii": ("certify.sequential.radii", [], "certify.sequential.radii is []: must be increasing"),
    "unknown mode": ("certify.mode", "fast", "certify.mode is 'fast': must be one of reference, sequential"),
    "count for a truth": ("certify.compile", 1, "certify.compile is 1: must be true or false"),
    "no process": ("certify.processes", 0, "certify.processes is 0: must be >= 1"),
    "slash in name": ("register.name", "a/b", "register.name is 'a/b': must not be empty"),
    "gain below 0": ("promote.min_gain", -0.1, "promote.min_gain is -0.1: must be >= 0"),
    "policy radii not increasing": ("promote.radii", [0.5, 0.5], "promote.radii is [0.5, 0.5]: must be increasing"),
    "sure of everything": ("promote.confidence", 1.0, "promote.confidence is 1.0: must be > 0.5 and < 1"),
    "floor above 1": ("promote.min_clean_accuracy", 1.5, "promote.min_clean_accuracy is 1.5: must be >= 0 and <= 1"),
    "approval never": ("promote.approval", "never", "promote.approval is 'never': must be one of on_hold, always"),
    "no time to answer": ("promote.approval_hours", 0, "promote.approval_hours is 0.0: must be > 0"),
    "section of the gate missing": ("promote", MISSING, "promote is missing: a mapping with min_gain, radii"),
    "no noise levels": ("noise_levels", {}, "noise_levels is {}: name at least one sigma"),
    "noise levels a list": ("noise_levels", [0.5], "noise_levels is [0.5]: must be a mapping"),
    "negative sigma": ("noise_levels", {"-0.5": {}}, "noise_levels.-0.5: a noise level is a quoted sigma > 0"),
    "sigma 0": ("noise_levels", {"0.0": {}}, "noise_levels.0.0: a noise level"),
    "sigma not finite": ("noise_levels", {"inf": {}}, "noise_levels.inf: a noise level"),
    "sigma no number": ("noise_levels", {"nan": {}}, "noise_levels.nan: a noise level"),
    "sigma a word": ("noise_levels", {"half": {}}, "noise_levels.half: a noise level"),
    "sigma with a zero too many": ("noise_levels", {"0.50": {}}, "noise_levels.0.50: a noise level"),
    "sigma without decimals": ("noise_levels", {"1": {}}, "noise_levels.1: a noise level"),
    "sigma not quoted": ("noise_levels", {0.5: {}}, "noise_levels.0.5: a noise level is a quoted sigma"),
    "level not a mapping": ("noise_levels", {"0.5": None}, "noise_levels.0.5 is None: must be a mapping"),
    "level method unknown": (
        "noise_levels",
        {"0.5": {"smothmix": {}}},
        "noise_levels.0.5.smothmix is {}: unknown key, allowed are smoothmix, stability, smoothadv, macer, consistency",
    ),
    "level method without hyper-parameters": (
        "noise_levels",
        {"0.5": {"gaussian": {}}},
        "noise_levels.0.5.gaussian is {}: unknown key",
    ),
    "level method not a mapping": (
        "noise_levels",
        {"0.5": {"macer": 3}},
        "noise_levels.0.5.macer is 3: must be a mapping",
    ),
    "level key unknown": (
        "noise_levels",
        {"0.25": {"smoothmix": {"attack_stepz": 2}}},
        "noise_levels.0.25.smoothmix.attack_stepz is 2: unknown key, allowed are num_noises, attack_steps",
    ),
    "level value": (
        "noise_levels",
        {"0.5": {"smoothmix": {"attack_steps": -1}}},
        "noise_levels.0.5.smoothmix.attack_steps is -1: must be >= 0",
    ),
    "level value of a method that is not used": (
        "noise_levels",
        {"0.5": {"macer": {"weight": -1.0}}},
        "noise_levels.0.5.macer.weight is -1.0: must be >= 0",
    ),
    "level type": (
        "noise_levels",
        {"0.5": {"smoothmix": {"clean_step": True}}},
        "noise_levels.0.5.smoothmix.clean_step is True: must be one of",
    ),
    "level noises": (
        "noise_levels",
        {"0.5": {"smoothmix": {"num_noises": 300}}},
        "must be >= num_noises at every level (300)",
    ),
}


@pytest.fixture
def raw():
    """The project's parameters, with values of our own where the tests below depend on them."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["train"] |= {"method": "smoothmix", "batch_size": 256}
    raw["train"]["smoothmix"]["num_noises"] = 4
    raw["certify"] |= {"mode": "reference", "n0": 100, "n": 10_000, "failure_prob": 0.001, "early_abstention": False}
    return raw | {"noise_levels": {"0.5": {}}}


def changed(raw, key, value):
    """A copy with the value at a dotted key replaced or removed."""
    raw = copy.deepcopy(raw)
    *sections, name = key.split(".")
    section = raw
    for part in sections:
        section = section[part]
    if value is MISSING:
        del section[name]
    else:
        section[name] = value
    return raw


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *(ROOT / "recipes").glob("*.yaml")], ids=lambda path: path.name)
def test_the_project_s_own_files_are_accepted(path):
    loaded = params.load(path)
    assert loaded == parse(yaml.safe_load(path.read_text()))
    assert [level_key(sigma) for sigma in loaded.sigmas] == list(loaded.noise_levels)


@pytest.mark.parametrize(("key", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused_with_key_value_and_remedy(raw, key, value, message):
    with pytest.raises(ParamsError) as refusal:
        parse(changed(raw, key, value))
    assert message in str(refusal.value)
    assert ";" not in str(refusal.value), "one mistake, one message"


def test_early_abstention_belongs_to_the_reference_procedure(raw):
    raw["certify"] |= {"mode": "sequential", "early_abstention": True}
    with pytest.raises(ParamsError, match=r"certify\.early_abstention is True: belongs to mode reference"):
        parse(raw)


def test_several_mistakes_are_reported_at_once(raw):
    for key, value in [("train.epochs", 0), ("certify.failure_prob", 2.0), ("seed", "x"), ("prepare.enlarge", MISSING)]:
        raw = changed(raw, key, value)
    with pytest.raises(ParamsError) as refusal:
        parse(raw)
    for key in ("train.epochs is 0", "certify.failure_prob is 2.0", "seed is 'x'", "prepare.enlarge is missing"):
        assert key in str(refusal.value)


def test_the_digits_recipe_is_the_one_selected():
    assert (ROOT / "recipes/digits.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_there_is_a_recipe_for_every_source():
    loaded = [params.load(path) for path in (ROOT / "recipes").glob("*.yaml")]
    assert {recipe.prepare.source for recipe in loaded} == set(params.SOURCE_OPTIONS)


def test_whole_numbers_are_numbers_too(raw):
    rate = parse(changed(raw, "train.learning_rate", 1)).train.learning_rate
    assert rate == 1.0
    assert type(rate) is float


@pytest.mark.parametrize("method", ["gaussian", "stability", "macer"])
def test_a_batch_may_be_smaller_than_the_noises_of_a_method_that_takes_it_whole(raw, method):
    raw = changed(changed(raw, "train.batch_size", 2), "train.method", method)
    assert parse(raw).train.batch_size == 2


@pytest.mark.parametrize("method", ["smoothmix", "smoothadv", "consistency"])
def test_a_batch_holds_an_image_for_every_noise_of_a_method_that_splits_it(raw, method):
    raw = changed(changed(raw, "train.method", method), f"train.{method}.num_noises", 257)
    with pytest.raises(ParamsError, match=r"train\.batch_size is 256: must be >= num_noises at every level \(257\)"):
        parse(raw)


def test_a_noise_level_s_own_values_replace_those_of_the_selected_method_alone(raw):
    levels = {
        "0.25": {"smoothmix": {"attack_steps": 7, "attack_radius": 2.0}, "macer": {"weight": 3}},
        "1.0": {"smoothmix": {}},
    }
    raw = changed(raw, "noise_levels", levels)
    loaded = parse(raw)
    base = loaded.train.smoothmix
    expected = SmoothMix(base.num_noises, 7, base.step_size, base.mix_weight, base.clean_step, 2.0)
    assert loaded.train_at(0.25) == replace(loaded.train, smoothmix=expected)
    assert loaded.train_at(1.0) == loaded.train
    macer = parse(changed(raw, "train.method", "macer"))
    assert macer.train_at(0.25) == replace(macer.train, macer=replace(macer.train.macer, weight=3.0))
    assert type(macer.train_at(0.25).macer.weight) is float
    gaussian = parse(changed(raw, "train.method", "gaussian"))
    assert gaussian.train_at(0.25) == gaussian.train


@pytest.mark.parametrize("method", ["smoothmix", "gaussian", "stability", "smoothadv", "macer", "consistency"])
def test_every_method_is_selected_by_its_name_alone(raw, method):
    train = parse(changed(raw, "train.method", method)).train_at(0.5)
    assert train.hyperparameters == (None if method == "gaussian" else getattr(train, method))


def test_a_sigma_is_written_in_its_shortest_form():
    assert [level_key(sigma) for sigma in (0.25, 0.5, 1, 1.0, 0.12)] == ["0.25", "0.5", "1.0", "1.0", "0.12"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("seed: [1", "is not valid YAML"), ("- a\n", "the file is"), ("", "must be a mapping")],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ParamsError, match=message) as refusal:
        params.load(path)
    assert str(refusal.value).startswith(str(path))
