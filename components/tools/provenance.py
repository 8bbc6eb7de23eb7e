"""Provenance of a result: commit, hardware and versions, for readers. No result depends on it."""

import os
import platform
import subprocess
from importlib.metadata import version

import torch


def provenance() -> dict[str, str]:
    """Commit, hardware and versions of this process; where there is no repository, GIT_COMMIT may name the commit."""
    return {
        "git_commit": _git("rev-parse", "HEAD") or os.environ.get("GIT_COMMIT", "none"),
        "git_state": "clean" if _git("status", "--porcelain", "--untracked-files=no") == "" else "uncommitted changes",
        **versions(),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def versions() -> dict[str, str]:
    """Of what computes: numbers may differ in their last digits between versions."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "scipy")}}


def _git(*arguments: str) -> str | None:
    """What git prints, or None where there is no git or no repository."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
