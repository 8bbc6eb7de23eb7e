"""Prepared data: uint8 images and integer labels per split, and a description that travels with them.

Pixels stay integers on disk and in memory; `pixels / max_value` is the image in [0, 1] that noise is added to.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from components.data.sources import Source
from components.files import read_record, write_json
from components.identity import hash_value


@dataclass(frozen=True)
class Description:
    """What the arrays do not say themselves."""

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

    @property
    def sha256(self) -> str:
        """The dataset's identity."""
        return hash_value(asdict(self))


@dataclass(frozen=True)
class Split:
    images: np.ndarray
    """uint8 (N, C, H, W)."""
    labels: np.ndarray
    """int64 (N,)."""

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.labels.shape)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def prepare(
    source: Source, name: str, *, test_share: float, enlarge: int, seed: int
) -> tuple[Split, Split, Description]:
    """Check, enlarge and split a source.

    The split is stratified by class and fixed by `seed`: of each class's images in a random order, the first
    round(test_share * count) are the test images. Both splits keep the source's order.

    Raises:
        ValueError: naming the first images that are not finite, not whole or outside [0, max_value].
    """
    pixels = source.images
    rows = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    _refuse(rows, f"{name}: pixels that are not finite")
    whole = (pixels == np.round(pixels)) & (pixels >= 0) & (pixels <= source.max_value)
    rows = np.flatnonzero(~whole.all(axis=(1, 2, 3)))
    _refuse(rows, f"{name}: pixels that are not whole numbers in [0, {source.max_value}]")
    images = pixels.astype(np.uint8).repeat(enlarge, axis=2).repeat(enlarge, axis=3)
    labels = source.labels.astype(np.int64)

    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(test_share * len(members))]] = True
    train, test = Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])
    return (
        train,
        test,
        Description(
            source=name,
            origin=source.origin,
            classes=source.classes,
            image_shape=list(images.shape[1:]),
            max_value=source.max_value,
            mean=None,
            std=None,
            train_images=len(train.labels),
            test_images=len(test.labels),
            train_sha256=train.sha256,
            test_sha256=test.sha256,
        ),
    )


def _refuse(rows: np.ndarray, what: str) -> None:
    if len(rows):
        some = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        raise ValueError(f"{what} in {len(rows)} image(s), rows {some}: mend or remove them in the source")


def save_split(split: Split, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", split.images)
    np.save(folder / "labels.npy", split.labels)


def load_split(folder: Path) -> Split:
    """Raises ValueError when an array is missing, torn or not an array."""
    arrays = []
    for name in ("images.npy", "labels.npy"):
        try:
            arrays.append(np.load(folder / name, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{folder / name} cannot be read ({error}): run the prepare stage again") from None
    return Split(*arrays)


def save_description(description: Description, path: Path) -> None:
    write_json(path, asdict(description))


def load_description(path: Path) -> Description:
    return read_record(path, "run the prepare stage again", Description)
