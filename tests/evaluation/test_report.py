"""What people see of the metrics: tables, remarks, the report page and the plot; on any terminal and in any locale."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.evaluation.metrics import p_lower_ecdf, summarize
from components.evaluation.plots import certified_accuracy_spec, p_lower_spec, render_png
from components.evaluation.report import made_by, markdown_report, p_lower_lines, remarks, text_summary
from components.params import level_key

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "components/evaluation/certified_accuracy.json"
P_LOWER_TEMPLATE = ROOT / "components/evaluation/p_lower_ecdf.json"
PICTURES = ("plot.png", "p_lower.png")
LEVELS = (0.25, 0.5, 1.0)
N = {"n": 10_000, "failure_prob": 0.001}
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""Files are ASCII where nothing else is said, and so is what is printed."""


def table(radius):
    """Three images of three classes, the last one wrong; as many hits as one has, its rival has none."""
    rows = pd.DataFrame({"idx": range(3), "label": range(3), "predict": [0, 1, 1], "radius": radius})
    return rows.assign(selected=rows["predict"], counts=["9000 0 0", "0 9000 0", "0 9000 0"], n=10_000, p_lower=0.89)


def reference(radius, sigma=0.25, **more):
    facts = {"mode": "reference", "sigma": sigma, "n": 10_000, "failure_prob": 0.001, "arithmetic": "exact"} | more
    return summarize(table(radius), [0.0, 0.5, 1.0, 1.5], facts)


def preset(radii, sigma):
    rows = table(0.25).assign(decisions=" ".join(["accept"] * len(radii)), n=100)
    facts = {"mode": "sequential", "sigma": sigma, "n": 10_000, "failure_prob": 0.001, "radii": radii}
    return summarize(rows, [], facts)


def cells(text, line):
    """A line of a text table by its header; the margin of error stays with its number."""
    whole = text.replace(" ± ", "±").replace("clean acc", "clean").replace("ACR ", "ACR_")
    header, _, *rows = (row.split() for row in whole.splitlines())
    return dict(zip(header, rows[line], strict=False))


# --- radii that the samples cannot certify -----------------------------------------------------------------------


def test_a_radius_beyond_the_samples_is_a_dash_and_one_that_the_model_fails_is_a_zero():
    text = text_summary({"0.25": reference(0.7), "1.0": reference(0.7, sigma=1.0)})
    low, high = cells(text, 0), cells(text, 1)
    assert [low[f"r={radius}"] for radius in (0.0, 0.5, 1.0, 1.5)] == ["0.667", "0.667", "–", "–"]
    assert [high[f"r={radius}"] for radius in (0.5, 1.0, 1.5)] == ["0.667", "0.000", "0.000"]
    assert "beyond what n samples can certify for any model; the largest is 0.799 at sigma 0.25." in text


def test_a_preset_radius_that_was_not_asked_for_is_a_dash():
    text = text_summary({"0.25": preset([0.25], 0.25), "0.5": preset([0.25, 0.5], 0.5)})
    assert (cells(text, 0)["r=0.25"], cells(text, 0)["r=0.5"]) == ("0.667", "–")
    assert cells(text, 1)["r=0.5"] == "0.000"
    assert "not asked for" in text


def test_nothing_is_remarked_where_nothing_is_to_be_said():
    assert remarks({"1.0": reference(2.0, sigma=1.0)}) == []


@pytest.mark.medium
def test_the_plot_marks_each_ceiling(tmp_path):
    curves = pd.DataFrame(
        {"sigma": 0.25, "radius": [0.0, 0.79], "certified_accuracy": [0.9, 0.7], "largest_radius": 0.79}
    )
    spec = certified_accuracy_spec(curves, TEMPLATE, "Certified accuracy of <pets>")
    lines, ceilings = spec["layer"]
    assert lines["encoding"]["x"]["field"] == "radius"
    assert (ceilings["mark"]["type"], ceilings["encoding"]["x"]["field"]) == ("rule", "largest_radius")
    assert "dashed line" in spec["title"]["subtitle"]
    render_png(spec, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


# --- bounds and arithmetic ---------------------------------------------------------------------------------------


def test_both_acrs_are_shown_by_name_with_the_error_where_the_bound_is_the_tables():
    for bound, own, other in (("one_class", "one-class", "two-class"), ("two_class", "two-class", "one-class")):
        level = reference(0.7, bound=bound)
        row = cells(text_summary({"0.25": level}), 0)
        assert row[f"ACR_{own}"] == f"0.466±{level['acr_standard_error']:.3f}"
        assert row[f"ACR_{other}"] == f"{int(level['acr_' + other.replace('-', '_')] * 1000) / 1000:.3f}"
        assert "Tables: " + own + " bound, exact arithmetic." in text_summary({"0.25": level})


def test_levels_made_differently_are_told_apart():
    levels = {
        "0.25": reference(0.7, arithmetic="float"),
        "0.5": reference(0.7, bound="two_class"),
        "1.0": reference(0.7),
    }
    assert made_by(levels) == (
        "Tables: one-class bound, float arithmetic at sigma 0.25; two-class bound, exact arithmetic at sigma 0.5; "
        "one-class bound, exact arithmetic at sigma 1.0."
    )
    page = markdown_report(levels, "pets", "image_folder", *PICTURES)
    assert f"- {made_by(levels)}" in page
    assert "In float arithmetic" in page
    assert "In exact arithmetic" in page
    assert "In float arithmetic" not in markdown_report({"1.0": levels["1.0"]}, "pets", "image_folder", *PICTURES)


def test_an_acr_that_no_counts_give_is_a_dash_and_said():
    level = summarize(table(0.7).drop(columns="counts"), [0.0], {"mode": "reference", "sigma": 0.25} | N)
    text = text_summary({"0.25": level})
    assert cells(text, 0)["ACR_two-class"] == "–"
    assert "– for an ACR: the table at sigma 0.25 holds no counts" in text


# --- the distribution of p_lower ---------------------------------------------------------------------------------


def test_the_report_says_and_shows_the_distribution_of_p_lower():
    rows = table(0.7).assign(p_lower=[0.0, 0.8, 0.95], n=[1000, 10_000, 10_000])
    level = summarize(rows, [0.0], {"mode": "reference", "sigma": 0.25} | N)
    (line,) = p_lower_lines({"0.25": level})
    assert line == (
        "sigma 0.25: p_lower of the selected class is at most 0.5 for 0.333, at most 0.9 for 0.667 and at most 0.99 "
        "for 1.000 of the images (0 for the 0.333 whose sampling stopped early)."
    )
    page = markdown_report({"0.25": level}, "pets", "image_folder", *PICTURES)
    assert f"- {line}\n\n![Distribution of p_lower](p_lower.png)" in page
    assert p_lower_lines({"0.25": level | {"p_lower_ecdf": None}}) == []


def test_the_plot_of_p_lower_steps_from_each_value_on(tmp_path):
    points = p_lower_ecdf(table(0.7).assign(p_lower=[0.2, 0.8, 0.95]), 0.25)
    spec = p_lower_spec(points, P_LOWER_TEMPLATE, "Distribution of p_lower of pets")
    (line,) = spec["layer"]
    assert (line["encoding"]["x"]["field"], line["encoding"]["y"]["field"]) == ("p_lower", "share")
    assert line["mark"]["interpolate"] == "step-after", "the share holds from its p_lower up to the next"
    assert "<DVC" not in json.dumps(spec)
    render_png(spec, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_dvc_fills_the_plots_as_the_report_does():
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["evaluate"]["plots"]
    asked = {name: settings for plot in plots for name, settings in plot.items()}
    for name, draw in (("curves.csv", certified_accuracy_spec), ("p_lower_ecdf.csv", p_lower_spec)):
        settings = asked[f"outputs/evaluation/{name}"]
        spec = draw(pd.DataFrame({settings["x"]: [0.5], settings["y"]: [0.5]}), ROOT / settings["template"])
        axes = spec["layer"][0]["encoding"]
        assert [(axes[axis]["field"], axes[axis]["title"]) for axis in "xy"] == [
            (settings[axis], settings[f"{axis}_label"]) for axis in "xy"
        ]
        assert spec["title"]["text"] == settings["title"]


# --- remarks and names -------------------------------------------------------------------------------------------


def test_an_acr_below_the_constant_classifiers_is_remarked():
    levels = {"0.25": reference(0.7), "0.5": reference(0.1, sigma=0.5)}
    (below,) = [line for line in remarks(levels) if "floor" in line]
    assert below.startswith("sigma 0.5: the one-class ACR 0.066 is below the floor 0.533: ")
    assert below in text_summary(levels)
    assert f"- {below}" in markdown_report(levels, "pets", "image_folder", *PICTURES)


def test_the_report_is_titled_by_the_name_of_the_model():
    page = markdown_report({"0.25": reference(0.7)}, "pets", "image_folder", *PICTURES)
    assert page.startswith("# Certified robustness of pets\n\nOn 3 test images of the source `image_folder`.\n")


def test_columns_of_others_are_appended():
    text = text_summary({"0.25": reference(0.7)}, {"registered as": ["pets v3"]})
    assert text.splitlines()[0].endswith("registered as")
    assert text.splitlines()[2].endswith("pets v3")


# --- any locale --------------------------------------------------------------------------------------------------


@pytest.fixture
def certified(tmp_path):
    """A workspace that the evaluate stage finds ready: the digits' tables that are kept."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for sigma in map(level_key, LEVELS):
        kept = ROOT / f"results/digits/smoothmix/{sigma}/outputs/certificates/{sigma}"
        folder = tmp_path / f"outputs/certificates/{sigma}"
        folder.mkdir(parents=True)
        (folder / "identity.json").write_bytes((kept / "identity.json").read_bytes())
        (folder / "table.tsv").write_bytes(gzip.decompress((kept / "table.tsv.gz").read_bytes()))
    description = {"source": "digits", "origin": "", "classes": ["0"], "image_shape": [1, 16, 16], "max_value": 16}
    description |= {"mean": None, "std": None, "train_images": 1347, "test_images": 450}
    description |= {"train_sha256": "", "test_sha256": ""}
    (tmp_path / "outputs/data/prepared").mkdir(parents=True)
    (tmp_path / "outputs/data/prepared/description.json").write_text(json.dumps(description), encoding="utf-8")
    return tmp_path


@pytest.mark.medium
@pytest.mark.parametrize("locale", [PLAIN, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
def test_evaluate_works_where_signs_cannot_be_shown(certified, locale):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | locale
    command = [sys.executable, "-m", "pipelines.evaluate"]
    done = subprocess.run(command, cwd=certified, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"0.719 " in done.stdout
    report = certified / "outputs/evaluation/report"
    assert "0.719 ± 0.008" in (report / "report.md").read_text(encoding="utf-8")
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "<title>Certified robustness of digits</title>" in page
    assert "No pictures: the test images here are not those of the table" in page
    assert (report / "certified_accuracy.png").stat().st_size > 10_000
    assert (report / "p_lower_ecdf.png").stat().st_size > 10_000
    ecdf = pd.read_csv(certified / "outputs/evaluation/p_lower_ecdf.csv")
    assert sorted(set(ecdf["sigma"])) == list(LEVELS)
    levels = json.loads((certified / "outputs/evaluation/metrics.json").read_text(encoding="utf-8"))
    assert all(level["acr"] == level["acr_one_class"] <= level["acr_two_class"] for level in levels.values())
