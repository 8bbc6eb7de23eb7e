"""Where the project lies in git: its folder in the main checkout, which all its worktrees share."""

import os
import subprocess
from pathlib import Path


def main_project(folder: Path) -> Path:
    """The folder in the main checkout of the project that `folder` belongs to; the same for every worktree.

    The project is the folder with dvc.yaml, which may be a subfolder of a larger repository. A submodule counts as a
    checkout of its own. Worktrees of a bare repository share its parent folder if its name starts with a dot (.bare),
    else the repository's own folder. Without git the result is `folder` itself.
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


def last_commit(folder: Path) -> str | None:
    """The short name of the commit that `folder` is checked out at; None without git, and before the first commit."""
    return _git("rev-parse", "--short", "--verify", "HEAD", cwd=folder)


def committed(path: Path, folder: Path) -> str:
    """The text of a file, by its path from `folder`, as the last commit has it; empty where it has none."""
    return (_output("show", f"HEAD:./{path.as_posix()}", cwd=folder) or b"").decode("utf-8", errors="replace")


def _main_checkout(common: Path) -> Path:
    """The main checkout of a linked worktree, by the repository that both share."""
    worktree = _git(f"--git-dir={common}", "config", "core.worktree", cwd=common)  # a submodule's
    if worktree is not None:
        return (common / worktree).resolve()
    return common.parent if common.name.startswith(".") else common


def _git(*arguments: str, cwd: Path) -> str | None:
    """The line or lines that git prints; None if git is not installed or fails."""
    printed = _output(*arguments, cwd=cwd)
    return None if printed is None else os.fsdecode(printed).rstrip("\n")


def _output(*arguments: str, cwd: Path) -> bytes | None:
    """git's output; None if git is not installed or fails.

    Only the folder decides where the project lies: GIT_DIR and similar variables, which hooks set, are ignored.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _SET_BY_GIT}
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


_SET_BY_GIT = {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"}
