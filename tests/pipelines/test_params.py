"""What params.yaml may say: every refusal names the key, its value and what is allowed."""

import pytest

from components.params import parse
from components.parsing import ParamsError, yaml_value
from tests.support.raw_params import MISSING, changed, raw

__all__ = ["raw"]

NO_OPTIONS = {"test_share": None, "enlarge": None, "image_size": None, "channels": None}
MNIST = {"source": "mnist", "root": None, "download": True, **NO_OPTIONS}
IMAGES = NO_OPTIONS | {"source": "image_folder", "root": "d", "download": False, "image_size": 32, "channels": 3}
PATHS = IMAGES | {"source": "table", "test_share": 0.2}
ARRAYS = NO_OPTIONS | {"source": "arrays", "root": "d.npz", "download": False}
HUB = IMAGES | {"source": "huggingface"}
REFUSED = {
    "unknown section": ("wandb", {}, "wandb is {}: unknown key, allowed are seed, noise_levels"),
    "unknown key": ("train.optimiser", "adam", "train.optimiser is 'adam': unknown key, allowed are method"),
    "unknown method key": ("train.smoothmix.alpha", 1.0, "train.smoothmix.alpha is 1.0: unknown key"),
    "missing key": ("train.epochs", MISSING, "train.epochs is missing: a whole number >= 0"),
    "missing choice": ("train.network", MISSING, "train.network is missing: one of small_convnet, lenet"),
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
    "five channels": ("prepare", IMAGES | {"channels": 5}, "prepare.channels is 5: must be one of 1, 2, 3, 4"),
    "one side in a list": (
        "prepare",
        IMAGES | {"image_size": [32]},
        "image_size is [32]: must be one side, or [",
    ),
    "a side too small": ("prepare", IMAGES | {"image_size": [32, 4]}, "prepare.image_size[1] is 4: must be >= 8"),
    "a side as text": ("prepare", IMAGES | {"image_size": "32x48"}, "prepare.image_size is '32x48': must be a whole"),
    "two colours": ("prepare", IMAGES | {"background": [0, 0]}, "background is [0, 0]: must be a grey value, or [red"),
    "a colour beyond 8 bits": ("prepare", IMAGES | {"background": 256}, "background is 256: must be >= 0 and <= 255"),
    "a background beside opacity": (
        "prepare",
        IMAGES | {"channels": 4, "background": 0},
        "prepare.background is 0: channels 4 keep the opacity, so set it to null, or channels to 1 or 3",
    ),
    "a background of digits": ("prepare.background", 0, "prepare.background is 0: digits takes enlarge, test_share"),
    "images without a root": ("prepare", IMAGES | {"root": None}, "prepare.root is null: image_folder needs the path"),
    "download of own images": (
        "prepare",
        IMAGES | {"download": True},
        "image_folder takes background, channels,",
    ),
    "a table without a size": ("prepare", PATHS | {"image_size": None}, "image_size is null: table needs the side"),
    "arrays that are resized": ("prepare", ARRAYS | {"image_size": 32}, "arrays takes root, test_share alone, so set"),
    "arrays without a root": ("prepare", ARRAYS | {"root": None}, "prepare.root is null: arrays needs the path"),
    "no name on the hub": (
        "prepare",
        HUB | {"root": None, "download": True},
        "prepare.root is null: huggingface needs",
    ),
    "an address": (
        "prepare",
        IMAGES | {"root": "s3://b/x.zip"},
        "'s3://b/x.zip': must be a path: fetch it first, `dvc import-url s3://b/x.zip data/NAME`, and set prepare.root",
    ),
    "text for a number": ("train.learning_rate", "0.05", "train.learning_rate is '0.05': must be a number"),
    "text for a count": ("train.epochs", "30", "train.epochs is '30': must be a whole number"),
    "truth for a count": ("train.epochs", True, "train.epochs is True: must be a whole number"),
    "truth for a choice": ("train.smoothmix.clean_step", True, "clean_step is True: must be one of 0, 1"),
    "truth for a number": ("train.learning_rate", True, "train.learning_rate is True: must be a number"),
    "fraction for a count": ("certify.n", 1e4, "certify.n is 10000.0: must be a whole number, write 10000"),
    "null for a number": ("train.smoothmix.step_size", None, "step_size is null: must be a number"),
    "epochs below 0": ("train.epochs", -1, "train.epochs is -1: must be >= 0"),
    "no epochs and no weights": ("train.epochs", 0, "train.weights is null: train.epochs is 0, so sigma 0.5 needs the"),
    "nothing to freeze": ("train.backbone_rate", 0, "train.weights is null: train.backbone_rate is 0, so sigma 0.5"),
    "empty path of weights": ("train.weights", "", "train.weights is '': must be a path, torchvision:NAME, or null"),
    "weights that are written": ("train.weights", "outputs/models/0.5", "DVC empties the folder first: copy it"),
    "weights of another family": ("train.weights", "torchvision:DEFAULT", "fits torchvision's networks alone, not"),
    "number for weights": ("train.weights", 3, "train.weights is 3: must be a string"),
    "mean alone": ("train.mean", [0.5], "train.mean is [0.5] and train.std is null: give one number per channel in"),
    "mean not finite": ("train.mean", [float("nan")], "train.mean[0] is nan: must be > -inf and < inf"),
    "deviation 0": ("train.std", [0], "train.std[0] is 0.0: must be > 0"),
    "no decay": ("train.decay_every", None, "train.decay_every is null: decay_schedule textbook needs a number of"),
    "negative decay of weights": ("train.weight_decay", -1, "train.weight_decay is -1.0: must be >= 0"),
    "negative backbone rate": ("train.backbone_rate", -1, "train.backbone_rate is -1.0: must be >= 0"),
    "unknown optimiser": ("train.optimizer", "adam", "train.optimizer is 'adam': must be one of sgd, adamw"),
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
    "missing name": ("register.name", MISSING, "register.name is missing: a string"),
    "no noises": ("train.consistency.num_noises", 0, "train.consistency.num_noises is 0: must be >= 1"),
    "section of a rival left empty": ("train.macer", None, "train.macer is null: must be a mapping, {} for"),
    "failure_prob one half": ("certify.failure_prob", 0.5, "certify.failure_prob is 0.5: must be > 0 and < 0.5"),
    "n too small": ("certify.n", 9, "certify.n is 9: at least 11 samples are needed to certify anything"),
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
    "sigma not quoted": ("noise_levels", {0.5: {}}, "noise_levels.0.5: a noise level is a quoted sigma: write '0.5'"),
    "whole sigma not quoted": ("noise_levels", {1: {}}, "noise_levels.1: a noise level is a quoted sigma: write '1.0'"),
    "level not a mapping": ("noise_levels", {"0.5": None}, "noise_levels.0.5 is null: must be a mapping, {} for"),
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
    "level weights": ("noise_levels", {"0.5": {"weights": 3}}, "noise_levels.0.5.weights is 3: must be a string"),
    "level weights that are written": (
        "noise_levels",
        {"0.5": {"weights": "outputs/models/0.5"}},
        "noise_levels.0.5.weights is 'outputs/models/0.5': the training writes there",
    ),
    "level noises": (
        "noise_levels",
        {"0.5": {"smoothmix": {"num_noises": 300}}},
        "must be >= num_noises at every level (300)",
    ),
}


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
    for key, value in [("train.epochs", -1), ("certify.failure_prob", 2.0), ("seed", "x"), ("train.network", MISSING)]:
        raw = changed(raw, key, value)
    with pytest.raises(ParamsError) as refusal:
        parse(raw)
    for key in ("train.epochs is -1", "certify.failure_prob is 2.0", "seed is 'x'", "train.network is missing"):
        assert key in str(refusal.value)


def test_whole_numbers_are_numbers_too(raw):
    rate = parse(changed(raw, "train.learning_rate", 1)).train.learning_rate
    assert rate == 1.0
    assert type(rate) is float


@pytest.mark.parametrize("word", ["yes", "on", "off", "No"])
def test_a_word_for_a_truth_is_refused(raw, word):
    with pytest.raises(ParamsError, match=rf"certify\.compile is '{word}': must be true or false"):
        parse(changed(raw, "certify.compile", yaml_value(word, "x")))


@pytest.mark.parametrize("name", ["digits", "a.b-c_D2", "0", "x" * 200])
def test_names_that_a_model_may_have(raw, name):
    assert parse(changed(raw, "register.name", name)).register.name == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "o'brien", 'a"b', "a`b", "a/b", "a:b", "a%b", "a\nb", "a\n", "a\0", "größe", "$(x)", "x" * 201],
)
def test_names_that_mlflow_or_a_shell_would_break_at_are_refused(raw, name):
    with pytest.raises(ParamsError) as refusal:
        parse(changed(raw, "register.name", name))
    assert f"register.name is {name!r}: must be 1 to 200 of the characters A-Z a-z 0-9 . _ -" in str(refusal.value)
