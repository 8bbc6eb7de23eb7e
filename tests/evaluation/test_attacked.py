"""The attack on the smoothed classifier, against half-spaces whose radii are known."""

import math
from decimal import Decimal, localcontext

import pandas as pd
import pytest
import torch

from components.certification.sampling import Sampler
from components.certification.table import ABSTAIN
from components.evaluation import attacked
from components.evaluation.attack_report import certified_and_attacked_spec, contradicted, summarize, text_summary
from components.evaluation.attacked import Judge, Settings, attack, distance, minimum_norm, nearest_on_ray
from components.evaluation.plots import render_png
from tests.support.half_spaces import GRID, HalfSpaces, random_images, sampler_of, steps

NETWORK = HalfSpaces([1.0, 0.5], -0.5)
SETTINGS = Settings(steps=40, noises=32, n=20_000)


def nearest(network, image, *, sigma=0.25, label=1, seed=0, index=0):
    sampler = sampler_of(network, image, sigma=sigma)
    return attack(sampler, network, image, label, seed=seed, index=index, settings=SETTINGS)


@pytest.mark.parametrize("sigma", [0.25, 0.5])
@pytest.mark.parametrize(
    "values",
    [(0.75, 0.625), *(pytest.param(values, marks=pytest.mark.medium) for values in ((0.5, 0.875), (0.875, 0.75)))],
)
def test_the_attacked_radius_is_never_below_the_true_one_and_within_ten_percent_of_it(values, sigma):
    image = steps(*values)
    radius = NETWORK.radius(image, sigma)
    for index in range(3):
        found = distance(image, nearest(NETWORK, image, sigma=sigma, index=index), GRID)
        assert radius <= found <= 1.1 * radius


def test_it_finds_the_way_in_many_dimensions():
    network = HalfSpaces(torch.randn(64, generator=torch.Generator().manual_seed(1)).tolist(), 0.0)
    image = random_images(1, 8, 8, seed=1) // 2 + GRID // 4
    network.bias = 2.5 - float(image.flatten() / GRID @ network.weights)
    true = network.distance(image)
    found = distance(image, nearest(network, image), GRID)
    assert true - 0.01 <= found <= 1.1 * true


def test_where_the_straight_way_leaves_the_box_it_goes_along_the_side():
    network, image = HalfSpaces([1.0, 0.5], -0.3), steps(0.125, 1.0)
    found = nearest(network, image, sigma=0.25)
    side = math.hypot(0.125, 1 - 0.3 / 0.5)  # at x = 0 the border is at y = .6
    assert found.dtype == torch.int32
    assert found.min() >= 0
    assert found.max() <= GRID
    assert network.distance(image) < 0.9 * side <= distance(image, found, GRID) <= 1.1 * side


def test_where_nothing_changes_within_the_largest_ball_nothing_is_found():
    assert nearest(HalfSpaces([1.0, 0.5], 5.0), steps(0.5, 0.5)) is None


def test_an_image_that_has_another_class_itself_is_at_distance_zero():
    image = steps(0.75, 0.625)
    assert torch.equal(nearest(NETWORK, image, label=0), image)


def test_an_abstention_is_no_change():
    border = steps(0.25, 0.5)
    judge = Judge(sampler_of(NETWORK, border), seed=0, index=0, n=1000)
    assert [judge.answer(border) for _ in range(20)] == [ABSTAIN] * 20
    found = nearest(NETWORK, border)
    assert distance(border, found, GRID) > 0


def test_the_mutant_that_counts_abstentions_as_changes_is_caught(monkeypatch):
    image = steps(0.75, 0.625)
    monkeypatch.setattr(attacked, "ABSTAIN", -7)
    assert distance(image, nearest(NETWORK, image), GRID) < NETWORK.radius(image, 0.25)


def test_no_sample_is_used_twice(monkeypatch):
    used, stream = [], Sampler.stream

    def recorded(self, image, *, start, **keys):
        used.append(start)
        return stream(self, image, start=start, **keys)

    monkeypatch.setattr(Sampler, "stream", recorded)
    judge = Judge(sampler_of(NETWORK, steps(0.25, 0.5)), seed=0, index=0, n=1000)
    for image in (steps(0.25, 0.5), steps(1.0, 1.0), steps(0.25, 0.5)):
        judge.answer(image)
    assert used == [0, 500, 1500, 2000, 2500]


@pytest.mark.medium
def test_what_is_found_depends_on_seed_and_image_alone():
    image = steps(0.75, 0.625)
    first = nearest(NETWORK, image, seed=1, index=5)
    nearest(NETWORK, image, seed=1, index=6)
    assert torch.equal(nearest(NETWORK, image, seed=1, index=5), first)
    points = [minimum_norm(NETWORK, image / GRID, 1, 0.25, seed=s, index=5, settings=SETTINGS) for s in (1, 2)]
    assert not torch.equal(*points)


def test_it_may_be_given_up():
    def give_up():
        raise InterruptedError

    image = steps(0.75, 0.625)
    with pytest.raises(InterruptedError):
        attack(sampler_of(NETWORK, image), NETWORK, image, 1, seed=0, index=0, settings=SETTINGS, before_block=give_up)


@pytest.mark.parametrize("border", [0.05, 0.3, 0.99, 1.9])
def test_the_bisection_ends_within_a_hundredth_of_the_border(border):
    image, asked = torch.zeros(1, 1, 4, dtype=torch.int32), []

    def is_changed(candidate):
        asked.append(distance(image, candidate, 4096))
        return asked[-1] >= border

    step = torch.full((1, 1, 4), 0.25, dtype=torch.float64)
    found = distance(image, nearest_on_ray(image, step, 4096, is_changed, 2.0), 4096)
    assert border <= found <= 1.01 * border + 1e-3
    assert max(asked) <= 2.001


def test_nothing_beyond_the_largest_ball_is_asked():
    image, asked = torch.zeros(1, 1, 4, dtype=torch.int32), []
    step = torch.full((1, 1, 4), 0.25, dtype=torch.float64)
    assert nearest_on_ray(image, step, GRID, lambda candidate: bool(asked.append(candidate)), 0.75) is None
    assert max(distance(image, candidate, GRID) for candidate in asked) == pytest.approx(0.75, abs=1e-2)


@pytest.mark.parametrize("grid", [255, 256, 4080])
def test_distances_are_exact_and_rounded_up(grid):
    with localcontext() as context:
        context.prec = 60
        for seed in range(50):
            a, b = random_images(1, 4, 4, seed=seed), random_images(1, 4, 4, seed=seed + 1000)
            exact = Decimal(int((a - b).square().sum())).sqrt() / grid
            assert 0 <= Decimal(f"{distance(a, b, grid):.9f}") - exact < Decimal("1e-9")
    assert distance(steps(0.0, 0.0), steps(0.75, 1.0), 256) == 1.25
    assert distance(steps(0.0), steps(0.0), grid) == 0


# --- what is said of it ------------------------------------------------------------------------------------------

ROWS = pd.DataFrame({"idx": [0, 3, 6], "radius": [0.5, 0.8, 0.4], "attacked": [0.625, 1.0, None]})


def test_figures_are_of_the_images_with_an_attack():
    values = summarize(ROWS)
    assert (values["images"], values["contradicted"]) == (3, 0)
    assert values["found"] == pytest.approx(2 / 3)
    assert (values["median_ratio"], values["largest_ratio"]) == (0.8, 0.8)
    assert values["smallest_gap"] == pytest.approx(0.125)
    assert text_summary({"0.5": values}).splitlines()[2].split() == [
        "0.5",
        "3",
        "0.667",
        "0.799",
        "0.799",
        "0.124",
        "0",
    ]


def test_where_nothing_was_found_there_are_no_figures():
    values = summarize(ROWS.assign(attacked=float("nan")))
    assert (values["found"], values["median_ratio"], values["smallest_gap"]) == (0, None, None)
    assert text_summary({"0.5": values}).splitlines()[2].split() == ["0.5", "3", "0.000", "–", "–", "–", "0"]


@pytest.mark.parametrize(("distance_found", "wrong"), [(0.399999999, [6]), (0.4, []), (0.0, [6])])
def test_a_change_inside_the_open_ball_contradicts_its_certificate(distance_found, wrong):
    rows = ROWS.assign(attacked=[0.625, 1.0, distance_found])
    assert contradicted(rows)["idx"].tolist() == wrong
    assert summarize(rows)["contradicted"] == len(wrong)


@pytest.mark.medium
def test_the_plot_has_a_point_per_attack_and_the_diagonal(tmp_path):
    spec = certified_and_attacked_spec(ROWS.assign(sigma="0.5"), "Radii of <pets>")
    points, diagonal = (layer["data"]["values"] for layer in spec["layer"])
    assert [point["idx"] for point in points] == [0, 3]
    assert diagonal == [{"radius": 0, "attacked": 0}, {"radius": 1.0, "attacked": 1.0}]
    render_png(spec, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5_000
