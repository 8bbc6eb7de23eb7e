"""Where scheduled runs happen: a git worktree of the committed project, which shares DVC's cache and the state root.

The worktree stays between runs, with its results, so that DVC sees there what is up to date; the working copy is never
touched. One run at a time.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from components.data.sources.path_table import TABLES
from components.params import Params
from components.prepare import SOURCE_OPTIONS
from components.tools.files import locked_by_name, remove, write_text
from pipelines import artifacts
from pipelines.operation.source_state import fingerprint

RESULTS_IN_GIT = [Path("dvc.lock"), artifacts.METRICS, artifacts.CURVES, artifacts.P_LOWER_ECDF]
"""Files that stages write and git tracks."""
SOURCE_NOTE = Path(".dvc/tmp/prepared_from")
"""In the worktree: the fingerprint of the source that its prepared data was made from."""


@contextmanager
def only_run(say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other scheduled run of this project is under way, here or in another container on the same volume.

    The system releases the lock when the process dies.
    """
    me = f"the run of process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
    with locked_by_name(artifacts.scheduled().with_suffix(".lock"), me, say):
        yield


def check_out(say: Callable[[str], None]) -> str:
    """Check out the working copy's commit in the worktree, keep the results of the last run, and return the commit.

    Raises:
        ValueError: the project is not a git repository, or has no commit.
    """
    try:
        commit = _git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(f"{Path.cwd()} has no git commit: scheduled runs need one, so commit the project") from None
    ours = [f":!{path}" for path in RESULTS_IN_GIT]
    if changed := _git("status", "--porcelain", "--untracked-files=no", "--", ".", *ours):
        say(f"uncommitted, so not part of this run: {', '.join(line[3:] for line in changed.splitlines())}")
    worktree = artifacts.scheduled()
    folder = artifacts.project_in(worktree)
    try:
        _update(worktree, folder, commit)
    except (OSError, subprocess.CalledProcessError):  # there is none yet, or a killed run left it broken
        remove(worktree)
        _add(worktree, commit)
    _hide_results(folder, True)
    _share_cache(folder)
    for name in ("lock", "rwlock", "rwlock.lock"):  # left by a killed run; another process may have its id now
        (folder / ".dvc/tmp" / name).unlink(missing_ok=True)
    return commit


def _add(worktree: Path, commit: str) -> None:
    _git("worktree", "prune")
    # twice --force: git holds a worktree locked while it makes it, and for ever if it is killed meanwhile
    _git("worktree", "add", "--force", "--force", "--detach", str(worktree), commit)


def _update(worktree: Path, folder: Path, commit: str) -> None:
    common = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    if _git(*common, folder=folder) != _git(*common):
        raise FileNotFoundError(f"{worktree} is a worktree of a project that this one was copied from")
    if Path(_git("rev-parse", "--show-toplevel", folder=folder)).resolve() != worktree.resolve():
        raise FileNotFoundError(f"{worktree} is no worktree: git would take the working copy instead")
    results = {path: (folder / path).read_bytes() for path in RESULTS_IN_GIT if (folder / path).exists()}
    _hide_results(folder, False)
    _git("checkout", "--quiet", "--force", "--detach", commit, folder=folder)
    for path, content in results.items():
        (folder / path).write_bytes(content)


def _hide_results(folder: Path, hide: bool) -> None:
    """Let git take the results as unchanged, or no longer: a run's provenance should report only other changes."""
    tracked = _git("ls-files", "--", *map(str, RESULTS_IN_GIT), folder=folder).splitlines()
    _git("update-index", "--skip-worktree" if hide else "--no-skip-worktree", *tracked, folder=folder)


def _share_cache(folder: Path) -> None:
    from dvc.config import Config
    from dvc.repo import Repo

    main = artifacts.state_root().parent
    if (main / ".dvc/config.local").exists():
        shutil.copy2(main / ".dvc/config.local", folder / ".dvc/config.local")
    with Repo(str(main)) as repo:
        cache = repo.cache.legacy.path
    with Config(str(folder / ".dvc")).edit("local") as config:
        config.setdefault("cache", {})["dir"] = cache
        if _git("rev-parse", "--show-superproject-working-tree"):  # of a submodule's worktree, DVC misreads the root
            config.setdefault("core", {})["no_scm"] = True


@contextmanager
def passing(commit: str) -> Iterator[Path]:
    """A worktree for a single command, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="worktree-") as temporary:
        folder = Path(temporary) / "project"
        _add(folder, commit)
        try:
            yield artifacts.project_in(folder)
        finally:
            _git("worktree", "remove", "--force", str(folder))


def is_known(commit: str) -> bool:
    """Whether a commit is one of this repository's."""
    return subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode == 0


def source_state(params: Params) -> str:
    """Changes whenever the files of the source do; always the same for a source without files."""
    settings = params.prepare
    if "root" not in SOURCE_OPTIONS[settings.source]:
        return settings.source
    root = artifacts.source_root(settings.root)
    return fingerprint(root.parent if settings.source == "table" and root.suffix in TABLES else root)


def prepared_from(folder: Path) -> str | None:
    """The source's state that the worktree's data was prepared from."""
    note = folder / SOURCE_NOTE
    return note.read_text(encoding="utf-8") if note.exists() else None


def note_prepared_from(folder: Path, state: str) -> None:
    write_text(folder / SOURCE_NOTE, state)


def _git(*arguments: str, folder: Path | None = None) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.rstrip()
