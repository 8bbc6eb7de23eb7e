"""Folders inside archives, unpacked defensively: an archive is a list of paths to write to that somebody else chose."""

import errno
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from components.data.sources.visible import is_skipped, visible

MAX_MEMBERS = 2_000_000
MAX_BYTES = 2**36
"""64 GiB unpacked; the free space of the temporary folder may allow less."""
NAMES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
MORE_SPACE = "set TMPDIR to a folder with more space, or unpack it by hand and set prepare.root to the folder"


@contextmanager
def open_folder(root: Path, is_it: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """Give the folder itself, or a temporary folder with an archive's contents, which is removed when the block ends.

    If an archive has exactly one folder at its top, that folder is given, whatever files lie beside it, unless the top
    itself is what is looked for.

    Args:
        is_it: whether a folder is what is looked for.

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
        yield folders[0] if len(folders) == 1 and not is_it(folder) else folder


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

    Raises:
        ValueError: naming the archive, the member where it is one's fault, and the remedy.
    """
    try:
        (_unpack_zip if archive.name.endswith(".zip") else _unpack_tar)(archive, folder)
    except OSError as error:
        remedy = MORE_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else "pack it again"
        raise ValueError(f"{archive} cannot be unpacked ({error.strerror or error}): {remedy}") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}): pack it again") from None


class _Bounds:
    """What an archive may hold, counted member by member before the member is unpacked."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.limit = archive, min(MAX_BYTES, shutil.disk_usage(folder).free)
        self.members = self.unpacked = 0

    def admits(self, name: str, size: int) -> bool:
        """Whether to unpack a member: False where `is_skipped` skips it. Raises ValueError beyond the bounds."""
        self.members, self.unpacked = self.members + 1, self.unpacked + size
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self.archive}: {name!r} leads out of the archive: pack relative paths")
        if self.members > MAX_MEMBERS or self.unpacked > self.limit:
            raise ValueError(
                f"{self.archive} holds more than {MAX_MEMBERS} members or {self.limit >> 20} MiB: {MORE_SPACE}"
            )
        return not any(map(is_skipped, path.parts))


def _unpack_tar(archive: Path, folder: Path) -> None:
    bounds = _Bounds(archive, folder)
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not bounds.admits(member.name, member.size):
                continue
            if not (member.isreg() or member.isdir()):
                raise ValueError(f"{archive}: {member.name!r} is a link or a device: pack plain files and folders")
            tar.extract(member, folder, filter="data")


def _unpack_zip(archive: Path, folder: Path) -> None:
    """Reading a member ends at the size that the archive states, so that the bounds hold for what is written too."""
    bounds = _Bounds(archive, folder)
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if not bounds.admits(member.filename, member.file_size):
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{archive}: {member.filename!r} is a link or a device: pack plain files and folders")
            if member.flag_bits & 1:
                raise ValueError(f"{archive}: {member.filename!r} is encrypted: pack it without a password")
            packed.extract(member, folder)
