"""Atomic writes of files and folders, and locks that the system releases when their holder dies."""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")

TEMPORARY = ".tmp"
"""Suffix of unfinished files and folders; `python -m pipelines.state prune` removes those left behind."""


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name and move into place.

    Raises:
        OSError: the disk is full or not writable, in one line; the old file at `path` stays unchanged.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file's name and a remedy to an OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}): make room or mend its folder, and run the same "
            "command again"
        ) from None


# --- groups of files and folders -------------------------------------------------------------------------------------


@contextmanager
def replaced(*paths: Path) -> Iterator[list[Path]]:
    """Give temporary paths for files or folders that belong together; move them onto `paths` if the block succeeds.

    If the block or a move fails, `paths` keep their old contents. No system call moves several files at once, so a
    process that is killed between two moves leaves some paths moved and perhaps one path missing. It also leaves a
    note, with which the next call for the same paths finishes the moves before its block runs. A process that is killed
    before the first move leaves `paths` unchanged and the temporary files behind. The caller must ensure that only one
    process at a time does this for the same paths.

    Raises:
        OSError: a file or folder cannot be moved, in one line.
    """
    note = paths[0].with_name(f"{paths[0].name}.moving{TEMPORARY}")
    with _naming(paths[0]):
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        if note.exists():
            _finish_moves(paths, note)
    token = secrets.token_hex(8)
    places, _ = _beside(paths, token)
    try:
        yield places
        if missing := [str(path) for path, place in zip(paths, places, strict=True) if not _is_there(place)]:
            raise FileNotFoundError(f"nothing was made for {', '.join(missing)}: this is a fault of the program")
        write_text(note, token)
        with _naming(paths[0]):
            try:
                _finish_moves(paths, note)
            except BaseException:
                _undo_moves(paths, note)
                raise
    finally:
        if not note.exists():  # else undoing the moves failed too, and the next call needs these files
            for place in places:
                remove(place)


def _beside(paths: tuple[Path, ...], token: str) -> tuple[list[Path], list[Path]]:
    """The temporary paths of the new contents, and those that the old contents are moved to."""
    return (
        [path.with_name(f"{path.name}.{token}{TEMPORARY}") for path in paths],
        [path.with_name(f"{path.name}.{token}.old{TEMPORARY}") for path in paths],
    )


def _finish_moves(paths: tuple[Path, ...], note: Path) -> None:
    """Move the old contents out and the new ones in, skip moves that are done, and remove the note at the end."""
    places, old = _beside(paths, note.read_text(encoding="utf-8"))
    for path, place, aside in zip(paths, places, old, strict=True):
        if _is_there(place):
            if _is_there(path):
                path.replace(aside)
            place.replace(path)
        elif _is_there(aside) and not _is_there(path):  # a call was killed while it undid the moves
            aside.replace(path)
    note.unlink()
    with suppress(OSError):  # all moves are done: `python -m pipelines.state prune` removes what is left here
        for aside in old:
            remove(aside)


def _undo_moves(paths: tuple[Path, ...], note: Path) -> None:
    if not note.exists():  # all are moved
        return
    places, old = _beside(paths, note.read_text(encoding="utf-8"))
    for path, place, aside in zip(paths, places, old, strict=True):
        if _is_there(path) and not _is_there(place):
            path.replace(place)
        if _is_there(aside):
            aside.replace(path)
    note.unlink()


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- locks -----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, silence: float = 10.0) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created. The system releases the lock when the process dies.

    The thread that holds it may take it again; other threads wait as other processes do.

    Args:
        silence: seconds to wait before a line is printed.
    """
    say = partial(print, f"waiting for the process that has {path}", flush=True)
    lock = _acquired(FileLock, path, say, silence)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_by_name(path: Path, holder: str, say: Callable[[str], None]) -> Iterator[None]:
    """As `locked`; a process that waits is told who the holder is."""
    note = path.with_suffix(".holder")
    known = partial(note.read_text, encoding="utf-8")
    lock = _acquired(FileLock, path, lambda: say(f"waiting for {known() if note.exists() else 'another process'}"))
    try:
        write_text(note, holder)
        yield
    finally:
        lock.release()


_CLAIMED: dict[Path, FileLock] = {}


def lock_of(path: Path) -> Path:
    """The lock of a folder or a file, beside it."""
    return path.with_name(f"{path.name}.lock")


def claim(folder: Path) -> None:
    """Lock a folder or a file for this process until it ends; wait if another process holds it.

    A folder that any thread of this process has claimed already is granted at once.
    """
    path = lock_of(folder).resolve()
    if path not in _CLAIMED:
        of_the_process = partial(FileLock, thread_local=False)
        say = partial(print, f"waiting for the process that has {folder}", flush=True)
        _CLAIMED[path] = _acquired(of_the_process, path, say)  # the system releases it


def _acquired(kind: Callable[..., FileLock], path: Path, say: Callable[[], None], silence: float = 1.0) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = kind(path, is_singleton=True)
    try:
        lock.acquire(timeout=silence)
    except Timeout:
        say()
        lock.acquire()
    return lock


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Give True if nobody else holds the lock of this file; the block then holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a living process, this one included, holds the lock of this file. Creates no file."""
    if not path.exists():
        return False
    with free(path) as nobody:
        return not nobody


# --- JSON ------------------------------------------------------------------------------------------------------------


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    return read_record(path, remedy, dict)


def read_record(path: Path, remedy: str, kind: type[T]) -> T:
    """A JSON object as `kind`, a dataclass or a dict.

    Raises:
        ValueError: the file is missing, torn or has other keys; the message names the file and the remedy.
    """
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None
