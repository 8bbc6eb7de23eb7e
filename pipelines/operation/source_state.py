"""Whether the files of a source may have changed, without reading them."""

from collections.abc import Iterator
from pathlib import Path

from components.data.sources.visible import visible
from components.tools.hashing import hash_value


def fingerprint(root: Path) -> str:
    """SHA-256 over name, size and modification time of an archive, or of all files under a folder.

    It stays equal if nothing was added, removed or written, and is defined even if nothing is there. It skips what the
    prepare stage skips.
    """
    return hash_value([_facts(root, ".")] if root.is_file() else list(_walk(root)))


def _walk(root: Path) -> Iterator[tuple[str, int, int]]:
    """The facts of all files and folders under a folder.

    Links are followed, as the prepare stage does, and each folder is entered once, however many links lead to it.
    """
    entered, waiting = set(), [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            entries = list(visible(folder))
        except OSError:  # missing or not to be read: the prepare stage says so
            continue
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = Path(entry.path)
            yield _facts(path, str(path.relative_to(root)))
            if path.is_dir():
                waiting.append(path)


def _facts(path: Path, name: str) -> tuple[str, int, int]:
    """Name, size and modification time; only the name of a folder or of a broken link."""
    try:
        status = path.stat()
    except OSError:
        return name, -1, -1
    return (name, -1, 0) if path.is_dir() else (name, status.st_size, status.st_mtime_ns)
