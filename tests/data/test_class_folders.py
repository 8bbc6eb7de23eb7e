"""Folders of own images, and ImageNet's, as sources: what is read, and what is refused by name."""

import os
import resource
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from components.data.prepared import prepare
from components.data.sources import FileSource, imagenet
from tests.support.image_folders import gradient, read, save

RNG = np.random.default_rng(0)


def test_one_folder_of_classes_is_split_by_the_share(pets):
    source = read(pets)
    assert source.classes == ["cat", "dog", "Äffin"], "sorted by code point"
    assert source.images.shape == (12, 3, 16, 16)
    assert source.images.dtype == np.uint8
    assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    train, test, description = prepare(source, "image_folder", test_share=0.25, enlarge=None, seed=0)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(test.labels).tolist() == [1, 1, 1]
    assert description.classes == source.classes


def test_a_folder_with_a_test_split_keeps_it(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "own/train")
    shutil.copytree(pets, tmp_path / "own/test")
    for path in (tmp_path / "own/test").rglob("[123].jpg"):
        path.unlink()
    source = read(tmp_path / "own", test_share=None)
    assert (len(source.images), len(source.test[0])) == (12, 3)
    assert np.array_equal(source.test[0], source.images[::4])
    assert source.test[1].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"prepare.test_share is 0.25: .* has a test split of its own"):
        read(tmp_path / "own")
    with pytest.raises(ValueError, match=r"prepare.test_share is null: .* has no splits train and test"):
        read(pets, test_share=None)


def test_images_of_every_kind_become_squares_of_the_depth_of_the_deepest(tmp_path):
    """Each a gradient whose value at a place is known, read back within a JPEG's or a rounding's error."""
    pixels = gradient(64, 32)
    grey = pixels[..., 0]
    folder = tmp_path / "kinds"
    save(folder / "a/rgb.png", pixels)
    save(folder / "a/rgba.png", pixels, "RGBA")
    save(folder / "a/cmyk.jpg", pixels, "CMYK", quality=100)
    save(folder / "a/palette.gif", pixels, "P")
    save(folder / "b/grey.png", grey, "L")
    save(folder / "b/deep.png", (grey.astype(np.uint16) * 257), "I;16")
    save(folder / "b/deep.tif", (grey.astype(np.uint16) * 257), "I;16")
    save(folder / "b/one.bmp", grey, "1")
    rgb = read(folder)
    assert (rgb.images.shape, rgb.images.dtype, rgb.max_value) == ((8, 3, 16, 16), np.uint16, 65535)
    # the central 32x32, two to one; resizing before cropping sees a little further at the edges
    expected = np.asarray(Image.fromarray(pixels[:, 16:48]).resize((16, 16), Image.Resampling.BILINEAR))
    names = [path.name for name in "ab" for path in sorted((folder / name).iterdir())]
    found = dict(zip(names, rgb.images / 257, strict=True))
    for name, tolerance in {"rgb.png": 1, "rgba.png": 1, "cmyk.jpg": 12, "palette.gif": 40}.items():
        assert np.abs(found[name] - expected.transpose(2, 0, 1)).max() <= tolerance, name
    for name in ("grey.png", "deep.png", "deep.tif"):
        assert np.abs(found[name] - expected[..., 0]).max() <= 1, name
    assert read(folder, channels=1).images.shape == (8, 1, 16, 16)
    grey_images = dict(zip(names, read(folder, channels=1).images / 257, strict=True))
    assert np.abs(grey_images["deep.png"] - expected[..., 0]).max() <= 1


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    pixels = gradient(32, 32)
    save(tmp_path / "d/a/turned.png", np.rot90(pixels).copy(), exif=exif)
    save(tmp_path / "d/b/upright.png", pixels)
    turned, upright = read(tmp_path / "d").images
    assert np.array_equal(turned, upright)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BAD_FILES = {
    "empty": (lambda good: b"", "empty file"),
    "text": (lambda good: b"hello\n" * 50, "not an image of a known format"),
    "truncated": (lambda good: good[:-60], "truncated"),
    "header alone": (lambda good: good[:30], "Truncated File Read"),
    "bomb": (lambda good: png_claiming(40_000, 40_000), "exceeds limit"),
    "large": (lambda good: png_claiming(9_000, 9_000), "9000x9000 pixels, more than"),
    "ribbon": (lambda good: png_claiming(30_000, 10), "times as long as wide"),
    "postscript": (lambda good: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_the_reason(pets, content, message):
    good = pets / "dog/2.jpg"
    (pets / "dog/2.jpg").write_bytes(content(good.read_bytes()))
    with pytest.raises(ValueError, match=message) as refusal:
        read(pets)
    assert "1 file(s) or folder(s) cannot be used: dog/2.jpg (" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_all_that_is_wrong_is_said_at_once_and_long_lists_are_cut_short(pets):
    (pets / "empty class").mkdir()
    (pets / "notes.txt").write_text("x")
    (pets / "cat/broken link.jpg").symlink_to("nowhere")
    (pets / "cat/kittens").mkdir()
    os.mkfifo(pets / "cat/pipe.jpg")
    (pets / "cat/two\nlines.jpg").write_bytes(b"")
    (pets / "cat/.DS_Store").write_text("skipped")
    with pytest.raises(ValueError, match=r"6 file\(s\) or folder\(s\) cannot be used") as refusal:
        read(pets)
    for said in (
        "empty class (a class without images)",
        "notes.txt (a file outside the class folders)",
        "cat/broken link.jpg (no such file)",
        "cat/kittens (not a plain file)",
        "cat/pipe.jpg (not a plain file)",
        r"'cat/two\nlines.jpg' (a name with a line break or another control character",
    ):
        assert said in str(refusal.value)
    for i in range(9):
        (pets / f"dog/bad{i}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"15 file\(s\).* and 5 more: mend or remove them"):
        read(pets)


def test_classes_must_be_at_least_two_and_the_same_in_both_splits(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "own/train")
    shutil.copytree(pets / "cat", tmp_path / "own/test/cat")
    with pytest.raises(ValueError, match="class folders in train or test but not in both: dog, Äffin"):
        read(tmp_path / "own", test_share=None)
    with pytest.raises(ValueError, match="at least two classes: it has only pets"):
        read(tmp_path / "one" if shutil.copytree(pets, tmp_path / "one/pets") else None)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="at least two classes: it has none"):
        read(tmp_path / "nothing")
    with pytest.raises(ValueError, match="there is no such folder or archive"):
        read(tmp_path / "elsewhere")


def test_images_that_the_temporary_folder_cannot_hold_are_refused_with_the_remedy(pets):
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, allowed[1]))
    try:
        with pytest.raises(ValueError, match=r"images of 1 MiB cannot be kept in .* \(File too large\): set TMPDIR"):
            read(pets)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)


# --- ImageNet -----------------------------------------------------------------------------------------------------


def test_imagenet_stays_files_behind_a_manifest(imagenet_root):
    source = imagenet(imagenet_root)
    assert isinstance(source, FileSource)
    assert source.train.paths[:2] == ["train/cat/0.jpg", "train/cat/1.jpg"]
    assert source.test.paths[-1] == "val/Äffin/3.jpg"
    assert source.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert source.train.hashes == source.test.hashes, "hashes are of contents"
    assert len(set(source.train.hashes)) == 12
    _, test, description = prepare(source, "imagenet", test_share=None, enlarge=None, seed=0)
    assert (description.image_shape, description.max_value) == ([3, 224, 224], 255)
    assert (description.mean, description.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (description.test_images, description.test_sha256) == (12, test.sha256)
    assert str(imagenet_root) not in str(description)


def test_spoilt_files_of_imagenet_are_named_in_both_splits(imagenet_root):
    (imagenet_root / "train/dog/1.jpg").write_bytes(b"")
    spoilt = imagenet_root / "val/cat/3.jpg"
    spoilt.write_bytes(spoilt.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"2 file.*: train/dog/1.jpg \(empty file\), val/cat/3.jpg \(.*truncated"):
        imagenet(imagenet_root)
    shutil.rmtree(imagenet_root / "val")
    with pytest.raises(ValueError, match="has no folder val of class folders"):
        imagenet(imagenet_root)
