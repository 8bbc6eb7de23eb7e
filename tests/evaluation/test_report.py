"""What people see of the metrics: tables, remarks, the report page and the plot; on any terminal and in any locale."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from components.evaluation.metrics import summarize
from components.evaluation.plots import certified_accuracy_spec, render
from components.evaluation.report import markdown_report, remarks, text_summary
from components.params import level_key

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "components/evaluation/certified_accuracy.json"
LEVELS = (0.25, 0.5, 1.0)
PLAIN = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""Files are ASCII where nothing else is said, and so is what is printed."""


def table(radius):
    """Three images of three classes, the last one wrong."""
    return pd.DataFrame({"idx": range(3), "label": range(3), "predict": [0, 1, 1], "radius": radius})


def reference(radius, sigma=0.25, n=10_000):
    facts = {"mode": "reference", "sigma": sigma, "n": n, "failure_prob": 0.001}
    return summarize(table(radius), [0.0, 0.5, 1.0, 1.5], facts)


def preset(radii, sigma):
    rows = table(0.25).assign(decisions=" ".join(["accept"] * len(radii)), n=100)
    facts = {"mode": "sequential", "sigma": sigma, "n": 10_000, "failure_prob": 0.001, "radii": radii}
    return summarize(rows, [], facts)


def cells(text, line):
    """A line of a text table by its header; the margin of error stays with its number."""
    header, _, *rows = (row.replace(" ± ", "±").replace("clean acc", "clean").split() for row in text.splitlines())
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


def test_the_plot_marks_each_ceiling(tmp_path):
    curves = pd.DataFrame(
        {"sigma": 0.25, "radius": [0.0, 0.79], "certified_accuracy": [0.9, 0.7], "largest_radius": 0.79}
    )
    spec = certified_accuracy_spec(curves, TEMPLATE, "Certified accuracy of <pets>")
    lines, ceilings = spec["layer"]
    assert lines["encoding"]["x"]["field"] == "radius"
    assert (ceilings["mark"]["type"], ceilings["encoding"]["x"]["field"]) == ("rule", "largest_radius")
    assert "dashed line" in spec["title"]["subtitle"]
    render(spec, tmp_path / "plot.png", tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text(encoding="utf-8")
    assert "<title>Certified accuracy of &lt;pets&gt;</title>" in page
    assert "σ" in page


# --- remarks and names -------------------------------------------------------------------------------------------


def test_an_acr_below_the_constant_classifiers_is_remarked():
    levels = {"0.25": reference(0.7), "0.5": reference(0.1, sigma=0.5)}
    (below,) = [line for line in remarks(levels) if "floor" in line]
    assert below.startswith("sigma 0.5: the ACR 0.066 is below the floor 0.533: ")
    assert below in text_summary(levels)
    assert f"- {below}" in markdown_report(levels, "pets", "image_folder", "plot.png")


def test_the_report_is_titled_by_the_name_of_the_model():
    page = markdown_report({"0.25": reference(0.7)}, "pets", "image_folder", "plot.png")
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


@pytest.mark.command
@pytest.mark.parametrize("locale", [PLAIN, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
def test_evaluate_works_where_signs_cannot_be_shown(certified, locale):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | locale
    command = [sys.executable, "-m", "pipelines.evaluate"]
    done = subprocess.run(command, cwd=certified, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"0.719 " in done.stdout
    report = certified / "outputs/evaluation/report"
    assert "0.719 ± 0.008" in (report / "report.md").read_text(encoding="utf-8")
    page = (report / "certified_accuracy.html").read_text(encoding="utf-8")
    assert "Certified accuracy of digits" in page
    assert '"title":"σ"' in page.replace(": ", ":")
    assert (report / "certified_accuracy.png").stat().st_size > 10_000
