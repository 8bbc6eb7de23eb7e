"""Copies of the project that real commands run in."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.warm_start import PYTHON

ROOT = Path(__file__).parents[2]
SLICE = {
    r"epochs: \d+": "epochs: 2",
    r"\n  n: \d+": "\n  n: 200",
    r"every: 1\b": "every: 30",
    r"attack_steps: \d": "attack_steps: 1",
    r'\n  "0.25":(\n    .*)*': "",
    r'\n  "0.5":(\n    .*)*': '\n  "0.5":\n    smoothmix: {attack_steps: 1}',
}


def copy_project(folder: Path) -> Path:
    """The project's files with a recipe for seconds, in a git repository of their own."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists() and name != "dvc.lock" and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    edit(folder / "params.yaml", SLICE)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "0"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def copy_results(project: Path, folder: Path) -> Path:
    """A project with its results, without its state."""
    return shutil.copytree(project, folder / "copy", ignore=shutil.ignore_patterns(".state"))


def edit(path: Path, changes: dict[str, str]) -> None:
    text = path.read_text()
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    path.write_text(text)


def environment() -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    values = os.environ | {"PATH": bin_folder + os.pathsep + os.environ["PATH"], "DVC_NO_ANALYTICS": "1"}
    # neither this shell's server, nor what importing our MLflow code has set in this process
    ours = ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    return {name: value for name, value in values.items() if name not in ours}


def run(project: Path, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; python starts warm."""
    if command[0] == sys.executable:
        command = (*PYTHON, *command[1:])
    return subprocess.run(command, cwd=project, env=environment() | extra, capture_output=True, text=True)


def stages_run(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that `dvc repro` ran, or would run with --dry."""
    assert result.returncode == 0, result.stdout + result.stderr
    return re.findall(r"Running stage '(.+)'", result.stdout)


def kill_when(ready: Callable[[], object], project: Path, command: list[str]) -> None:
    """Run a command and kill -9 it as soon as it is `ready`."""
    process = subprocess.Popen(command, cwd=project, env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and not ready():
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
