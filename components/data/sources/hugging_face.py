"""Data sets of Hugging Face's library `datasets`: a folder saved by `save_to_disk`, or a name to be fetched."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from components.data import image_files
from components.data.image_files import ImageFileError
from components.data.picture_forms import Form, bits_of
from components.data.sources.archive import open_folder
from components.data.sources.class_folders import (
    Listing,
    decode_each,
    in_memory,
    raise_for_files,
)
from components.data.sources.source import Source
from components.data.sources.splits import check_test_share, find_splits
from components.tools.scratch import scratch_array


def huggingface(
    name: str | None,
    root: Path,
    *,
    download: bool,
    test_share: float | None,
    form: Form,
) -> Source:
    """Images and labels of a saved data set, each image as those of `image_folder`.

    The one column of images and the one column of class labels are read; of several, those called image and label.

    Args:
        name: with `download`, the data set's name on the hub.
        root: without it, the folder that `save_to_disk` wrote, or an archive of it.
        test_share: None where the data set has a test split.
        form: what images are brought to.

    Raises:
        ValueError: the library is missing, the data set cannot be read, or an image cannot be used.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "prepare.source is 'huggingface': the library datasets is not installed: uv pip install datasets"
        ) from None
    datasets.disable_progress_bars()
    if download:
        return _read(_fetched(datasets, f"{name}"), Path(f"{name}"), test_share, form)
    with open_folder(root, _is_saved) as folder:
        if not _is_saved(folder):
            raise ValueError(
                f"prepare.root is {root}: no folder of save_to_disk (it has no dataset_dict.json nor state.json)"
            )
        try:
            found = datasets.load_from_disk(str(folder))
        except Exception as error:  # torn files raise nearly any error of pyarrow, json and datasets
            raise ValueError(f"{root} cannot be read ({_one_line(error)}): save the data set again") from None
        return _read(found, root, test_share, form)


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _fetched(datasets: Any, name: str) -> Any:
    try:
        return datasets.load_dataset(name)
    except Exception as error:  # network, hub, unknown name, a data set that needs code of its own
        raise ValueError(
            f"prepare.root is {name!r}: could not be fetched ({_one_line(error)}): save it elsewhere with "
            "save_to_disk, set prepare.root to that folder and prepare.download to false"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(found: Any, root: Path, test_share: float | None, form: Form) -> Source:
    import datasets

    parts = dict(found) if isinstance(found, datasets.DatasetDict) else {"": found}
    splits = find_splits(parts, root) or ({"train": next(iter(parts))} if len(parts) == 1 else {})
    if not splits:
        raise ValueError(f"{root} has the splits {', '.join(parts)}: none of them is train")
    check_test_share(test_share, splits, root)
    image, label, classes = _columns(parts[splits["train"]], root)
    readers = {split: _reader(parts[name], image) for split, name in splits.items()}
    form = replace(form, bits=max(_bits(readers[split], len(parts[name])) for split, name in splits.items()))
    images, listings, problems = {}, {}, []
    for split, name in splits.items():
        part = parts[name]
        if part.features[label].names != classes:
            raise ValueError(f"{root}: the classes of {name} are not those of {splits['train']}: use one ClassLabel")
        labels = np.array(list(part[label]), dtype=object)
        problems += _label_problems(labels, classes, split)
        paths = [f"{split} image {i} of the source" for i in range(len(part))]
        images[split] = scratch_array((len(part), *form.shape), form.dtype)
        problems += decode_each(images[split], paths, readers[split], form)
        listings[split] = (paths, labels)
    raise_for_files(root, problems)
    made = {split: Listing(classes, paths, labels.astype(np.int64)) for split, (paths, labels) in listings.items()}
    return in_memory(images, made, form, "Hugging Face data set")


def _bits(read: Callable[[int], bytes], images: int) -> int:
    """Of the deepest picture; one that cannot be read says so when it is decoded."""
    deepest = 8
    for i in range(images):
        with suppress(ImageFileError):
            deepest = max(deepest, bits_of(BytesIO(read(i))))
    return deepest


def _reader(part: Any, image: str) -> Callable[[int], bytes]:
    """Gives the bytes of a picture by its row number; raises ImageFileError where there is none."""
    import datasets

    stored = part.cast_column(image, datasets.Image(decode=False))
    lock = Lock()  # the library does not say that threads may share a data set

    def read(i: int) -> bytes:
        with lock:
            cell = stored[i][image]
        if cell and cell["bytes"]:
            return bytes(cell["bytes"])
        if cell and cell["path"]:
            return image_files.read_bytes(Path(cell["path"]))
        raise ImageFileError("no image")

    return read


def _columns(part: Any, root: Path) -> tuple[str, str, list[str]]:
    """The names of the columns of images and of labels, and the classes."""
    import datasets

    image = _one_of(part, datasets.Image, "image", root)
    label = _one_of(part, datasets.ClassLabel, "label", root)
    return image, label, list(part.features[label].names)


def _one_of(part: Any, kind: type, usual: str, root: Path) -> str:
    names = [name for name, feature in part.features.items() if isinstance(feature, kind)]
    if len(names) == 1 or usual in names:
        return names[0] if len(names) == 1 else usual
    columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in part.features.items())
    raise ValueError(
        f"{root} has {len(names)} columns of {kind.__name__}: it needs one, or one called {usual}: it has {columns}: "
        "use rename_column, cast_column or class_encode_column, and save it again"
    )


def _label_problems(labels: np.ndarray, classes: list[str], split: str) -> list[str]:
    """Rows without a label: the hub's hidden test labels are -1."""
    return [
        f"{split} image {i} (label {label}, outside the classes 0 to {len(classes) - 1})"
        for i, label in enumerate(labels)
        if label is None or not 0 <= label < len(classes)
    ]
