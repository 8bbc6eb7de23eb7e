"""Differences between methods over several seeds, and how runs of several seeds are kept and shown."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.published.kept import load, params_at
from benchmarks.published.page import departures, gain_cell, mean_cell, seeds_rows
from benchmarks.published.runs import Plan, Run
from benchmarks.published.seeds import has_seeds, over_seeds, paired_over_seeds
from components.evaluation.paired import paired_acr_difference
from components.params import parse

ROOT = Path(__file__).parents[2]


def certified(radii: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"idx": np.arange(len(radii)), "label": 0, "predict": 0, "radius": radii, "correct": 1})


def drawn(seed: int, seeds: int, images: int, *, by_seed: float, by_image: float) -> tuple[dict, dict]:
    """Two methods of the same mean radius, whose differences share a part by seed and a part by image."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_image, (1, images))
    radii = 1 + shared + rng.normal(0, 0.1, (seeds, images))
    return {k: certified(np.ones(images)) for k in range(seeds)}, {k: certified(radii[k]) for k in range(seeds)}


def test_the_mean_is_that_of_the_differences_between_acrs():
    first, second = drawn(0, 3, 40, by_seed=0.1, by_image=0.1)
    found = paired_over_seeds(first, second)
    by_seed = [paired_acr_difference(first[k], second[k]).mean for k in first]
    assert found.mean == pytest.approx(np.mean(by_seed))
    assert found.low < found.mean < found.high


@pytest.mark.medium
@pytest.mark.parametrize(("by_seed", "by_image"), [(0.05, 0.02), (0.0, 0.2), (0.05, 0.2)])
def test_two_equal_methods_are_told_apart_no_more_often_than_is_said(by_seed, by_image):
    found = [paired_over_seeds(*drawn(i, 5, 50, by_seed=by_seed, by_image=by_image)) for i in range(200)]
    wrong = np.mean([not difference.low <= 0 <= difference.high for difference in found])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.medium
def test_the_interval_over_images_alone_would_tell_equal_methods_apart():
    draws = [drawn(i, 5, 50, by_seed=0.05, by_image=0.02) for i in range(200)]
    wrong = [paired_acr_difference(first[0], second[0]) for first, second in draws]
    assert np.mean([not difference.low <= 0 <= difference.high for difference in wrong]) > 0.2


def test_one_common_seed_says_nothing_of_another_training():
    first, second = drawn(0, 3, 40, by_seed=0.1, by_image=0.1)
    assert paired_over_seeds(first, {2: second[2], 7: second[1]}) is None


def test_seeds_on_other_images_are_refused():
    first, second = drawn(0, 2, 40, by_seed=0.1, by_image=0.1)
    with pytest.raises(ValueError, match="different images"):
        paired_over_seeds(first, {0: second[0], 1: second[1][1:]})


def test_equal_tables_differ_by_nothing():
    first, _ = drawn(0, 2, 40, by_seed=0.1, by_image=0.1)
    found = paired_over_seeds(first, first)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def seeds_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The kept runs of the digits as three seeds of two methods; the second is worse by .1 at every image."""
    one = runs[runs["sigma"] == 0.5]
    sets = []
    for method, less in (("smoothmix", 0.0), ("gaussian", 0.1)):
        for seed in range(3):
            (params,), (table,) = one["params"], one["certificates"]
            worse = table.assign(radius=(table["radius"] - less - 0.01 * seed * less).clip(0))
            own = {"params": [params | {"seed": seed}], "certificates": [worse], "method": method}
            sets.append(one.assign(**own, acr=one["acr"] - less))
    return pd.concat(sets, ignore_index=True)


@pytest.mark.medium
def test_a_row_per_method_has_its_mean_and_what_the_other_gains():
    runs = load(ROOT / "results/digits")
    assert not has_seeds(runs)
    runs = seeds_of(runs)
    assert has_seeds(runs)
    rows = over_seeds(runs, "smoothmix")
    assert list(rows["method"]) == ["smoothmix", "gaussian"]
    assert list(rows["seeds"]) == [3, 3]
    assert rows["gain"][0] is None
    assert 0.08 < rows["gain"][1].low < rows["gain"][1].mean < 0.11
    header, (_, worse) = seeds_rows(runs, "digits")
    assert len(header) == len(worse)
    assert worse[:3] == ["0.5", "gaussian", "3"]
    assert "seed" not in departures("digits", runs)


def test_each_seed_has_a_folder_and_parameters_of_its_own(tmp_path):
    plan = Plan(ROOT / "recipes/digits.yaml", tmp_path, None, {}, None, None, [3, 4])
    run = Run(plan, "gaussian", "0.5", 4)
    assert run.folder == tmp_path / "seed_4/gaussian/0.5"
    assert run.params["seed"] == 4
    assert Run(plan, "gaussian", "0.5").folder == tmp_path / "gaussian/0.5"


def test_what_a_method_does_not_read_is_no_departure():
    plan = Plan(
        ROOT / "recipes/digits.yaml",
        ROOT,
        None,
        {"train.macer.weight": "99", "train.smoothmix.mix_weight": "3"},
        None,
        None,
    )
    runs = [
        {
            "recipe": "digits",
            "method": method,
            "sigma": 0.5,
            "params": params_at(parse(plan.params(method, ["0.5"])), 0.5),
        }
        for method in ("smoothmix", "gaussian")
    ]
    line = departures("digits", pd.DataFrame(runs))
    assert line.endswith("digits.yaml: `train.smoothmix.mix_weight` 3.0 instead of 5.0 (smoothmix).")


@pytest.mark.medium
def test_the_readme_shows_the_kept_seeds():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if " ± " in line and "|" in line
    ]
    shown = {method: cells for method, *cells in rows}
    expected: dict[str, list[str]] = {}
    for row in over_seeds(load(ROOT / "results/digits_seeds"), "smoothmix").to_dict("records"):
        gain = f" ({gain_cell(row['gain'])})" if row["gain"] else ""
        expected.setdefault(row["method"], []).append(mean_cell(row, "acr") + gain)
        assert row["seeds"] == 5
    assert shown == expected
