"""Folders that stages run in, outside DVC: parameters of their own, data prepared once for all, state kept inside."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from components import params as parameters
from components.tools.files import write_text
from pipelines import artifacts
from pipelines.cli import DONE, STOPPED_EARLY

ROOT = Path(__file__).parents[1]
DATA = artifacts.VALIDATION.parent


def read_params(workspace: Path) -> dict[str, Any]:
    """All of a workspace's parameters, including defaults."""
    return asdict(parameters.load(workspace / artifacts.PARAMS))


def write_params(workspace: Path, raw: dict[str, Any]) -> None:
    write_text(workspace / artifacts.PARAMS, yaml.safe_dump(raw, sort_keys=False))


def share_data(workspace: Path, shared: Path, raw: dict[str, Any]) -> None:
    """Link a workspace to the data of another one, which prepares it first if it is missing.

    Raises:
        ValueError: the data was prepared with other parameters, or preparing it failed.
    """
    whole = asdict(parameters.parse(raw))
    wanted = {name: whole[name] for name in ("seed", "prepare")}
    if (shared / artifacts.PARAMS).exists() and {name: read_params(shared)[name] for name in wanted} != wanted:
        raise ValueError(f"{shared} holds data prepared by other parameters: name another --out")
    if not (shared / artifacts.DESCRIPTION).exists():
        write_params(shared, raw)
        run_in(shared, "prepare")
    link = workspace / DATA
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(shared / DATA, link.parent))


def run_in(workspace: Path, stage: str, *options: str) -> int:
    """Run one stage's command in a workspace: DONE or STOPPED_EARLY.

    The stage sees no git repository, so that its state stays in the workspace and travels with it, and no tracking
    server: a benchmark is not a run to keep.

    Raises:
        ValueError: it exited with another code; it has printed the reason.
    """
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment |= {"GIT_CEILING_DIRECTORIES": str(workspace.resolve().parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"pipelines.{stage}", *options]
    code = subprocess.run(command, cwd=workspace, env=environment).returncode
    if code not in (DONE, STOPPED_EARLY):
        raise ValueError(f"{stage} exited with {code} in {workspace}")
    return code
