"""The worktree of scheduled runs: healed after a kill, in every place in git, and never the working copy."""

import shutil
import subprocess
import sys

import pytest

from pipelines import artifacts
from pipelines.operation import worktree

pytestmark = pytest.mark.medium


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def make_project(folder, *options):
    """A DVC project with one file, committed with all else that is in its repository."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text("x: first")
    (folder / ".gitignore").write_text("/.state/\n/made\n")
    (folder / "dvc.yaml").write_text("stages: {make: {cmd: touch made, outs: [made]}}")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", *options], cwd=folder, check=True)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "project")
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def is_checked_out(project):
    """Whether the worktree is what is committed, and the working copy as it was."""
    (project / "params.yaml").write_text("x: in work")
    commit = worktree.check_out(print)
    folder = artifacts.project_in(artifacts.scheduled())
    assert git(folder, "rev-parse", "HEAD") == commit == git(project, "rev-parse", "HEAD")
    assert (project / "params.yaml").read_text() == "x: in work"
    return (folder / "params.yaml").read_text() == "x: first"


def test_the_worktree_is_the_commit_and_keeps_the_results_of_the_last_run(project):
    assert is_checked_out(project)
    (artifacts.scheduled() / "dvc.lock").write_text("of the last run")
    assert is_checked_out(project)
    assert (artifacts.scheduled() / "dvc.lock").read_text() == "of the last run"


def test_a_kill_while_git_makes_the_worktree_is_healed(project):
    """Git holds the worktree locked until it is complete."""
    git(project, "worktree", "add", "-q", "--detach", "--lock", "--reason", "initializing", str(artifacts.scheduled()))
    shutil.rmtree(artifacts.scheduled())
    assert is_checked_out(project)


def test_a_kill_while_git_changes_the_worktree_is_healed(project):
    assert is_checked_out(project)
    (project / ".git/worktrees/scheduled/index.lock").write_text("")
    assert is_checked_out(project)


def test_a_folder_that_is_no_worktree_is_made_one_and_the_working_copy_stays(project):
    artifacts.scheduled().mkdir(parents=True)  # git takes it for a folder of the working copy
    assert is_checked_out(project)
    (artifacts.scheduled() / ".git").unlink()
    assert is_checked_out(project)


def test_a_project_in_a_folder_of_a_larger_repository(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "repository")
    (tmp_path / "repository/README").write_text("of the whole")
    project = make_project(tmp_path / "repository/teams/project", "--subdir")
    monkeypatch.chdir(project)
    monkeypatch.setattr(artifacts, "state_root", lambda: project / ".state")
    assert is_checked_out(project)
    assert artifacts.project_in(artifacts.scheduled()) == project / ".state/scheduled/teams/project"
    assert is_checked_out(project)
    with worktree.passing(git(project, "rev-parse", "HEAD")) as folder:
        assert (folder / "params.yaml").read_text() == "x: first"


def test_a_project_that_is_a_submodule(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "alone")
    make_project(tmp_path / "alone")
    git(tmp_path, "init", "-q", "super")
    git(tmp_path / "super", "submodule", "--quiet", "add", str(tmp_path / "alone"), "project")
    project = tmp_path / "super/project"
    monkeypatch.chdir(project)
    monkeypatch.setattr(artifacts, "state_root", lambda: project / ".state")
    assert is_checked_out(project)
    assert is_checked_out(project)
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=artifacts.scheduled(), check=True)
    assert (artifacts.scheduled() / "made").exists()


def test_a_worktree_for_one_command_is_gone_afterwards_also_where_an_earlier_one_was_killed(project):
    commit = git(project, "rev-parse", "HEAD")
    for _ in range(2):
        with worktree.passing(commit) as folder:
            kept = folder
            assert (folder / "params.yaml").read_text() == "x: first"
        assert not kept.exists()
    assert git(project, "worktree", "list").count("\n") == 0


def test_a_commit_is_known_where_it_is(project):
    assert worktree.is_known(git(project, "rev-parse", "HEAD"))
    assert not worktree.is_known("0" * 40)
