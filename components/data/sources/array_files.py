"""Arrays of images and labels: an .npz as MedMNIST's, or a folder of .npy files of the same names."""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from components.data.sources.archive import open_folder
from components.data.sources.memory import usable_memory
from components.data.sources.source import Source
from components.data.sources.splits import check_test_share, find_splits
from components.data.sources.visible import visible
from components.tools.wording import counted

MAX_CLASSES = 10_000
TRUNCATED = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
"""What numpy and zipfile raise for files that are torn or no arrays."""


@dataclass(frozen=True)
class Stored:
    """An array that has not been read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def arrays(root: Path, *, test_share: float | None) -> Source:
    """Images and labels under the names images and labels, or train_images, train_labels, and val_ and test_ likewise.

    Images are (N, H, W) or (N, H, W, C), whole numbers from 0 to 255. If any array of them is of uint16, all are kept
    at 16 bits, and white is 65535; beside it, one of uint8 is widened as pictures of 8 bits are: its values times 257.
    Labels are (N,) or (N, 1), whole numbers from 0. Without test_images, test images are drawn from train. An array
    `classes` of texts names the classes.

    Args:
        root: an .npz, a folder of .npy files, or an archive of either.
        test_share: None where there are test images.

    Raises:
        ValueError: naming the array, what is wrong with it, and the remedy.
    """
    with _stored(root) as found:
        names = split_names(found, root)
        check_test_share(test_share, names, root)
        for name in names.values():
            _check_pair(found[f"{name}images"], found[f"{name}labels"], root)
        stored = {split: found[f"{name}images"] for split, name in names.items()}
        deep = any(_is_deep(array) for array in stored.values())
        _check_memory(list(stored.values()), root, least_bytes=2 if deep else 1)
        images = {split: _images(array, root, deep) for split, array in stored.items()}
        labels = {split: _labels(found[f"{name}labels"], root) for split, name in names.items()}
        classes = _classes(found.get("classes"), labels["train"], root)
    for split, name in names.items():
        _check_labels(labels[split], classes, f"{split} image" if name else "image", root)
        if images[split].shape[1:] != images["train"].shape[1:]:
            shapes = f"{images[split].shape[1:]} and those of train {images['train'].shape[1:]}"
            raise ValueError(f"{root}: images of {split} are {shapes}, as (C, H, W): bring them to one shape")
    if empty := [name for i, name in enumerate(classes) if not (labels["train"] == i).any()]:
        some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
        raise ValueError(f"{root}: no image of train is of class {some}: add some, or number the labels anew")
    pairs = {split: (images[split], labels[split]) for split in names}
    drawn = "test" not in names  # numbers in the prepared splits are then not those of the source
    what = "train image" if names["train"] else "image"
    return Source(
        *pairs["train"],
        classes=classes,
        max_value=65535 if deep else 255,
        origin="arrays",
        paths=[f"{what} {i} of the source" for i in range(len(labels["train"]))] if drawn else None,
        test=pairs.get("test"),
        val=pairs.get("val"),
    )


def shape_of_arrays(root: Path) -> tuple[int, int, int]:
    """Channels, height and width, without reading pixels; raises ValueError as `arrays`."""
    with _stored(root) as found:
        name = split_names(found, root)["train"]
        shape = _checked_shape(found[f"{name}images"], root)
    return shape[3], shape[1], shape[2]


def split_names(found: dict[str, Stored], root: Path) -> dict[str, str]:
    """What stands before `images` and `labels` in the names of each split: '' for a source of one split."""
    prefixes = {name.removesuffix("images") for name in found if name == "images" or name.endswith("_images")}
    names = find_splits((prefix.rstrip("_") for prefix in prefixes if prefix), root)
    splits = {split: f"{name}_" for split, name in names.items()}
    if "" in prefixes and splits:
        raise ValueError(f"{root} has images beside {splits['train']}images: keep one form")
    if "" in prefixes:
        splits = {"train": ""}
    if not splits:
        has = ", ".join(found) or "no array"
        raise ValueError(f"{root} has no images nor train_images: it has {has}: rename the arrays")
    if missing := [f"{name}labels" for name in splits.values() if f"{name}labels" not in found]:
        raise ValueError(f"{root} has no {' nor '.join(missing)}: it has {', '.join(found)}: add or rename the array")
    return splits


@contextmanager
def _stored(root: Path) -> Iterator[dict[str, Stored]]:
    """The arrays by name, not read yet."""
    if root.is_file() and root.name.endswith(".npz"):
        yield _in_zip(root, root)
        return
    if root.is_file() and root.name.endswith(".npy"):
        raise ValueError(f"prepare.root is {root}: one array is no data set: give the folder that also has the labels")
    with open_folder(root, _has_arrays) as folder:
        packed = [Path(entry.path) for entry in visible(folder) if entry.name.endswith(".npz")]
        loose = [Path(entry.path) for entry in visible(folder) if entry.name.endswith(".npy")]
        if len(packed) + bool(loose) != 1:
            raise ValueError(f"{root} must hold one .npz, or .npy files: it has {len(packed)} and {len(loose)}")
        yield _in_zip(packed[0], root) if packed else {path.stem: _in_file(path, root) for path in loose}


def _has_arrays(folder: Path) -> bool:
    return any(entry.name.endswith((".npz", ".npy")) for entry in visible(folder))


def _in_zip(path: Path, root: Path) -> dict[str, Stored]:
    found = {}
    try:
        with zipfile.ZipFile(path) as packed:
            for member in packed.infolist():
                name = member.filename.removesuffix(".npy")

                def read(member: zipfile.ZipInfo = member) -> np.ndarray:
                    with zipfile.ZipFile(path) as again, again.open(member) as file:
                        return np.lib.format.read_array(file, allow_pickle=False)

                with packed.open(member) as file:
                    found[name] = _described(name, file, member.file_size, read, root)
    except TRUNCATED as error:
        if isinstance(error, ArrayError):
            raise
        raise ArrayError(f"{path} cannot be read ({' '.join(str(error).split())}): save it again") from None
    return found


def _in_file(path: Path, root: Path) -> Stored:
    try:
        with path.open("rb") as file:
            return _described(path.stem, file, path.stat().st_size, lambda: np.load(path, allow_pickle=False), root)
    except TRUNCATED as error:
        if isinstance(error, ArrayError):
            raise
        raise ArrayError(
            f"{path.name} of {root} cannot be read ({' '.join(str(error).split())}): save it again"
        ) from None


class ArrayError(ValueError):
    """What is wrong with an array, in one line for people."""


def _described(name: str, file: IO[bytes], size: int, read: Callable[[], np.ndarray], root: Path) -> Stored:
    """Shape and type from the head of a .npy file, which is checked against the file's size."""
    version = np.lib.format.read_magic(file)
    head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = head(file)
    if dtype.hasobject:
        raise ArrayError(
            f"{root}: {name} holds Python objects, which are pickles and never opened: save numbers or texts"
        )
    if size != file.tell() + prod(shape) * dtype.itemsize:
        raise ArrayError(f"{root}: {name} is torn ({size} bytes for {shape} of {dtype}): save it again")
    return Stored(name, shape, dtype, read)


def _is_deep(array: Stored) -> bool:
    """Whether it is of 16 bits, in either order of bytes."""
    return array.dtype.kind == "u" and array.dtype.itemsize == 2


def _check_memory(images: list[Stored], root: Path, least_bytes: int) -> None:
    """Args:
    least_bytes: of a pixel, once it is read.
    """
    sizes = [prod(array.shape) * max(array.dtype.itemsize, least_bytes) for array in images]
    needed, memory = sum(sizes), usable_memory()
    if 3 * needed > memory:
        raise ValueError(
            f"{root}: images of {needed >> 20} MiB are more than a third of the {memory >> 20} MiB of memory that this "
            "process may use: save fewer or smaller ones, as uint8"
        )


def _checked_shape(array: Stored, root: Path) -> tuple[int, ...]:
    """(N, H, W, C)."""
    shape = array.shape if len(array.shape) == 4 else (*array.shape, 1)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{root}: {array.name} has the shape {array.shape}: must be (N, H, W) or (N, H, W, C)")
    if shape[3] > min(shape[1:3]):
        raise ValueError(f"{root}: {array.name} has the shape {array.shape}: channels go last, as (N, H, W, C)")
    return shape


def _images(array: Stored, root: Path, deep: bool) -> np.ndarray:
    """(N, C, H, W); the prepare stage checks that they are whole and not above what stands for white.

    Args:
        deep: of a set of 16 bits.
    """
    shape = _checked_shape(array, root)
    if array.dtype.kind not in "uif":
        raise ValueError(f"{root}: {array.name} is of {array.dtype}: must be numbers from 0 to 255, or uint16")
    if deep and not _is_deep(array) and array.dtype != np.uint8:
        raise ValueError(
            f"{root}: {array.name} is of {array.dtype} beside images of uint16: save it as uint16 or uint8"
        )
    pixels = _read(array, root).reshape(shape)
    most = pixels.max()
    if most <= 1:
        raise ValueError(f"{root}: {array.name} has no value above {most:g}: multiply by 255, round and save as uint8")
    if _is_deep(array) and most <= 255:  # as 16 bits they would be black
        raise ValueError(
            f"{root}: {array.name} is of uint16, whose white is 65535, and has no value above {most}: save it as uint8"
        )
    if deep and not _is_deep(array):
        pixels = pixels.astype(np.uint16) * 257
    return pixels.transpose(0, 3, 1, 2)


def _check_pair(images: Stored, labels: Stored, root: Path) -> None:
    if labels.shape not in (labels.shape[:1], (*labels.shape[:1], 1)) or not labels.shape:
        raise ValueError(f"{root}: {labels.name} has the shape {labels.shape}: must be (N,) or (N, 1), one per image")
    if labels.dtype.kind not in "uif":
        raise ValueError(f"{root}: {labels.name} is of {labels.dtype}: must be whole numbers from 0")
    _checked_shape(images, root)
    if images.shape[0] != labels.shape[0]:
        has = f"{counted(labels.shape[0], 'labels')} for {counted(images.shape[0], 'images')}"
        raise ValueError(f"{root}: {labels.name} has {has}: give one for each image")


def _labels(array: Stored, root: Path) -> np.ndarray:
    """int64 (N,)."""
    labels = _read(array, root).reshape(-1)
    if len(rows := np.flatnonzero(~(np.isfinite(labels) & (labels == np.round(labels))))):
        raise ValueError(f"{root}: {array.name} {rows[0]} is {labels[rows[0]]}: must be a whole number from 0")
    return labels.astype(np.int64)


def _read(array: Stored, root: Path) -> Any:
    try:
        return array.read()
    except TRUNCATED as error:
        raise ValueError(
            f"{root}: {array.name} cannot be read ({' '.join(str(error).split())}): save it again"
        ) from None


def _classes(array: Stored | None, labels: np.ndarray, root: Path) -> list[str]:
    """The names of the classes: the array's, or the numbers up to the largest label of train."""
    if array is None:
        most = int(labels.max())
        if not 1 <= most < MAX_CLASSES:
            raise ValueError(f"{root}: the largest label of train is {most}: must be from 1 to {MAX_CLASSES - 1}")
        return [str(number) for number in range(most + 1)]
    if len(array.shape) != 1 or array.dtype.kind != "U":
        raise ValueError(f"{root}: classes is {array.shape} of {array.dtype}: must be (K,) of texts")
    return [str(name) for name in _read(array, root)]


def _check_labels(labels: np.ndarray, classes: list[str], what: str, root: Path) -> None:
    """Raise ValueError that names the first images whose label is no class."""
    rows = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(rows):
        some = ", ".join(f"{what} {row} ({labels[row]})" for row in rows[:10]) + (", ..." if len(rows) > 10 else "")
        outside = f"{counted(len(rows), 'labels are', 'label is')} outside the classes 0 to {len(classes) - 1}"
        raise ValueError(f"{root}: {outside}: {some}: mend the labels")
