"""Prepared data: whole pixels and integer labels per split, and a description that travels with them.

Pixels stay integers on disk and in memory, uint8 or, with a `max_value` above 255, uint16; `pixels / max_value` is the
image in [0, 1] that noise is added to. Arrays are made and read on disk, a piece at a time. Images too many for that
stay in their files, and the split is a manifest of them.
"""

import hashlib
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.data import manifest
from components.data.manifest import Manifest, load_manifest
from components.data.sources.source import FileSource, Source
from components.tools.files import read_record, write_json
from components.tools.hashing import hash_value
from components.tools.scratch import pieces, scratch_array
from components.tools.wording import counted

MOST_VALUE = 65535
PATHS = "paths.txt"
"""Written beside a split's arrays if its images come from files: one path per line."""


@dataclass(frozen=True)
class Description:
    """The facts about the data that the arrays do not contain."""

    source: str
    origin: str
    classes: list[str]
    image_shape: list[int]
    """Channels, height, width."""
    max_value: int
    """The pixel value that stands for 1.0."""
    mean: list[float] | None
    std: list[float] | None
    """Per-channel normalisation, done inside the network; null for none."""
    train_images: int
    test_images: int
    train_sha256: str
    test_sha256: str
    pictures: dict[str, Any] | None = None
    """How pictures became the images: the `rule` of their form; null where the images were no pictures, as in arrays.
    Descriptions of before do not say."""

    @property
    def pixel_type(self) -> str:
        """numpy's name of it."""
        return "uint8" if self.max_value <= 255 else "uint16"

    @property
    def sha256(self) -> str:
        """The dataset's identity: the images, whatever they have come from."""
        return hash_value({name: value for name, value in asdict(self).items() if name != "pictures"})


@dataclass(frozen=True)
class Split:
    images: np.ndarray
    """uint8 or uint16 (N, C, H, W); one that was loaded lies on disk, and cannot be written to."""
    labels: np.ndarray
    """int64 (N,)."""
    paths: list[str] | None = None
    """For people: the images' files in the source, or None if there are none. Not part of the split's identity."""

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, i: int) -> np.ndarray:
        """uint8 or uint16 (C, H, W), a copy."""
        return np.array(self.images[i])

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.labels.shape)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def prepare(
    source: Source | FileSource, name: str, *, test_share: float | None, enlarge: int | None, seed: int
) -> tuple[Split | Manifest, Split | Manifest, Description]:
    """Check and enlarge a source's pixels, split them if the source has no test split, and describe the result.

    The split is stratified by class and fixed by `seed`: each class's images are shuffled, and the first
    round(test_share * count) become test images. Both splits keep the source's order. Files pass unchanged: their
    source has already decoded each of them.

    Raises:
        ValueError: naming the first images that are not finite, not whole or outside [0, max_value], or a max_value
            beyond 16 bits.
    """
    if isinstance(source, FileSource):
        return (
            source.train,
            source.test,
            _describe(source, name, source.train, source.test, list(source.form.shape), 255),
        )
    images, labels = whole_pixels(source.images, source.max_value, name), source.labels.astype(np.int64)
    if source.test:
        test_images, test_labels = source.test
        train = Split(_chosen_images(images, None, enlarge), labels, source.paths)
        test = Split(
            _chosen_images(whole_pixels(test_images, source.max_value, f"{name} (test)"), None, enlarge),
            test_labels.astype(np.int64),
            source.test_paths,
        )
    else:
        assert test_share, "a source without a test split is split"
        is_test = draw_test_images(labels, test_share, seed)
        train, test = (
            Split(_chosen_images(images, chosen, enlarge), labels[chosen], _chosen(source.paths, chosen))
            for chosen in (~is_test, is_test)
        )
    return train, test, _describe(source, name, train, test, list(train.images.shape[1:]), source.max_value)


def _describe(
    source: Source | FileSource,
    name: str,
    train: Split | Manifest,
    test: Split | Manifest,
    image_shape: list[int],
    max_value: int,
) -> Description:
    return Description(
        source=name,
        origin=source.origin,
        classes=source.classes,
        image_shape=image_shape,
        max_value=max_value,
        mean=source.mean,
        std=source.std,
        train_images=len(train),
        test_images=len(test),
        train_sha256=train.sha256,
        test_sha256=test.sha256,
        pictures=source.form.rule if source.form else None,
    )


def whole_pixels(pixels: np.ndarray, max_value: int, name: str) -> np.ndarray:
    """The pixels as uint8 or uint16, the smaller that holds `max_value`; raises ValueError as `prepare` does."""
    if max_value > MOST_VALUE:
        raise ValueError(f"{name}: the pixel value {max_value} stands for 1.0, but 16 bits hold {MOST_VALUE} at most")
    dtype = np.uint8 if max_value <= 255 else np.uint16
    whole = pixels if pixels.dtype == dtype else scratch_array(pixels.shape, dtype)
    not_finite, not_whole = (np.zeros(len(pixels), dtype=bool) for _ in range(2))
    for rows in pieces(pixels):
        piece = pixels[rows]
        good = np.isfinite(piece)
        not_finite[rows] = ~good.all(axis=(1, 2, 3))
        good &= (piece >= 0) & (piece <= max_value)
        if pixels.dtype != dtype:
            good &= piece == np.round(piece)
            whole[rows] = np.where(good, piece, 0)
        not_whole[rows] = ~good.all(axis=(1, 2, 3))
    _raise_for_rows(np.flatnonzero(not_finite), f"{name}: pixels that are not finite")
    _raise_for_rows(np.flatnonzero(not_whole), f"{name}: pixels that are not whole numbers in [0, {max_value}]")
    return whole


def draw_test_images(labels: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Bool (N,), true for the test images; see `prepare`."""
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(test_share * len(members))]] = True
    return is_test


def _chosen(paths: list[str] | None, chosen: np.ndarray) -> list[str] | None:
    return None if paths is None else list(compress(paths, chosen))


def _chosen_images(images: np.ndarray, chosen: np.ndarray | None, enlarge: int | None) -> np.ndarray:
    """The chosen ones of the images, or all, each pixel as a square of side `enlarge`."""
    side = enlarge or 1
    if chosen is None and side == 1:
        return images
    rows = np.arange(len(images)) if chosen is None else np.flatnonzero(chosen)
    _, channels, height, width = images.shape
    found = scratch_array((len(rows), channels, height * side, width * side), images.dtype)
    for piece in pieces(found):
        found[piece] = images[rows[piece]].repeat(side, axis=2).repeat(side, axis=3)
    return found


def _raise_for_rows(rows: np.ndarray, what: str) -> None:
    if len(rows):
        some = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        raise ValueError(f"{what} in {len(rows)} image(s), rows {some}: mend or remove them in the source")


def save_split(split: Split | Manifest, folder: Path) -> None:
    if isinstance(split, Manifest):
        return split.save(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", split.images)
    np.save(folder / "labels.npy", split.labels)
    if split.paths is not None:
        text = "".join(f"{path}\n" for path in split.paths)
        (folder / PATHS).write_text(text, encoding="utf-8", newline="\n")


def load_split(folder: Path) -> Split:
    """Raises ValueError if an array is missing, truncated or not an array, or the list of image files does not fit."""
    images = _load_array(folder / "images.npy", mmap_mode="r")
    labels = _load_array(folder / "labels.npy")
    split = Split(images, labels, _load_paths(folder / PATHS))
    if split.paths is not None and len(split.paths) != len(split):
        names = f"{counted(len(split.paths), 'files')} for {counted(len(split), 'images')}"
        raise ValueError(f"{folder / PATHS} names {names}: run the prepare stage again")
    return split


def _load_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}): run the prepare stage again") from None
    return array


def _load_paths(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): run the prepare stage again") from None


def load_split_or_manifest(folder: Path) -> Split | Manifest:
    """Raises ValueError when what is there cannot be read."""
    return load_manifest(folder) if (folder / manifest.FILE).exists() else load_split(folder)


def save_description(description: Description, path: Path) -> None:
    write_json(path, asdict(description))


def load_description(path: Path) -> Description:
    return read_record(path, "run the prepare stage again", Description)
