"""Archives as sources: as good as their folders, and nothing leads out of them."""

import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from components.data.sources import archive as archive_module
from tests.support.image_folders import read

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["pets.tar", "pets.tar.gz", "pets.tgz", "pets.tar.xz"])
@pytest.mark.parametrize("top", ["", "pets/"])
def test_an_archive_is_as_good_as_its_folder(pets, tmp_path, name, top):
    with tarfile.open(tmp_path / name, "w:" + {"tar": "", "tgz": "gz"}.get(name.split(".")[-1], name[-2:])) as tar:
        for path in sorted(pets.iterdir()):
            tar.add(path, f"{top}{path.name}")
    packed, folder = read(tmp_path / name), read(pets)
    assert np.array_equal(packed.images, folder.images)
    assert packed.classes == folder.classes
    assert packed.origin == folder.origin


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
    return info, io.BytesIO(b"pwned")


BAD_MEMBERS = {
    "absolute path": (member("/tmp/smoothmix-pwned"), "leads out of the archive"),
    "path upwards": (member("cat/../../smoothmix-pwned"), "leads out of the archive"),
    "symbolic link": (member("cat/link.jpg", tarfile.SYMTYPE, "/etc/hostname"), "is a link or a device"),
    "hard link": (member("cat/link.jpg", tarfile.LNKTYPE, "cat/0.jpg"), "is a link or a device"),
    "device": (member("cat/null.jpg", tarfile.CHRTYPE), "is a link or a device"),
    "pipe": (member("cat/pipe.jpg", tarfile.FIFOTYPE), "is a link or a device"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_an_archive_that_reaches_outside_is_refused_by_member(pets, tmp_path, bad, message):
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(pets, ".")
        tar.addfile(*bad)
    with pytest.raises(ValueError, match=message) as refusal:
        read(path)
    assert repr(bad[0].name) in str(refusal.value)
    assert not Path("/tmp/smoothmix-pwned").exists()


@pytest.mark.parametrize(("bound", "value"), [("MAX_MEMBERS", 5), ("MAX_BYTES", 4_000)])
def test_an_archive_beyond_its_bounds_is_refused_before_it_is_unpacked(pets, tmp_path, monkeypatch, bound, value):
    path = tmp_path / "large.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(pets, ".")
    monkeypatch.setattr(archive_module, bound, value)
    (tmp_path / "target").mkdir()
    with pytest.raises(ValueError, match=r"holds more than .* unpack it by hand"):
        archive_module.unpack(path, tmp_path / "target")
    assert sum(file.stat().st_size for file in (tmp_path / "target").rglob("*.jpg")) <= 4_000


@pytest.mark.parametrize("suffix", ["tar", "gz", "xz"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_torn_archive_is_refused_and_leaves_nothing(pets, tmp_path, monkeypatch, suffix, keep):
    path = tmp_path / f"torn.{'' if suffix == 'tar' else 'tar.'}{suffix}"
    with tarfile.open(path, f"w:{'' if suffix == 'tar' else suffix}") as tar:
        tar.add(pets, ".")
    last = path.stat().st_size - (10_240 if suffix == "tar" else 0)  # a tar ends in blocks of zeros
    path.write_bytes(path.read_bytes()[: int(keep * last)])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        read(path)
    assert not list((tmp_path / "temporary").iterdir())


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "pets.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"pets.rar: must be a folder or an archive \(.tar, .*, .zip\)"):
        read(tmp_path / "pets.rar")


# --- zip ---------------------------------------------------------------------------------------------------------


def zipped(folder: Path, target: Path, top: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, f"{top}{path.relative_to(folder)}")
    return target


@pytest.mark.parametrize("top", ["", "pets/"])
def test_a_zip_is_as_good_as_its_folder(pets, tmp_path, top):
    (pets / "Thumbs.db").write_bytes(b"")
    packed, folder = read(zipped(pets, tmp_path / "pets.zip", top)), read(pets)
    assert np.array_equal(packed.images, folder.images)
    assert (packed.classes, packed.paths) == (folder.classes, folder.paths)


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("cat/link.jpg")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/tmp/smoothmix-pwned", "leads out of the archive"),
        ("cat/../../smoothmix-pwned", "leads out of the archive"),
        (link(), "is a link or a device"),
    ],
    ids=["absolute", "upwards", "link"],
)
def test_a_zip_that_reaches_outside_is_refused_by_member(pets, tmp_path, name, message):
    path = zipped(pets, tmp_path / "bad.zip")
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(name, "/etc/hostname")
    with pytest.raises(ValueError, match=message):
        read(path)
    assert not Path("/tmp/smoothmix-pwned").exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(pets, tmp_path, monkeypatch):
    (pets / "cat/zeros.png").write_bytes(bytes(2**24))
    path = zipped(pets, tmp_path / "bomb.zip")
    assert path.stat().st_size < 2**16
    monkeypatch.setattr(archive_module, "MAX_BYTES", 2**23)
    (tmp_path / "target").mkdir()
    with pytest.raises(ValueError, match=r"holds more than .* or 8 MiB: .* unpack it by hand"):
        archive_module.unpack(path, tmp_path / "target")
    assert not list((tmp_path / "target").rglob("zeros.png"))


def test_a_zip_that_lies_about_a_size_is_refused(pets, tmp_path):
    """The directory says 10 bytes, the member holds more: what is written ends there, and its checksum is wrong."""
    path = zipped(pets, tmp_path / "lie.zip")
    data, entry = bytearray(path.read_bytes()), zipfile.ZipFile(path).getinfo("cat/0.jpg")
    at = data.index(b"PK\x01\x02", zipfile.ZipFile(path).start_dir)
    while data[at + 46 : at + 46 + len(entry.filename)] != entry.filename.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"lie.zip cannot be unpacked \(Bad CRC-32 .*: pack it again"):
        read(path)


def test_an_encrypted_zip_and_a_torn_one_are_refused(pets, tmp_path):
    path = zipped(pets, tmp_path / "pets.zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"pets.zip cannot be unpacked \(File is not a zip file\): pack it again"):
        read(path)
    locked = bytearray(whole)
    at = locked.index(b"PK\x01\x02")
    while at >= 0:
        locked[at + 8] |= 1
        at = locked.find(b"PK\x01\x02", at + 4)
    path.write_bytes(locked)
    with pytest.raises(ValueError, match="is encrypted: pack it without a password"):
        read(path)
