"""The driver of the published experiments: budgets, kills, changes of machine, and the way into DVC's workspace."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks.published.adopt import fitting_sigma
from benchmarks.published.compare import compare
from benchmarks.published.kept import load, params_at
from benchmarks.published.page import departures, draw, not_yet_run, rankings, trained_on, training_cost, write_page
from benchmarks.published.runs import Plan, Run, scaled
from components import params as parameters
from components.certification import table
from components.certification.table import display_radius
from components.evaluation.rebound import rebound
from components.parsing import ParamsError
from pipelines import artifacts
from tests.support.workspace import copy_project, edit, run, stages_run

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
SMALL = ["--recipe", "recipes/digits.yaml", "--methods", "gaussian", "--sigmas", "0.5", "--epochs", "3"]
SMALL += ["--set", "certify.n=200", "certify.every=30"]


def paper(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return run(cwd, sys.executable, "-m", "benchmarks.published", *map(str, arguments))


def outcome(run: Path) -> list[bytes]:
    """What a run comes to: weights and table."""
    return [
        (run / name).read_bytes()
        for name in ("outputs/models/0.5/weights.safetensors", "outputs/certificates/0.5/table.tsv.gz")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "digits"
    result = paper("run", *SMALL, "--out", out)
    assert result.returncode == 0, result.stderr
    return out / "gaussian/0.5"


def test_fewer_epochs_take_decay_and_warm_up_along():
    recipe = yaml.safe_load((ROOT / "recipes/mnist.yaml").read_text())["train"]
    assert scaled(recipe, 9) == {"epochs": 9, "decay_every": 3, "warmup_epochs": 1}
    assert scaled(recipe, 1) == {"epochs": 1, "decay_every": 1, "warmup_epochs": 1}


def test_an_unknown_parameter_is_refused_by_name_before_anything_is_made(tmp_path):
    plan = Plan(ROOT / "recipes/digits.yaml", tmp_path / "out", None, {"certify.nn": "5"}, None, None)
    with pytest.raises(ParamsError, match=r"certify\.nn"):
        plan.params("gaussian", None)
    result = paper("run", *SMALL[:-2], "train.epohcs=3", "--out", tmp_path / "out")
    assert (result.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "train.epohcs" in result.stderr


def test_the_cost_of_a_training_is_the_mean_over_its_runs():
    runs = [{"seconds": {"train": s}, "train_images": 1000, "params": {"train.epochs": 18}} for s in (30.0, 42.0)]
    assert training_cost(runs) == ["36 s", "500"]
    assert training_cost([runs[0], runs[1] | {"train_images": float("nan")}]) == ["36 s", "?"]


def test_the_page_names_every_departure_and_both_rankings():
    methods = ["gaussian", "smoothmix"]
    plan = Plan(ROOT / "recipes/mnist.yaml", ROOT, 9, {"certify.every": "20"}, None, None)
    own = [params_at(parameters.parse(plan.params(method, ["0.5"])), 0.5) for method in methods]
    runs = pd.DataFrame({"method": methods, "sigma": 0.5, "acr": [1.2, 1.4], "params": own})
    line = departures("mnist", runs)
    for words in ("`train.epochs` 9 instead of 90", "`certify.every` 20 instead of 1", "`train.decay_every` 3"):
        assert words in line
    assert "seed" not in line
    assert "training images" not in line, "older runs do not say how many they had"
    cut = runs.assign(train_images=[60_000, 10_000])
    assert "10,000 training images instead of 60,000" in departures("mnist", cut)
    assert "training images" not in departures("mnist", cut[:1])
    published = pd.read_csv(artifacts.PUBLISHED)
    missing = not_yet_run(runs.assign(recipe="mnist"), published)
    assert "smoothmix at σ 0.25, 0.5, 1" in missing
    plan = Plan(ROOT / "recipes/mnist.yaml", ROOT, None, {}, None, None)
    whole = [params_at(parameters.parse(plan.params("smoothmix", ["0.5"])), 0.5)]
    missing = not_yet_run(runs.iloc[1:].assign(recipe="mnist", params=whole, train_images=10_000), published)
    assert "smoothmix at σ 0.25, 0.5, 1" in missing, "a run on fewer images is not one by the whole recipe"
    missing = not_yet_run(runs.iloc[1:].assign(recipe="mnist", params=whole), published)
    assert "- mnist: smoothmix at σ 0.25, 1; gaussian at σ 0.25, 0.5, 1" in missing
    assert (
        "here smoothmix > gaussian; published smoothmix > gaussian (rank correlation 1.00)"
        in rankings(runs, "mnist", published)[0]
    )


def test_a_picture_is_drawn_anew_only_where_it_would_show_something_else(tmp_path):
    runs, points = load(ROOT / "results/digits"), pd.read_csv(artifacts.PUBLISHED_CURVES)
    draw(tmp_path, runs[:1], points[:0])
    picture = tmp_path / "certified_accuracy.png"
    first = picture.stat()
    draw(tmp_path, runs[:1], points[:0])
    assert picture.stat().st_mtime_ns == first.st_mtime_ns, "nothing has changed"
    draw(tmp_path, runs[1:2], points[:0])
    assert picture.stat().st_mtime_ns > first.st_mtime_ns


def test_the_kept_page_and_pictures_are_those_that_the_kept_runs_give(tmp_path):
    kept = shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.safetensors"))
    times = {picture: picture.stat().st_mtime_ns for picture in kept.rglob("*.png")}
    write_page(kept)
    assert (kept / "README.md").read_text(encoding="utf-8") == (ROOT / "results/README.md").read_text(encoding="utf-8")
    assert {picture: picture.stat().st_mtime_ns for picture in kept.rglob("*.png")} == times


def test_the_table_shows_how_many_images_a_run_was_trained_on():
    assert trained_on({"train_images": 10_000.0}) == "10,000"
    assert trained_on({"train_images": float("nan")}) == trained_on({}) == "?"


def test_a_page_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished run"):
        write_page(tmp_path)


@pytest.fixture
def two_class(tmp_path: Path) -> Path:
    """The kept digits at sigma 1.0, as a run by the two-class bound with the same samples leaves them."""
    own = Path("smoothmix/1.0")
    shutil.copytree(ROOT / "results/digits" / own, tmp_path / "two_class" / own)
    folder = tmp_path / "two_class" / own / "outputs/certificates/1.0"
    identity = json.loads((folder / "identity.json").read_text())
    rows = rebound(table.read(folder / "table.tsv.gz"), identity, "two_class")
    rows.to_csv(folder / "table.tsv.gz", sep="\t", index=False)
    (folder / "identity.json").write_text(json.dumps(identity | {"bound": "two_class", "arithmetic": "exact"}))
    return tmp_path / "two_class"


def test_a_two_class_table_stands_beside_published_figures_by_its_one_class_radii(two_class):
    kept = load(ROOT / "results/digits").query("sigma == 1").iloc[0]
    (run,) = load(two_class).to_dict("records")
    own = [
        "acr",
        "acr_standard_error",
        "clean_accuracy",
        "abstention",
        "largest_radius",
        "acr_one_class",
        "acr_two_class",
    ]
    assert [run[name] for name in own] == [kept[name] for name in own]
    assert run["acr"] == run["acr_one_class"] < run["acr_two_class"]
    columns = ["predict", "radius", "correct", "p_lower"]
    pd.testing.assert_frame_equal(run["certificates"][columns], kept["certificates"][columns])
    assert departures("digits", pd.DataFrame([run])) == "Departures from recipes/digits.yaml: none."
    differing, _, _, line, *_ = compare(ROOT / "results/digits", two_class, [0.5]).splitlines()
    assert differing == "arithmetic: float in digits, exact in two_class"
    assert line.split()[5] == "+0.0000"


def test_a_table_of_another_bound_than_the_workspaces_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ROOT / "results/digits/smoothmix/1.0"
    shutil.copy(ROOT / "recipes/digits.yaml", "params.yaml")
    with pytest.raises(ValueError, match=r"has a table of the one_class bound: set certify\.bound to one_class"):
        fitting_sigma(run, parameters.load("params.yaml"))


def test_a_run_without_its_weights_is_not_taken_over(tmp_path, monkeypatch):
    run = shutil.copytree(ROOT / "results/digits/smoothmix/1.0", tmp_path / "1.0")
    (run / "outputs/models/1.0/weights.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"without its weights: fetch them, `dvc pull .*weights\.safetensors\.dvc`"):
        fitting_sigma(run, parameters.load(ROOT / "recipes/digits.yaml"))


@pytest.mark.slow
def test_a_budget_ends_a_run_with_75_and_another_machine_goes_on_from_its_pack(whole, tmp_path):
    packs, first = tmp_path / "packs", tmp_path / "first/digits"
    shutil.copytree(whole.parents[1] / ".prepared", first / ".prepared")
    half = sum(json.loads((whole / "run.json").read_text())["seconds"].values()) / 2
    result = paper("run", *SMALL, "--out", first, "--packs", packs, "--max-minutes", str(half / 60))
    assert result.returncode == 75, result.stderr
    assert "run the same command again" in result.stderr
    assert [pack.name for pack in packs.iterdir()] == ["digits-gaussian-0.5.tar.gz"]
    shutil.rmtree(tmp_path / "first")
    result = paper("run", *SMALL, "--out", tmp_path / "second/digits", "--packs", packs)
    assert result.returncode == 0, result.stderr
    assert "continuing after epoch" in result.stdout
    assert outcome(tmp_path / "second/digits/gaussian/0.5") == outcome(whole)


def test_a_budget_that_is_over_between_two_stages_packs_what_there_is(tmp_path):
    out, packs = tmp_path / "digits", tmp_path / "packs"
    one = Run(Plan(ROOT / "recipes/digits.yaml", out, None, {}, packs, None), "gaussian", "0.5")
    one.begin()
    assert one.finish_before(time.monotonic()) == 75
    assert [pack.name for pack in packs.iterdir()] == ["digits-gaussian-0.5.tar.gz"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(whole, tmp_path):
    run = tmp_path / "digits/gaussian/0.5"
    command = [sys.executable, "-m", "benchmarks.published", "run", *SMALL, "--out", str(tmp_path / "digits")]
    said = tmp_path / "said"
    for landmark in (".state/checkpoints/*/epoch-*.pt", ".state/partial_tables/*/rows-*.tsv"):
        with said.open("w") as output:
            process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=output, stderr=output)
        while process.poll() is None and not list(run.glob(landmark)):
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    result = paper("run", *SMALL, "--out", tmp_path / "digits")
    assert result.returncode == 0, result.stderr
    assert "continuing after epoch" in said.read_text(), "the second start trained anew"
    assert outcome(run) == outcome(whole)


@pytest.mark.slow
def test_a_finished_run_is_kept_and_other_parameters_are_refused(whole):
    before = outcome(whole)
    again = paper("run", *SMALL, "--out", whole.parents[1])
    assert (again.returncode, "finished before" in again.stdout) == (0, True)
    other = paper("run", *SMALL, "seed=3", "--out", whole.parents[1])
    assert (other.returncode, "other parameters" in other.stderr) == (1, True)
    assert outcome(whole) == before
    other = paper(
        "run", "--recipe", "recipes/digits.yaml", "--methods", "macer", "--set", "seed=3", "--out", whole.parents[1]
    )
    assert (other.returncode, "data prepared by other parameters" in other.stderr) == (1, True)
    facts = json.loads((whole / "run.json").read_text())
    assert {"recipe", "train_images", "seconds", "certified_samples_per_s", "git_commit", "processor"} <= set(facts)


@pytest.mark.slow
def test_the_page_shows_a_run_with_its_departures_and_what_its_folder_says_about_it(whole, tmp_path):
    shutil.copytree(whole.parents[1], tmp_path / "digits")
    (tmp_path / "digits/about.md").write_text("Scanned by hand.")
    result = paper("page", "--results", tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "README.md").read_text()
    summary = json.loads((whole / "metrics.json").read_text())["0.5"]
    assert (summary["bound"], summary["arithmetic"], summary["acr"]) == ("two_class", "exact", summary["acr_two_class"])
    acr, images = summary["acr_one_class"], json.loads((whole / "run.json").read_text())["train_images"]
    assert "certify.bound" not in page
    for words in ("Scanned by hand.", "exact arithmetic", f"| {display_radius(summary['acr_two_class'])} |"):
        assert words in page
    for words in ("`train.epochs` 3 instead of", f"| 0.5 | gaussian | {images:,} | {display_radius(acr)} ±"):
        assert words in page
    assert (tmp_path / "digits/certified_accuracy.png").stat().st_size > 10_000


@pytest.mark.slow
def test_an_adopted_run_is_up_to_date_for_dvc_and_is_registered(whole, tmp_path):
    folder = copy_project(tmp_path)
    recipe = (whole / "params.yaml").read_text()
    (folder / "params.yaml").write_text(recipe)
    result = run(folder, sys.executable, "-m", "benchmarks.published", "adopt", str(whole))
    assert (result.returncode, "dvc repro validate" in result.stderr) == (1, True)  # no data yet
    assert stages_run(run(folder, "dvc", "repro", "validate")) == ["prepare", "validate"]
    edit(folder / "params.yaml", {"n: 200": "n: 300"})
    result = run(folder, sys.executable, "-m", "benchmarks.published", "adopt", str(whole))
    assert (result.returncode, "section certify" in result.stderr) == (1, True)
    assert not (folder / "outputs/models/0.5").exists()
    (folder / "params.yaml").write_text(recipe)
    result = run(folder, sys.executable, "-m", "benchmarks.published", "adopt", str(whole))
    assert result.returncode == 0, result.stderr
    assert stages_run(run(folder, "dvc", "repro")) == ["brought", "evaluate", "register"]
