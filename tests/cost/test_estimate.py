"""The arithmetic from what was measured to minutes, and the changes that save some."""

from dataclasses import replace
from pathlib import Path

import pytest

from components import params as parameters
from components.cost.counts import Counts
from components.cost.estimate import STARTS, Measured, estimate, samples_per_image, suggestions
from components.cost.measure import Speed

COUNTS = Counts(train=6000, test=1000, classes=10)
SPEED = Speed(train_images=100.0, samples=5000.0, block=250, memory=0, gpu_memory=0, batch_share=1.0)


@pytest.fixture(scope="module")
def recipe():
    """30 epochs, n 10,000, three noise levels."""
    return parameters.load(Path(__file__).parents[2] / "recipes/digits.yaml")


def measured(recipe, **changes):
    return Measured({sigma: replace(SPEED, **changes) for sigma in recipe.sigmas}, start=2.0)


def with_certify(recipe, **changes):
    return replace(recipe, certify=replace(recipe.certify, **changes))


def test_known_speeds_give_known_seconds(recipe):
    now = estimate(recipe, COUNTS, measured(recipe))
    assert now.train == dict.fromkeys(recipe.sigmas, 2 * STARTS["train"] + 30 * 6000 / 100)
    blocks = 41  # 100 + 10,000 samples in whole blocks of 250
    assert now.certify == dict.fromkeys(recipe.sigmas, 2 * STARTS["certify"] + 1000 * blocks * 250 / 5000)
    assert now.others == 2 * STARTS["others"]
    assert now.total == sum(now.train.values()) + sum(now.certify.values()) + now.others


def test_what_is_computed_of_all_images_between_the_epochs_is_counted(recipe):
    plain = estimate(recipe, COUNTS, measured(recipe)).train[0.5]
    catrs = replace(recipe, train=replace(recipe.train, method="catrs"))
    assert estimate(catrs, COUNTS, measured(catrs)).train[0.5] - plain == pytest.approx(6000 * 10_000 / 5000)
    train = replace(recipe.train, method="sun2025", epochs=150)  # decided at the epochs 12, 22, ..., 142
    sun2025 = replace(recipe, train=train)
    extra = estimate(sun2025, COUNTS, measured(sun2025)).train[0.5] - plain - 120 * 6000 / 100
    assert extra == pytest.approx(6000 * (100 + 14 * 16) / 5000)


def test_each_noise_level_has_its_own_speed(recipe):
    speeds = {sigma: replace(SPEED, train_images=100 * sigma) for sigma in recipe.sigmas}
    now = estimate(recipe, COUNTS, Measured(speeds, start=0.0))
    assert [now.train[sigma] * sigma for sigma in recipe.sigmas] == pytest.approx([1800] * 3)


@pytest.mark.parametrize(("n", "every"), [(20_000, 1), (5_000, 1), (10_000, 2), (10_000, 10)])
def test_certification_takes_time_in_proportion_to_samples_and_images(recipe, n, every):
    whole, changed = (
        estimate(found, COUNTS, measured(recipe, block=1)).certify[0.5] - 2 * STARTS["certify"]
        for found in (recipe, with_certify(recipe, n=n, every=every))
    )
    assert changed / whole == pytest.approx((100 + n) / 10_100 / every)


def test_preset_radii_take_fewer_samples_and_never_more_than_n(recipe):
    sequential = with_certify(recipe, mode="sequential").certify
    assert samples_per_image(sequential) == 100 + 24 * 100
    assert samples_per_image(replace(sequential, n=200)) == 300
    assert samples_per_image(recipe.certify) == 10_100


def test_each_suggestion_has_the_time_that_the_recipe_with_this_change_gets(recipe):
    found = {suggestion.change: suggestion for suggestion in suggestions(recipe, COUNTS, measured(recipe))}
    expected = {
        "certify.mode: sequential": with_certify(recipe, mode="sequential"),
        "certify.n: 1000": with_certify(recipe, n=1000),
        "certify.every: 5": with_certify(recipe, every=5),
        "train.epochs: 15, decay_every: 5": replace(recipe, train=replace(recipe.train, epochs=15, decay_every=5)),
    }
    assert set(found) == set(expected)
    for change, changed in expected.items():
        assert found[change].estimate == estimate(changed, COUNTS, measured(recipe))
    totals = [suggestion.estimate.total for suggestion in suggestions(recipe, COUNTS, measured(recipe))]
    assert totals == sorted(totals)
    assert totals[-1] < estimate(recipe, COUNTS, measured(recipe)).total


def test_the_prices_name_what_is_lost(recipe):
    prices = {found.change: found.price for found in suggestions(recipe, COUNTS, measured(recipe))}
    assert prices["certify.n: 1000"] == "the largest radius falls from 1.597 to 1.228 at sigma 0.5"
    assert prices["certify.every: 5"] == "certifies 200 test images"
    assert "0.25, 0.5, 1" in prices["certify.mode: sequential"]


def test_a_smaller_network_comes_with_its_own_speed(recipe):
    quick = measured(recipe, train_images=1000.0, samples=50_000.0)
    found = suggestions(recipe, COUNTS, measured(recipe), ("small_convnet", quick))
    assert found[0].change == "train.network: small_convnet"
    assert found[0].estimate == estimate(recipe, COUNTS, quick)


def test_nothing_is_suggested_that_saves_nothing(recipe):
    few = Counts(train=6000, test=150, classes=10)
    changes = {found.change for found in suggestions(recipe, few, measured(recipe, train_images=10.0))}
    assert changes == {"train.epochs: 15, decay_every: 5"}
    preset = with_certify(recipe, mode="sequential")
    changes = {found.change for found in suggestions(preset, COUNTS, measured(recipe))}
    assert "certify.mode: sequential" not in changes
    assert (
        suggestions(recipe, COUNTS, measured(recipe), ("slower", measured(recipe, samples=5.0)))[-1].change != "slower"
    )
