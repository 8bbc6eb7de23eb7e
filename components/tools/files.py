"""Files that are there whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name and move into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@contextmanager
def replaced(*paths: Path) -> Iterator[list[Path]]:
    """Temporary places for files or folders that belong together, moved onto `paths` when the block succeeds.

    When it fails, they are removed and what was at `paths` stays as it was.
    """
    places = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in paths]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield places
        for place, path in zip(places, paths, strict=True):
            remove(path)
            place.replace(path)
    finally:
        for place in places:
            remove(place)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made; the system lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_CLAIMED: list[IO[str]] = []


def claim(folder: Path) -> None:
    """Have a folder for this process alone until it ends, waiting for another process that has it."""
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for the process that has {folder}", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    _CLAIMED.append(file)  # closed, and so unlocked, by the system


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
