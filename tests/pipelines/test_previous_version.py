"""The last commit's curve beside the present one: wherever the project lies in git, if both are comparable."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from components import params as parameters
from components.certification import table
from components.evaluation.metrics import curve, largest_radius_of, summarize
from components.evaluation.page.level import Level
from components.evaluation.page.render import render
from pipelines import artifacts
from pipelines.report_files import load_level, previous
from tests.pipelines.test_checkout import add_worktree, git
from tests.support import reports

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results/digits/smoothmix/0.5/outputs/certificates/0.5"
IDENTITY = json.loads((KEPT / "identity.json").read_text(encoding="utf-8"))
SIGMA = 0.5
PARAMS = ROOT / "recipes/digits.yaml"


def level_of(rows) -> Level:
    return Level("0.5", rows, IDENTITY, summarize(rows, [0.0, 0.5], IDENTITY))


@pytest.fixture(scope="module")
def present():
    return level_of(table.read(KEPT / "table.tsv.gz"))


@pytest.fixture(scope="module")
def older(present):
    """The same with radii that are a tenth smaller."""
    return level_of(present.table.assign(radius=0.9 * present.table["radius"]))


@pytest.fixture
def project(tmp_path, monkeypatch, older):
    """A project in a folder of a repository, whose last commit has the evaluation of the older table."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("GIT_DIR", raising=False)
    folder = tmp_path / "p/ml/proj"
    folder.mkdir(parents=True)
    git(tmp_path / "p", "init", "-q")
    commit(folder, older)
    monkeypatch.chdir(folder)
    return folder


def commit(folder, level, **changes):
    """Commit a level's evaluation; `changes` are texts of its files, by the first part of their names."""
    points = curve(level.table, SIGMA, largest_radius_of(IDENTITY)).to_csv(index=False)
    texts = {"params": PARAMS.read_text(encoding="utf-8"), "curves": points} | {
        "metrics": json.dumps({"0.5": level.summary})
    }
    paths = {"params": artifacts.PARAMS, "curves": artifacts.CURVES, "metrics": artifacts.METRICS}
    for name, text in (texts | changes).items():
        (folder / paths[name]).parent.mkdir(parents=True, exist_ok=True)
        (folder / paths[name]).write_text(text, encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "evaluated", "--allow-empty")


def here():
    return parameters.load(PARAMS)


# --- where it is found -------------------------------------------------------------------------------------------


def test_the_last_commits_curve_is_found_and_its_acr_is_compared(project, present, older):
    (project / artifacts.CURVES).write_text("what is not committed does not count")
    found = previous(here(), present)
    assert found.commit == git(project, "rev-parse", "--short", "HEAD").strip()
    expected = curve(older.table, SIGMA, largest_radius_of(IDENTITY))
    assert found.curve.to_numpy() == pytest.approx(expected[["radius", "certified_accuracy"]].to_numpy())
    assert found.said == "ACR 1.131 here, 1.018 there (+0.113)."


def test_worktrees_and_shallow_clones_have_it(project, present, tmp_path, monkeypatch):
    add_worktree(project, tmp_path / "wt")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{tmp_path / 'p'}", "shallow")
    for place in ("wt", "shallow"):
        monkeypatch.chdir(tmp_path / place / "ml/proj")
        assert previous(here(), present).said.startswith("ACR 1.131 here, 1.018"), place


def test_a_level_that_is_loaded_has_it(project, tmp_path):
    folder = project / artifacts.certificates(SIGMA).parent
    folder.mkdir(parents=True)
    (folder / "table.tsv").write_bytes(gzip.decompress((KEPT / "table.tsv.gz").read_bytes()))
    (folder / "identity.json").write_text(json.dumps(IDENTITY))
    assert load_level(here(), SIGMA, reports.description(450)).previous is not None


def test_other_numbers_of_images_and_samples_are_said(project, present, older):
    few = replace(older, summary=older.summary | {"images": 50, "n": 1000})
    commit(project, few)
    assert previous(here(), present).said.endswith("(+0.113). There with 50 images and n = 1,000.")


# --- where there is none -----------------------------------------------------------------------------------------


def test_without_git_a_commit_or_its_files_there_is_none(project, present, tmp_path, monkeypatch):
    for name, commands in {
        "no_git": [],
        "empty": [["init", "-q"]],
        "bare_of_files": [["init", "-q"], ["commit", "-qm", "0", "--allow-empty"]],
    }.items():
        (tmp_path / name).mkdir()
        for command in commands:
            git(tmp_path / name, *command)
        monkeypatch.chdir(tmp_path / name)
        assert previous(here(), present) is None, name
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert previous(here(), present) is None, "git is not installed"


def test_the_present_curve_is_no_previous_one(project, present):
    commit(project, present)
    assert previous(here(), present) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"params": PARAMS.read_text(encoding="utf-8").replace("seed: 0", "seed: 1")},
        {"params": "seed: 0\nof_an_older_version: true\n"},
        {"params": "{"},
        {"curves": "radius,accuracy\n0.0,1.0\n"},
        {"curves": "sigma,radius,certified_accuracy\n0.25,0.0,1.0\n"},
        {"curves": "sigma,radius,certified_accuracy\nhalf,0.0,1.0\n"},
        {"curves": ""},
        {"metrics": "{}"},
        {"metrics": "[]"},
        {"metrics": '{"0.5": 0.7}'},
        {"metrics": '{"0.5": {"mode": "reference", "acr": null}}'},
        {"metrics": "torn {"},
        {"metrics": '{"0.5": {"mode": "reference", "bound": "two_class", "acr": 1, "images": 450, "n": 10000}}'},
        {"metrics": '{"0.5": {"mode": "sequential", "images": 450, "n": 10000, "acr": 1}}'},
    ],
    ids=lambda changes: "-".join(f"{name} {text[-30:]!r}" for name, text in changes.items()),
)
def test_files_of_other_images_another_bound_or_an_older_form_are_none(project, present, older, changes):
    commit(project, older, **changes)
    assert previous(here(), present) is None


# --- on the page -------------------------------------------------------------------------------------------------


@pytest.mark.medium
def test_the_page_draws_it_and_says_the_difference(project, present):
    found = previous(here(), present)
    page = render("digits", reports.description(450), [replace(present, previous=found)], None, "none here")
    assert f"last commit ({found.commit})" in page, "in the legend of the picture"
    assert (
        f"Last commit ({found.commit}), dash-dotted, by the same bound. ACR 1.131 here, 1.018 there (+0.113)." in page
    )
    assert "ast commit" not in render("digits", reports.description(450), [present], None, "none here")
