"""Folders inside archives, unpacked defensively: an archive is a list of paths to write to that somebody else chose."""

import errno
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from components.data.sources.visible import is_skipped, visible

MAX_MEMBERS = 2_000_000
MAX_BYTES = 2**36
"""64 GiB unpacked; the free space of the temporary folder may allow less."""
NAMES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
MORE_SPACE = "set TMPDIR to a folder with more space, or unpack it by hand and set prepare.root to the folder"


@contextmanager
def open_folder(root: Path) -> Iterator[Path]:
    """Give the folder itself, or a temporary folder with an archive's contents, which is removed when the block ends.

    If an archive has exactly one folder at its top, that folder is given, whatever files lie beside it.

    Raises:
        ValueError: naming the archive and what is wrong with it.
    """
    if root.is_dir():
        yield root
        return
    if not root.exists():
        raise ValueError(f"prepare.root is {root}: there is no such folder or archive")
    if not root.name.endswith(NAMES):
        raise ValueError(f"prepare.root is {root}: must be a folder or an archive ({', '.join(NAMES)})")
    with _temporary_folder(root) as folder:
        unpack(root, folder)
        folders = [Path(entry.path) for entry in visible(folder) if entry.is_dir()]
        yield folders[0] if len(folders) == 1 else folder


@contextmanager
def _temporary_folder(archive: Path) -> Iterator[Path]:
    try:
        temporary = tempfile.TemporaryDirectory(prefix="images-")
    except OSError as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}): {MORE_SPACE}") from None
    with temporary as name:
        yield Path(name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack plain files and folders with relative paths, refuse all others, and stop once the limits are exceeded.

    Names that `is_skipped` skips are not unpacked.
    """
    limit = min(MAX_BYTES, shutil.disk_usage(folder).free)
    members = unpacked = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                members, unpacked = members + 1, unpacked + member.size
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"{archive}: {member.name!r} leads out of the archive: pack relative paths")
                if members > MAX_MEMBERS or unpacked > limit:
                    raise ValueError(
                        f"{archive} holds more than {MAX_MEMBERS} members or {limit >> 20} MiB: {MORE_SPACE}"
                    )
                if any(map(is_skipped, path.parts)):
                    continue
                if not (member.isreg() or member.isdir()):
                    raise ValueError(f"{archive}: {member.name!r} is a link or a device: pack plain files and folders")
                tar.extract(member, folder, filter="data")
    except OSError as error:
        remedy = MORE_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else "pack it again"
        raise ValueError(f"{archive} cannot be unpacked ({error.strerror or error}): {remedy}") from None
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}): pack it again") from None
