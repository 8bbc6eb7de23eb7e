"""Where state and a relative `prepare.root` lie, for every place in git that a project can have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import artifacts
from pipelines.operation import worktree

ROOT = Path(__file__).parents[2]
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"]


def git(folder, *arguments):
    done = subprocess.run([*GIT, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository(folder, project="."):
    """A repository whose project lies in a folder of it."""
    (folder / project).mkdir(parents=True)
    (folder / project / "dvc.yaml").write_text("stages: {}\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "0")
    return folder


def add_worktree(checkout, folder):
    git(checkout, "worktree", "add", "-q", "--detach", str(folder))
    return folder


def normal(at):
    return repository(at / "p"), at / "p"


def linked(at):
    return add_worktree(repository(at / "p"), at / "wt"), at / "p"


def linked_within(at):
    return add_worktree(repository(at / "p"), at / "p/.state/scheduled"), at / "p"


def submodule(at):
    repository(at / "p")
    git(repository(at / "super"), "submodule", "add", "-q", str(at / "p"), "deep/sub")
    return at / "super/deep/sub", at / "super/deep/sub"


def worktree_of_a_submodule(at):
    sub, _ = submodule(at)
    return add_worktree(sub, at / "wt"), sub


def subfolder(at):
    return repository(at / "p", "ml/proj") / "ml/proj", at / "p/ml/proj"


def subfolder_of_a_worktree(at):
    return add_worktree(repository(at / "p", "ml/proj"), at / "wt") / "ml/proj", at / "p/ml/proj"


def below_the_project(at):
    (repository(at / "p", "proj") / "proj/benchmarks/here").mkdir(parents=True)
    return at / "p/proj/benchmarks/here", at / "p/proj"


def worktree_of_a_bare_repository(at):
    git(at, "clone", "-q", "--bare", str(repository(at / "p")), "x.git")
    return add_worktree(at / "x.git", at / "elsewhere/wt"), at / "x.git"


def worktree_around_a_hidden_bare_repository(at):
    git(at, "clone", "-q", "--bare", str(repository(at / "p")), "home/.bare")
    return add_worktree(at / "home/.bare", at / "home/wt"), at / "home"


def no_git(at):
    (at / "p").mkdir()
    return at / "p", at / "p"


PLACES = [
    normal,
    linked,
    linked_within,
    submodule,
    worktree_of_a_submodule,
    subfolder,
    subfolder_of_a_worktree,
    below_the_project,
    worktree_of_a_bare_repository,
    worktree_around_a_hidden_bare_repository,
    no_git,
]


@pytest.fixture(autouse=True)
def outside_git(tmp_path, monkeypatch):
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "GIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.mark.parametrize("place", PLACES)
def test_state_and_relative_roots_lie_beside_the_project_in_the_main_checkout(place, tmp_path, monkeypatch):
    here, main = place(tmp_path)
    monkeypatch.chdir(here)
    assert artifacts.state_root() == main / ".state"
    assert artifacts.source_root("data/pets") == main / "data/pets"


@pytest.mark.parametrize("place", [normal, linked, submodule, subfolder_of_a_worktree])
def test_a_hook_s_git_variables_do_not_move_the_project(place, tmp_path, monkeypatch):
    here, main = place(tmp_path)
    other = repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.chdir(here)
    assert artifacts.state_root() == main / ".state"


@pytest.mark.parametrize("place", PLACES)
def test_an_experiment_s_copy_keeps_its_state_where_the_project_does(place, tmp_path, monkeypatch):
    here, main = place(tmp_path)
    copy = repository(tmp_path / "copy")
    monkeypatch.setenv("DVC_EXP_NAME", "x")
    monkeypatch.setenv("DVC_ROOT", str(here))
    monkeypatch.chdir(copy)
    assert artifacts.state_root() == main / ".state"


def test_without_the_program_git_the_state_lies_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert artifacts.state_root() == tmp_path / ".state"


def test_two_submodules_have_a_state_each(tmp_path, monkeypatch):
    repository(tmp_path / "p")
    above = repository(tmp_path / "super")
    for name in ("a", "b"):
        git(above, "submodule", "add", "-q", str(tmp_path / "p"), name)
        monkeypatch.chdir(above / name)
        assert artifacts.state_root() == above / name / ".state"


@pytest.mark.parametrize("place", [linked, submodule, subfolder])
def test_the_worktree_of_one_command_is_the_project_s_folder_in_it(place, tmp_path, monkeypatch):
    here, _ = place(tmp_path)
    monkeypatch.chdir(here)
    with worktree.passing("HEAD") as folder:
        assert (folder / "dvc.yaml").exists()


@pytest.mark.parametrize("place", [normal, linked, submodule])
def test_make_ui_opens_the_store_of_the_code(place, tmp_path, monkeypatch):
    here, main = place(tmp_path)
    monkeypatch.chdir(here)
    assert f'"sqlite:///{main}/.state/mlflow/mlflow.db"' in ui_command(here)
    assert '"http://server"' in ui_command(here, MLFLOW_TRACKING_URI="http://server")
    assert f'"sqlite:///{main}/' in ui_command(here, MLFLOW_TRACKING_URI="")


def ui_command(folder, **extra):
    """The command that `make ui` runs, as the shell has expanded it."""
    lines = subprocess.run(
        ["make", "-n", "-f", str(ROOT / "Makefile"), "ui"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("mlflow ui"))
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    shown = ["sh", "-c", 'mlflow() { printf "\\"%s\\" " "$@"; }; ' + line]
    return subprocess.run(shown, cwd=folder, env=environment | extra, capture_output=True, text=True).stdout
