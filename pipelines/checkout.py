"""Where the project lies in git: the folder that all its worktrees share."""

import os
import subprocess
from pathlib import Path


def main_project(folder: Path) -> Path:
    """The project that `folder` belongs to, in the main checkout: the same seen from every worktree.

    The project is where dvc.yaml lies, which may be a subfolder of a bigger repository. A submodule is a checkout of
    its own. Worktrees of a bare repository share the folder around it where its name hides (.bare), or else its own.
    Without git it is the folder itself.
    """
    found = _git("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--show-toplevel", cwd=folder)
    if found is None:
        return folder
    git_dir, common, top = map(Path, found.splitlines())
    return (top if git_dir == common else _main_checkout(common)) / path_in_repository(folder)


def path_in_repository(folder: Path) -> Path:
    """The project's folder as seen from the top of its checkout: `.` for most, and where no folder has a dvc.yaml."""
    top = _git("rev-parse", "--show-toplevel", cwd=folder)
    if top is None:
        return Path()
    inside = folder.resolve().relative_to(Path(top).resolve())
    return next((path for path in (inside, *inside.parents) if (Path(top) / path / "dvc.yaml").exists()), Path())


def _main_checkout(common: Path) -> Path:
    """The main checkout of a linked worktree, by the repository that both share."""
    worktree = _git(f"--git-dir={common}", "config", "core.worktree", cwd=common)  # a submodule's
    if worktree is not None:
        return (common / worktree).resolve()
    return common.parent if common.name.startswith(".") else common


def _git(*arguments: str, cwd: Path) -> str | None:
    """What git says; None where it is not installed or has no answer.

    Where the project lies is a question of its folder: GIT_DIR and the like, which a hook sets, do not count.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SET_BY_GIT}
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


_SET_BY_GIT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"}
