"""What the section train of params.yaml may say with each method, and what a noise level may say of its own."""

from dataclasses import replace

import pytest

from components.methods import SmoothMix
from components.params import METHODS, level_key, parse
from components.parsing import ParamsError
from tests.support.raw_params import changed, raw

__all__ = ["raw"]


@pytest.mark.parametrize("method", ["gaussian", "stability", "macer"])
def test_a_batch_may_be_smaller_than_the_noises_of_a_method_that_takes_it_whole(raw, method):
    raw = changed(changed(raw, "train.batch_size", 2), "train.method", method)
    assert parse(raw).train.batch_size == 2


def ready(raw):
    """With what catrs and sun2025 need."""
    return changed(changed(raw, "train.catrs", {"targets": "gaussian"}), "train.sun2025", {"selection_epoch": 1})


@pytest.mark.parametrize("method", ["smoothmix", "smoothadv", "consistency", "catrs", "sun2025"])
def test_a_batch_holds_an_image_for_every_noise_of_a_method_that_splits_it(raw, method):
    raw = changed(changed(ready(raw), "train.method", method), f"train.{method}.num_noises", 257)
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


@pytest.mark.parametrize("method", METHODS.names)
def test_every_method_is_selected_by_its_name_alone(raw, method):
    train = parse(changed(ready(raw), "train.method", method)).train_at(0.5)
    assert train.hyperparameters == (None if method == "gaussian" else getattr(train, method))


UNPREPARED = {
    "no targets": ({"method": "catrs"}, r"train\.catrs\.targets is null: give a model of Gaussian training \(docs/"),
    "targets that the training writes": (
        {"method": "catrs", "catrs": {"targets": "outputs/models/0.25"}},
        r"train\.catrs\.targets is 'outputs/models/0\.25': the training writes there",
    ),
    "empty targets": ({"method": "catrs", "catrs": {"targets": ""}}, r"catrs\.targets is '': must be a path"),
    "several processes": (
        {"method": "catrs", "processes": 2, "catrs": {"targets": "gaussian"}},
        r"train\.processes is 2: catrs trains in one process, set it to 1",
    ),
    "selection after the end": (
        {"method": "sun2025", "epochs": 12},
        r"train\.sun2025\.selection_epoch is 12: must be < train\.epochs \(12\), or nothing is selected",
    ),
}


@pytest.mark.parametrize(("train", "words"), UNPREPARED.values(), ids=UNPREPARED)
def test_what_a_preparation_lacks_is_named(raw, train, words):
    with pytest.raises(ParamsError, match=words):
        parse(changed(raw, "train", raw["train"] | train))


def test_a_noise_level_may_have_what_its_preparation_needs(raw):
    raw = changed(changed(raw, "train.method", "catrs"), "noise_levels", {"0.5": {"catrs": {"targets": "gaussian"}}})
    assert parse(raw).train_at(0.5).targets == "gaussian"
    with pytest.raises(ParamsError, match=r"noise_levels\.0\.5\.catrs\.targets is 'outputs/models/x': the training"):
        parse(changed(raw, "noise_levels", {"0.5": {"catrs": {"targets": "outputs/models/x"}}}))
    smoothmix = parse(changed(raw, "train.method", "smoothmix"))
    assert smoothmix.train_at(0.5).targets is None


def test_cosine_needs_no_decay_every_but_deferred_macer_does(raw):
    raw["train"] |= {"decay_schedule": "cosine", "decay_every": None}
    parse(raw)
    raw["train"]["method"] = "macer"
    raw["train"]["macer"]["deferred"] = True
    with pytest.raises(ParamsError, match=r"train\.decay_every is null: macer\.deferred needs a number of epochs"):
        parse(raw)


def test_a_noise_level_has_its_own_weights_or_those_of_all(raw):
    raw["train"] |= {"weights": "all.pt", "epochs": 0, "decay_every": None}
    raw["noise_levels"] = {"0.25": {}, "0.5": {"weights": "half.pt", "smoothmix": {"attack_steps": 9}}}
    loaded = parse(raw)
    assert [loaded.train_at(sigma).weights for sigma in loaded.sigmas] == ["all.pt", "half.pt"]
    assert loaded.train_at(0.5).smoothmix.attack_steps == 9
    raw["noise_levels"]["0.25"] = {"weights": None}
    with pytest.raises(ParamsError, match=r"noise_levels\.0\.25\.weights is null: train\.epochs is 0"):
        parse(raw)


def test_a_sigma_is_written_in_its_shortest_form():
    assert [level_key(sigma) for sigma in (0.25, 0.5, 1, 1.0, 0.12)] == ["0.25", "0.5", "1.0", "1.0", "0.12"]
