"""Metrics and the paired comparison against tables small enough to count, and against published logs."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from components.certification import table
from components.certification.bounds import certified_radius, largest_radius, probability_bounds
from components.evaluation import metrics
from components.evaluation.metrics import certified_accuracy, certified_radii, curve, largest_radius_of, summarize
from components.evaluation.paired import paired_acr_difference


def identity(n):
    return {"mode": "reference", "sigma": 0.5, "n": n, "failure_prob": 0.001}


def tiny(predict=(0, 0, 2, -1, 1), radius=(1.0, 0.5, 2.0, 0.0, 0.25)):
    """Labels 0 0 0 1 1: certified right at 1.0 and .5, wrong at 2.0, withheld, right at .25."""
    columns = {"idx": range(0, 10, 2), "label": [0, 0, 0, 1, 1], "predict": list(predict), "radius": list(radius)}
    return pd.DataFrame(columns).assign(correct=lambda rows: (rows["predict"] == rows["label"]).astype(int))


@pytest.fixture
def summary():
    return summarize(tiny(), [0.0, 0.25, 0.5, 0.75, 1.5], identity(1000))


def test_acr_is_the_mean_over_all_images_of_the_radius_where_right(summary):
    assert summary["acr"] == pytest.approx((1.0 + 0.5 + 0.25) / 5)
    scores = np.array([1.0, 0.5, 0, 0, 0.25])
    assert summary["acr_standard_error"] == pytest.approx(np.sqrt(((scores - 0.35) ** 2).sum() / 4 / 5))


def test_wrong_and_withheld_answers_have_no_radius():
    assert certified_radii(tiny()).tolist() == [1.0, 0.5, 0.0, 0.0, 0.25]


def test_certified_accuracy_counts_radii_that_reach_the_radius(summary):
    shares = {radius: value["value"] for radius, value in summary["certified_accuracy"].items()}
    assert shares == {"0.0": 0.6, "0.25": 0.6, "0.5": 0.4, "0.75": 0.2, "1.5": 0.0}
    assert summary["clean_accuracy"] == 0.6


def test_certified_accuracy_has_its_exact_binomial_interval():
    value = certified_accuracy(tiny(), 0.5)
    assert value["low"] == pytest.approx(stats.beta.ppf(0.025, 2, 4))
    assert value["high"] == pytest.approx(stats.beta.ppf(0.975, 3, 3))


def test_abstention_is_the_share_of_withheld_answers(summary):
    assert summary["abstention"] == 0.2


def test_the_constant_classifier_scores_the_largest_radius_on_the_commonest_class(summary):
    assert summary["constant_classifier_acr"] == pytest.approx(0.6 * largest_radius(1000, 0.001, 0.5, "one_class"))
    assert (summary["images"], summary["n"], summary["failure_prob"], summary["sigma"]) == (5, 1000, 0.001, 0.5)


def test_quantiles_of_p_lower_are_there_where_the_table_has_it(summary):
    assert summary["p_lower_quantiles"] is None
    rows = tiny().assign(p_lower=[0.5, 0.6, 0.7, 0.8, 0.9])
    quantiles = summarize(rows, [], identity(1000))["p_lower_quantiles"]
    assert (quantiles["0.25"], quantiles["0.5"], quantiles["0.75"]) == pytest.approx((0.6, 0.7, 0.8))


def test_one_image_has_no_standard_error():
    assert summarize(tiny()[:1], [], identity(1000))["acr_standard_error"] is None


def test_the_curve_falls_from_clean_accuracy_to_zero_past_the_largest_radius():
    points = curve(tiny(), 0.5, ceiling=3.0)
    assert (points["sigma"] == 0.5).all()
    assert points["certified_accuracy"].is_monotonic_decreasing
    assert (points["radius"].iloc[0], points["certified_accuracy"].iloc[0]) == (0.0, 0.6)
    assert points["radius"].iloc[-1] > 1.0
    assert points["certified_accuracy"].iloc[-1] == 0.0


def test_the_curve_ends_at_the_ceiling_without_a_fall():
    ceiling = largest_radius(1000, 0.001, 0.5, "one_class")
    rows = tiny(predict=(0, 0, 0, 1, 1), radius=[0.1, 0.3, ceiling, ceiling, ceiling])
    points = curve(rows, 0.5, ceiling)
    assert points["radius"].iloc[-1] == pytest.approx(ceiling, abs=1e-6)
    assert points["certified_accuracy"].iloc[-1] == 0.6, "the images that got all that n samples can give"
    assert points["largest_radius"].unique() == pytest.approx([ceiling], abs=1e-6)


def test_the_ceiling_is_that_of_n_or_the_largest_preset_radius(summary):
    assert summary["largest_radius"] == largest_radius(1000, 0.001, 0.5, "one_class")
    two_class = summarize(tiny(), [], identity(1000) | {"bound": "two_class"})["largest_radius"]
    assert two_class == largest_radius(1000, 0.001, 0.5, "two_class") < summary["largest_radius"]
    assert largest_radius_of(identity(1000) | {"mode": "sequential", "radii": [0.25, 0.5]}) == 0.5


def test_the_curve_never_says_more_than_the_table_at_its_written_radii():
    largest = 0.987654321
    between = np.linspace(0, 1.02 * largest, 200)  # where rounding a point up would pass an image's radius
    for first in range(0, 180, 9):
        rows = tiny(predict=(0, 0, 0, 1, 1), radius=[largest, *between[first : first + 4]])
        points = curve(rows, 0.5, ceiling=2.0)
        expected = [(rows["radius"] >= radius).mean() for radius in points["radius"]]
        assert points["certified_accuracy"].tolist() == pytest.approx(expected)


# --- both bounds, from the counts --------------------------------------------------------------------------------

EARLY = "40 60"
"""Counts of an image that early abstention spared samples."""


def counted(bound, counts=("900 100", "500 250 250", "300 690 10", EARLY), labels=(0, 0, 0, 1)):
    """A table as certification writes it: class 0 selected, on 1000 samples but for the one that stopped early."""
    rows = []
    for idx, (text, label) in enumerate(zip(counts, labels, strict=True)):
        hits = [int(count) for count in text.split()]
        p_lower, p_upper = (0.0, 1.0) if text == EARLY else probability_bounds(bound, hits, 0, 1000, 0.001)
        radius = certified_radius(p_lower, 0.5, p_upper) if p_lower > p_upper else 0.0
        predict = 0 if radius else -1
        values = (predict, radius, int(predict == label), 0, text, 100, 100 if text == EARLY else 1000)
        rows.append((idx, label, *values, p_lower, p_upper))
    return pd.DataFrame(rows, columns=table.COLUMNS)


@pytest.mark.parametrize(("own", "other"), [("one_class", "two_class"), ("two_class", "one_class")])
def test_both_acrs_come_from_the_counts_and_all_else_from_the_table(own, other):
    made, as_other = counted(own), counted(other)
    summary = summarize(made, [0.0], identity(1000) | {"bound": own, "arithmetic": "exact"})
    assert (summary["bound"], summary["arithmetic"]) == (own, "exact")
    assert summary["acr"] == summary[f"acr_{own}"] == pytest.approx(certified_radii(made).mean())
    assert summary[f"acr_{other}"] == pytest.approx(certified_radii(as_other).mean())
    assert summary["acr_two_class"] > summary["acr_one_class"] > 0, (
        "500 hits of 1000 certify against 250, not by themselves"
    )
    assert summary["abstention"] == {"one_class": 0.75, "two_class": 0.5}[own]
    assert summary["clean_accuracy"] == {"one_class": 0.25, "two_class": 0.5}[own]
    assert summary["stopped_early"] == 0.25


def test_an_image_that_stopped_early_certifies_under_no_bound():
    """Its counts alone would: 100 of 100 hits."""
    rows = counted("one_class", counts=("900 100", "100 0"), labels=(0, 0)).assign(n=[1000, 100])
    rows.loc[1, ["predict", "radius", "correct", "p_lower", "p_upper"]] = [-1, 0.0, 0, 0.0, 1.0]
    summary = summarize(rows, [], identity(1000))
    assert summary["acr_two_class"] == pytest.approx(
        certified_radii(counted("two_class", ("900 100",), (0,))).sum() / 2
    )


def test_a_table_of_before_is_one_class_and_float_and_one_without_counts_has_its_own_acr_alone(summary):
    assert (summary["bound"], summary["arithmetic"]) == ("one_class", "float")
    assert (summary["acr_one_class"], summary["acr_two_class"]) == (summary["acr"], None)


def test_preset_radii_have_no_acr_by_any_bound():
    rows = tiny().assign(decisions="accept", n=100, counts="60 40")
    summary = summarize(rows, [], identity(1000) | {"mode": "sequential", "radii": [0.25]})
    assert not [name for name in summary if name.startswith("acr")]
    assert summary["arithmetic"] == "float"


# --- the distribution of p_lower ---------------------------------------------------------------------------------


def test_the_ecdf_is_the_share_of_images_at_or_below_each_p_lower():
    rows = tiny().assign(p_lower=[0.9, 0.0, 0.7, 0.9, 0.2])
    points = metrics.p_lower_ecdf(rows, 0.5)
    assert points["p_lower"].tolist() == [0.0, 0.2, 0.7, 0.9], "all images: right, wrong, withheld and stopped early"
    assert points["share"].tolist() == [0.2, 0.4, 0.6, 1.0]
    assert (points["sigma"] == 0.5).all()
    shares = summarize(rows, [], identity(1000))["p_lower_ecdf"]
    assert (shares["0.0"], shares["0.2"], shares["0.8"], shares["0.9"]) == (0.2, 0.4, 0.6, 1.0)


def test_of_many_images_the_ecdf_keeps_few_steps_which_are_exact():
    p_lower = np.round(1 - np.random.default_rng(0).beta(0.3, 5, 5000), 9)
    points = metrics.p_lower_ecdf(pd.DataFrame({"p_lower": p_lower}), 1.0)
    assert len(points) <= 201
    exact = [(p_lower <= p).mean() for p in points["p_lower"]]
    assert points["share"].tolist() == pytest.approx(exact, abs=1e-6)
    assert np.diff([0.0, *points["share"]]).max() < 0.02
    assert points["p_lower"].iloc[-1] == p_lower.max()


def test_a_table_in_the_fields_form_has_no_distribution_of_p_lower(summary):
    assert summary["p_lower_ecdf"] is None
    assert metrics.p_lower_ecdf(tiny(), 0.5).empty


# --- paired comparison -------------------------------------------------------------------------------------------


def test_the_paired_difference_is_that_of_the_images():
    first = tiny(radius=(1.0, 0.5, 2.0, 0.0, 0.25))
    second = tiny(predict=(0, 0, 0, 1, 1), radius=(1.1, 0.5, 0.4, 0.2, 0.05))
    differences = np.array([0.1, 0.0, 0.4, 0.2, -0.2])
    error = differences.std(ddof=1) / np.sqrt(5)
    found = paired_acr_difference(first, second)
    assert found.mean == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(error)
    half = stats.t.ppf(0.975, 4) * error
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert paired_acr_difference(second, first).mean == pytest.approx(-0.1)
    assert paired_acr_difference(first, second, confidence=0.5).low > found.low


def test_the_order_of_rows_does_not_matter():
    first, second = tiny(), tiny(radius=(1.1, 0.4, 2.0, 0.0, 0.3))
    assert paired_acr_difference(first, second[::-1]) == paired_acr_difference(first, second)


@pytest.mark.parametrize(
    "other",
    [tiny()[:4], tiny().assign(idx=range(5)), tiny().assign(label=[0, 0, 0, 1, 0])],
    ids=["fewer images", "other images", "other labels"],
)
def test_tables_of_different_images_are_refused(other):
    with pytest.raises(ValueError, match="certify both on the same images"):
        paired_acr_difference(tiny(), other)


# --- published logs ----------------------------------------------------------------------------------------------


@pytest.fixture
def published():
    """Reads one of the authors' per-image logs."""
    if "PUBLISHED_LOGS" not in os.environ:
        pytest.skip("the environment variable PUBLISHED_LOGS does not name the folder of the published logs")
    return lambda name: table.read(Path(os.environ["PUBLISHED_LOGS"]) / name)


@pytest.mark.parametrize(
    ("name", "acr"),
    [
        ("cifar10_smoothmix_sigma0.50_step1.tsv", 0.736),
        ("cifar10_consistency_sigma0.50.tsv", 0.720),
        ("mnist_smoothmix_sigma1.00_step0_run21.tsv", 1.817),
    ],
)
def test_published_logs_give_the_published_acr(published, name, acr):
    assert summarize(published(name), [], identity(100_000))["acr"] == pytest.approx(acr, abs=5e-4)


def test_a_published_log_gives_the_published_certified_accuracies(published):
    rows = published("cifar10_smoothmix_sigma0.50_step1.tsv")
    percent = [100 * certified_accuracy(rows, radius)["value"] for radius in np.arange(0, 2, 0.25)]
    assert percent == pytest.approx([63.5, 57.2, 50.5, 43.4, 36.7, 30.6, 24.7, 19.1], abs=0.0501)


def test_pairing_published_logs_tells_methods_apart_that_their_own_errors_do_not(published):
    consistency = published("cifar10_consistency_sigma0.50.tsv")
    smoothmix = published("cifar10_smoothmix_sigma0.50_step1.tsv")
    difference = paired_acr_difference(consistency, smoothmix)
    assert difference.mean == pytest.approx(0.0161, abs=1e-4)
    assert difference.standard_error == pytest.approx(0.0028, abs=1e-4)
    alone = summarize(smoothmix, [], identity(100_000))["acr_standard_error"]
    assert difference.low > 0
    assert difference.mean < 2 * np.sqrt(2) * alone
