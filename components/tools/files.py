"""Files that are there whole or not at all, and locks that end with the process that holds them."""

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
"""How the names of unfinished files and folders end; `python -m pipelines.state prune` removes those left behind."""


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name and move into place.

    Raises:
        OSError: the disk is full or not writable, in one line; what was at `path` stays as it was.
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
    """Say of a failure which file it was about and what to do."""
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
    """Temporary places for files or folders that belong together, moved onto `paths` when the block succeeds.

    When the block or a move fails, all of what was at `paths` is there as it was. No system call moves several at
    once, so a process that is killed between two moves leaves some of them moved, and at one of `paths` perhaps
    nothing; it also leaves a note, by which the next call for the same paths finishes the moves before its block runs.
    Killed before the first move, it leaves `paths` as they were and the places as rubbish. One process at a time may
    do this for the same paths: the caller sees to that.

    Raises:
        OSError: something cannot be moved, in one line.
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
        if not note.exists():  # else the moves could not be undone either, and the next call needs the places
            for place in places:
                remove(place)


def _beside(paths: tuple[Path, ...], token: str) -> tuple[list[Path], list[Path]]:
    """Where the new ones wait before they are moved in, and the old ones after they are moved out."""
    return (
        [path.with_name(f"{path.name}.{token}{TEMPORARY}") for path in paths],
        [path.with_name(f"{path.name}.{token}.old{TEMPORARY}") for path in paths],
    )


def _finish_moves(paths: tuple[Path, ...], note: Path) -> None:
    """Move out what is old and in what is new, whatever of it was done already; without the note, all of it is done."""
    places, old = _beside(paths, note.read_text(encoding="utf-8"))
    for path, place, aside in zip(paths, places, old, strict=True):
        if _is_there(place):
            if _is_there(path):
                path.replace(aside)
            place.replace(path)
        elif _is_there(aside) and not _is_there(path):  # undone by a call that was killed in it
            aside.replace(path)
    note.unlink()
    with suppress(OSError):  # all is in place: what cannot be removed is left to `python -m pipelines.state prune`
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
    """Hold an exclusive lock on a file, which is made. The system lets go of it when the process dies.

    The thread that holds it may take it again; other threads wait as other processes do.

    Args:
        silence: seconds after which a wait is worth a line.
    """
    say = partial(print, f"waiting for the process that has {path}", flush=True)
    lock = _acquired(FileLock, path, say, silence)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_by_name(path: Path, holder: str, say: Callable[[str], None]) -> Iterator[None]:
    """As `locked`; whoever waits is told who the holder is."""
    note = path.with_suffix(".holder")
    known = partial(note.read_text, encoding="utf-8")
    lock = _acquired(FileLock, path, lambda: say(f"waiting for {known() if note.exists() else 'another process'}"))
    try:
        write_text(note, holder)
        yield
    finally:
        lock.release()


_CLAIMED: dict[Path, FileLock] = {}


def claim(folder: Path) -> None:
    """Have a folder for this process alone until it ends, waiting for another process that has it.

    What this process has claimed already, in whatever thread, it has at once.
    """
    path = folder.with_name(f"{folder.name}.lock").resolve()
    if path not in _CLAIMED:
        of_the_process = partial(FileLock, thread_local=False)
        say = partial(print, f"waiting for the process that has {folder}", flush=True)
        _CLAIMED[path] = _acquired(of_the_process, path, say)  # let go of by the system


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
    """Whether nobody else holds the lock of this file; if so, nobody gets it within the block."""
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
    """Whether a process that lives holds the lock of this file, this one included. Makes no file."""
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
        ValueError: naming the file and the remedy, when it is missing, torn or has other keys.
    """
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None
