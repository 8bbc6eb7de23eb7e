"""Folders and archives as people have them: what systems leave beside images, names, links, layouts, little memory."""

import errno
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.picture_forms import Form
from components.data.sources import archive, image_folder, imagenet, memory
from pipelines.operation.source_state import fingerprint

LEFT_BESIDE = [".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "ehthumbs.db", "Icon\r"]


@pytest.fixture
def pets(tmp_path):
    """Two classes of four images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def read(folder: Path, test_share: float | None = 0.25):
    return image_folder(folder, test_share=test_share, form=Form(3, 8, 8))


def leave_beside(folder: Path) -> None:
    """What systems and editors leave, in the folder, in a class and as folders of their own."""
    for name in LEFT_BESIDE:
        (folder / name).write_bytes(b"")
        (folder / "cat" / name).write_bytes(b"")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/._cat").write_bytes(b"")
    (folder / "cat/@eaDir").mkdir()
    (folder / "cat/.#000.png").symlink_to("user@host.1:2")  # the lock of an editor


def test_what_systems_and_editors_leave_is_skipped_and_changes_nothing(pets):
    before, state = read(pets), fingerprint(pets)
    leave_beside(pets)
    assert np.array_equal(read(pets).images, before.images)
    assert fingerprint(pets) == state
    assert before.paths[:2] == ["cat/0.png", "cat/1.png"]


# --- links -------------------------------------------------------------------------------------------------------


def test_links_that_lead_back_are_followed_once(pets):
    for number in range(40):  # each path through them would be another
        (pets / f"cat/link{number}").symlink_to("..")
    (pets / "dog/itself").symlink_to("itself")
    state = fingerprint(pets)
    assert fingerprint(pets) == state
    (pets / "dog/new.png").write_bytes(b"")
    assert fingerprint(pets) != state


def test_a_link_to_images_elsewhere_is_followed_and_one_to_nowhere_is_noticed(pets, tmp_path):
    elsewhere = shutil.move(pets / "dog", tmp_path / "elsewhere")
    (pets / "dog").symlink_to(elsewhere)
    states = [fingerprint(pets)]
    (tmp_path / "elsewhere/0.png").write_bytes(b"changed")
    states.append(fingerprint(pets))
    (pets / "bird").symlink_to(elsewhere)  # a class more, of a folder that is there already
    states.append(fingerprint(pets))
    (pets / "cat/9.png").symlink_to("nowhere")
    states.append(fingerprint(pets))
    (pets / "cat/nowhere").write_bytes(b"")
    states.append(fingerprint(pets))
    assert len(set(states)) == len(states)


# --- names -------------------------------------------------------------------------------------------------------


def test_names_with_any_space_or_script_are_read(pets):
    (pets / "cat/0.png").rename(pets / "cat/Screenshot 10.00.00\u202fAM.png")
    (pets / "cat/1.png").rename(pets / "cat/\u2028\u200e\U000f0000 ねこ.png")
    (pets / "dog").rename(pets / "Golden\u00a0Retriever")
    source = read(pets)
    assert source.classes == ["Golden\u00a0Retriever", "cat"]
    assert "cat/Screenshot 10.00.00\u202fAM.png" in source.paths


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b"a\tb.png", "a line break or another control character"),
        (b"a\nb.png", "a line break or another control character"),
        (b"a\x7fb.png", "a line break or another control character"),
        ("a\u0085b.png".encode(), "a line break or another control character"),
        (b"caf\xe9.png", "not in UTF-8"),
    ],
)
def test_names_that_no_list_can_hold_are_refused(pets, name, problem):
    os.rename(pets / "cat/0.png", os.path.join(os.fsencode(pets / "cat"), name))
    with pytest.raises(ValueError, match=problem) as refusal:
        read(pets)
    assert str(refusal.value).isprintable()


# --- layouts -----------------------------------------------------------------------------------------------------


def test_a_single_folder_that_is_called_train_is_a_class(pets):
    (pets / "dog").rename(pets / "train")
    assert read(pets).classes == ["cat", "train"]


def test_imagenet_says_which_folder_it_lacks(pets):
    with pytest.raises(ValueError, match="has no folder train nor val of class folders"):
        imagenet(pets)


# --- archives ----------------------------------------------------------------------------------------------------


def packed(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return target


def test_an_archive_from_a_mac_with_a_readme_beside_the_folder_is_as_good_as_the_folder(pets, tmp_path):
    expected = read(pets)
    leave_beside(pets)
    (tmp_path / "top").mkdir()
    shutil.move(pets, tmp_path / "top/pets")
    for name in ("._pets", ".DS_Store", "README.md"):
        (tmp_path / "top" / name).write_text("x")
    (tmp_path / "top/__MACOSX").mkdir()
    source = read(packed(tmp_path / "top", tmp_path / "pets.tgz"))
    assert np.array_equal(source.images, expected.images)
    assert source.paths == expected.paths


def test_what_is_wrong_with_an_archive_names_it_and_no_temporary_folder(pets, tmp_path):
    (tmp_path / "top").mkdir()
    shutil.copytree(pets / "cat", tmp_path / "top/one/cat")
    own = tmp_path / "own"
    shutil.copytree(pets, own / "train")
    shutil.copytree(pets / "cat", own / "test/cat")
    for folder, share, message in (
        (tmp_path / "top", 0.25, "at least two classes: it has only cat"),
        (own, None, "class folders in train or test but not in both: dog"),
    ):
        path = packed(folder, tmp_path / f"{folder.name}.tar.gz")
        with pytest.raises(ValueError, match=message) as refusal:
            read(path, share)
        assert str(refusal.value).startswith(str(path))
        assert "images-" not in str(refusal.value)


def test_a_full_temporary_folder_is_no_fault_of_the_archive(pets, tmp_path, monkeypatch):
    path = packed(pets, tmp_path / "pets.tar.gz")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{tmp_path}/temporary/images-x/cat/0.png")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(ValueError, match=r"\(No space left on device\): set TMPDIR to a folder with more") as refusal:
        read(path)
    assert "pack it again" not in str(refusal.value)
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"pets.tar.gz cannot be unpacked .*: set TMPDIR to a folder"):
        read(path)


@pytest.mark.parametrize(("bound", "value"), [("MAX_MEMBERS", 5), ("MAX_BYTES", 400)])
def test_skipped_members_count_towards_an_archive_s_bounds(pets, tmp_path, monkeypatch, bound, value):
    for i in range(9):
        (pets / f"cat/._{i}").write_bytes(bytes(100))
    monkeypatch.setattr(archive, bound, value)
    (tmp_path / "target").mkdir()
    with pytest.raises(ValueError, match="holds more than"):
        archive.unpack(packed(pets, tmp_path / "pets.tar.gz"), tmp_path / "target")


# --- memory ------------------------------------------------------------------------------------------------------


def control_groups(folder: Path, monkeypatch, own: str, limits: dict[str, str]) -> None:
    """A tree of control groups as Linux shows it."""
    (folder / "own").write_text(own)
    for name, limit in limits.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit + "\n")
    monkeypatch.setattr(memory, "CGROUPS", folder / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUP", folder / "own")


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/\n", {"memory.max": "1000000"}),
        ("0::/jobs/7\n", {"jobs/7/memory.max": "max", "jobs/memory.max": "1000000", "memory.max": "2000000"}),
        ("5:cpu:/x\n4:hugetlb,memory:/docker/a:b\n", {"memory/docker/a:b/memory.limit_in_bytes": "1000000"}),
    ],
    ids=["a container", "a job within a limited group", "version 1"],
)
def test_the_memory_is_the_container_s_where_it_has_less_than_the_machine(tmp_path, monkeypatch, own, limits):
    control_groups(tmp_path, monkeypatch, own, limits)
    assert memory.usable_memory() == 1_000_000


@pytest.mark.parametrize("limits", [{}, {"memory.max": "max"}, {"memory.max": str(2**62)}])
def test_without_a_limit_the_memory_is_the_machine_s(tmp_path, monkeypatch, limits):
    control_groups(tmp_path, monkeypatch, "0::/\n", limits)
    assert memory.usable_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "none")
    assert memory.usable_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
