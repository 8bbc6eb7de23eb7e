"""Tables and figures for a paper."""

import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.published.__main__ import main
from benchmarks.published.figures import COLUMN, figure, write_figures
from benchmarks.published.kept import load
from benchmarks.published.tables import accuracy, entries, escaped, table
from components.certification import table as certificates
from pipelines import artifacts

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
DIGITS, JPEG = (ROOT / f"results/{name}" for name in ("digits", "cifar10_jpeg_lenet"))
MNIST = ROOT / "results/mnist_3_epochs/smoothmix/1.0"
"""One run, which is a workspace, too."""
RADII = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace as `dvc repro` leaves it, with the kept digits of one sigma."""
    folder = tmp_path_factory.mktemp("mine_50%")
    kept = DIGITS / "smoothmix/0.5/outputs"
    shutil.copytree(kept, folder / "outputs", ignore=shutil.ignore_patterns("*.safetensors"))
    certificates.write(folder / artifacts.certificates(0.5), [], [])
    packed = folder / "outputs/certificates/0.5/table.tsv.gz"
    certificates.read(packed).to_csv(folder / artifacts.certificates(0.5), sep="\t", index=False)
    packed.unlink()
    shutil.copy(ROOT / "recipes/digits.yaml", folder / "params.yaml")
    return folder


# --- the table ---------------------------------------------------------------------------------------------------


def test_published_rows_follow_ours_and_only_where_there_are_some():
    found = [*entries(load(JPEG, RADII), RADII), *entries(load(MNIST, RADII), RADII)]
    assert [(one["method"], one["source"]) for one in found] == [
        ("smoothmix", "ours"),
        ("gaussian", "ours"),
        ("smoothmix", "ours"),
        ("smoothmix", "published"),
    ], "copies of CIFAR-10 are no CIFAR-10"
    ours, published = found[-2:]
    assert ours["shares"][1.0]["value"] == 0.656
    assert ours["shares"][1.0]["low"] < 0.656 < ours["shares"][1.0]["high"]
    assert published["shares"][1.0] == {"value": 0.773}
    assert {one["source"] for one in entries(load(DIGITS / "smoothmix/0.5", RADII), RADII)} == {"ours"}


def test_markdown_is_aligned_and_says_what_the_figures_rest_on():
    text = table([MNIST], "markdown", RADII)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [cell.strip() for cell in rows[0].split("|")[4:7]] == ["ACR, one-class", "ACR, two-class", "r = 0"]
    ours, published = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:4])
    assert ours[:5] == ["1.0", "smoothmix", "ours", "1.453 ± 0.060", "1.544"]
    shares = ["0.932", "0.873", "0.773", "0.625", "0.449", "0.296"]
    assert published == ["1.0", "smoothmix", "published", "1.821", "–", *shares]
    assert "1 run of 3 epochs, seed 0, 250 test images, n = 5,000" in text
    assert "`train.epochs` 3 instead of 90" in text
    assert "All by the one-class bound but the two-class ACR" in text
    assert "Published: n = 100,000" in text
    both = table([JPEG], "markdown", RADII)
    assert "2 runs of 2 epochs, seed 0, 200 test images, n = 2,000" in both
    assert "`train.network` lenet instead of resnet110" in both
    assert "Published" not in both + table([DIGITS / "smoothmix/0.5"], "markdown", RADII)


def test_no_share_is_shown_beyond_what_the_samples_can_certify():
    entry = {"certified_accuracy": {"1.5": {"value": 0.0}}, "largest_radius": 1.41}
    assert accuracy(entry, 1.5) is None
    assert accuracy(entry | {"largest_radius": 1.5}, 1.5) == {"value": 0.0}


def test_csv_is_tidy_with_full_precision():
    text = table([JPEG, MNIST, DIGITS / "smoothmix/0.5"], "csv", [0.5])
    rows = pd.read_csv(io.StringIO(text))
    assert len(list(csv.reader(io.StringIO(text)))) == len(rows) + 1, "one header line, one line per figure"
    keys = ["set", "method", "sigma", "source", "quantity", "bound", "radius"]
    assert not rows.duplicated(keys).any()
    own = rows.query("set == '0.5'").set_index(["quantity", "bound"])
    kept = load(DIGITS / "smoothmix/0.5").iloc[0]
    assert own.loc[("acr", "one_class"), "value"] == kept["acr"]
    assert own.loc[("acr", "two_class"), "value"] == kept["acr_two_class"]
    assert own.loc[("acr", "one_class"), "standard_error"] == kept["acr_standard_error"]
    share = own.loc[("certified_accuracy", "one_class")]
    assert (share["radius"], share["value"]) == (0.5, 0.8844444444444445)
    assert (own["n"] == 10_000).all()
    assert (own["images"] == 450).all()
    assert (own["epochs"] == 30).all()
    assert '"' not in text.splitlines()[0]
    published = rows.query("source == 'published' and method == 'smoothmix'")
    assert published["value"].tolist() == [1.821, 0.873]
    departures = rows.query("source == 'ours' and set == 'cifar10_jpeg_lenet'")["departures"].iloc[0]
    assert "train.network lenet instead of resnet110" in departures


def test_latex_is_a_table_environment_with_as_many_cells_in_each_row(workspace):
    text = table([JPEG, MNIST, workspace], "latex", RADII)
    assert text.count(r"\begin{table}[tb]") == text.count(r"\end{table}") == 3
    for part in text.split(r"\end{table}")[:3]:
        for rule in ("toprule", "midrule", "bottomrule"):
            assert part.count(rf"\{rule}") == 1
        columns = re.search(r"\\begin{tabular}{(l+r+)}", part)[1]
        rows = [line for line in part.splitlines() if line.endswith(r" \\")]
        head, *body = rows
        spans = [int(width) for width in re.findall(r"multicolumn{(\d+)}", head)]
        assert len(columns) == 2 + sum(spans)
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in body} == {len(columns)}
        assert part.count("{") - part.count(r"\{") == part.count("}") - part.count(r"\}")
        assert not re.search(r"(?<!\\)[_#]", part.replace("$L_2$", "")), "what LaTeX would take for a command"
        assert part.isascii()
    assert r"50\%" in text
    assert r"\label{tab:certified-mine-50-" in text
    assert r"\quad published & 1.821 & -- & 0.932" in text


def test_signs_of_latex_are_escaped():
    assert escaped("a_b & 50% {x} $ # ~ ^ \\") == (
        r"a\_b \& 50\% \{x\} \$ \# \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex")
def test_latex_compiles(tmp_path):
    body = table([MNIST, JPEG], "latex", RADII)
    page = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "page.tex"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert b"Overfull" not in done.stdout


def test_two_sets_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two sets are named digits"):
        table([DIGITS, DIGITS], "csv", RADII)


# --- workspaces --------------------------------------------------------------------------------------------------


def test_a_workspace_is_a_set_by_what_its_weights_were_trained_with(workspace):
    (run,) = load(workspace, RADII).to_dict("records")
    kept = load(DIGITS / "smoothmix/0.5", RADII).iloc[0]
    assert [run[key] for key in ("acr", "acr_two_class", "method", "recipe")] == [
        kept[key] for key in ("acr", "acr_two_class", "method", "recipe")
    ]
    params = workspace / "params.yaml"
    text = params.read_text()
    assert "recipes/digits.yaml: none" in table([workspace], "markdown", [0.5])
    params.write_text(text.replace("epochs: 30", "epochs: 7"))
    try:
        assert "1 run of 30 epochs" in table([workspace], "markdown", [0.5]), "the card knows better"
    finally:
        params.write_text(text)


def test_without_names_the_kept_sets_and_the_workspace_are_taken(workspace, tmp_path, monkeypatch, capsys):
    here = shutil.copytree(workspace, tmp_path / "mine")
    shutil.copytree(JPEG, here / "results/jpeg", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", ["published", "table", "--format", "csv", "--radii", "0.5"])
    assert main() == 0
    assert list(dict.fromkeys(pd.read_csv(io.StringIO(capsys.readouterr().out))["set"])) == ["jpeg", "mine"]
    shutil.rmtree("outputs")
    shutil.rmtree("results")
    assert main() == 1
    assert "neither results/ nor outputs/certificates/ holds a finished run: name a set" in capsys.readouterr().err


# --- figures -----------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_figures_are_written_as_pdf_and_svg_in_the_size_of_a_column(workspace, tmp_path):
    files = write_figures([workspace], tmp_path / "figures")
    name = f"{workspace.name}-sigma-0.5"
    assert [file.name for file in files] == [f"{name}.pdf", f"{name}.svg"]
    pdf, svg = files[0].read_bytes(), files[1].read_text(encoding="utf-8")
    size = f"{COLUMN['width']} {COLUMN['height']}"
    assert pdf.startswith(b"%PDF")
    assert f"/MediaBox [0 0 {size}]".encode() in pdf
    assert f'viewBox="0 0 {size}"' in svg
    assert "Certified accuracy" in svg


def test_a_figure_shows_intervals_and_tells_methods_and_published_curves_apart_without_colour():
    runs = pd.concat([load(MNIST), load(MNIST.parents[1] / "gaussian/1.0")])
    points = pd.read_csv(artifacts.PUBLISHED_CURVES).query("dataset == 'mnist'")
    spec = figure(runs, points)
    values = pd.DataFrame(spec["data"]["values"])
    ours = values[~values["published"]]
    assert (ours["low"] <= ours["certified_accuracy"]).all()
    assert (ours["high"] >= ours["certified_accuracy"]).all()
    assert len(values[values["published"]]) == 6
    (lines,) = [layer for layer in spec["layer"] if "strokeDash" in layer.get("encoding", {})]
    scale = lines["encoding"]["strokeDash"]["scale"]
    assert len(scale["domain"]) == len({tuple(dash) for dash in scale["range"]}) == 2
    assert lines["encoding"]["color"]["title"] == "method, published with markers"
    assert {layer["mark"]["type"] for layer in spec["layer"]} == {"area", "line", "point", "rule"}
