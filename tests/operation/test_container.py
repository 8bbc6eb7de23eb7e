"""The container without a container: what the image holds, and what its first and later starts do with a volume."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.command

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


# --- the starts --------------------------------------------------------------------------------------------------


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def image(tmp_path):
    """The project as an image holds it: a git repository with two files."""
    folder = tmp_path / "source"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "dvc.yaml").write_text("stages: {}")
    (folder / "pipelines").mkdir()
    (folder / "pipelines/code.py").write_text("first")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def volume(tmp_path):
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def start(image, volume, path=None):
    values = {"SMOOTHMIX_SOURCE": str(image), "SMOOTHMIX_VOLUME": str(volume), "PATH": path or os.environ["PATH"]}
    command = ["sh", str(ENTRYPOINT), "echo", "the command"]
    return subprocess.run(command, env=os.environ | values, capture_output=True, text=True)


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
    broken.write_text(f"#!/bin/sh\ncat {image}/dvc.yaml > {volume}/dvc.yaml\nexit 1\n")
    broken.chmod(0o755)
    first = start(image, volume, path=f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    assert (first.returncode, first.stdout) == (1, "")
    assert first.stderr == f"error: the project could not be copied to {volume}: make room there, then start again\n"
    assert (volume / "dvc.yaml").exists()
    assert start(image, volume).returncode == 0
    assert (volume / "pipelines/code.py").exists()
    assert git(volume, "status", "--porcelain") == ""


def test_a_new_image_on_an_old_volume_is_named_and_can_be_taken_over(image, volume):
    start(image, volume)
    old = git(volume, "rev-parse", "--short", "HEAD")
    (image / "pipelines/code.py").write_text("second")
    git(image, "commit", "-qam", "second")
    new = git(image, "rev-parse", "--short", "HEAD")
    told = start(image, volume)
    assert told.returncode == 0
    assert told.stderr.startswith(f"note: the image holds commit {new}, the volume {old}, which is what runs: ")
    git(volume, "pull", "-q", str(image), "HEAD")
    assert start(image, volume).stderr == ""
    assert (volume / "pipelines/code.py").read_text() == "second"


def test_a_volume_that_cannot_be_written_is_one_line(image, volume, tmp_path):
    done = start(image, tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: user {os.getuid()} may not write to {tmp_path / 'nowhere'}: ")
    assert done.stderr.count("\n") == 1
