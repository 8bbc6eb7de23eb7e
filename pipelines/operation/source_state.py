"""Whether the files of a source may have changed, without reading them."""

import os
from collections.abc import Iterator
from pathlib import Path

from components.tools.hashing import hash_value


def fingerprint(root: Path) -> str:
    """SHA-256 over names, sizes and times of change of an archive, or of all files under a folder.

    Equal when nothing was added, removed or written; also defined where there is nothing.
    """
    paths = [root] if root.is_file() else sorted(_files(root))
    facts = [(path, path.stat()) for path in paths]
    return hash_value([(str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns) for path, stat in facts])


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (Path(parent, name) for name in names)
