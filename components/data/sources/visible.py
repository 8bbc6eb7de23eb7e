"""Which files of a folder belong to the source: one rule for listing images, unpacking archives, detecting changes."""

import os
from collections.abc import Iterator
from pathlib import Path

LEFT_BY_SYSTEMS = {
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "@eadir",
}
"""In lower case."""


def is_skipped(name: str) -> bool:
    """Whether an operating system or editor left this file or folder: .DS_Store, ._cat.jpg, .#lock, __MACOSX,
    Thumbs.db, desktop.ini."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def visible(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """The entries of a folder that are not skipped, sorted by name."""
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if not is_skipped(entry.name)), key=lambda entry: entry.name)
