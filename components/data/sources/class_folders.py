"""Images in one folder per class: own images, and ImageNet."""

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from components.data import image_files
from components.data.image_files import ImageFileError
from components.data.manifest import Manifest
from components.data.picture_forms import USUAL_VIEW, Form, bits_of, read_picture
from components.data.sources.archive import open_folder
from components.data.sources.source import FileSource, Source
from components.data.sources.splits import SPELLINGS, check_test_share, find_splits
from components.data.sources.visible import visible
from components.tools.progress import Progress
from components.tools.scratch import scratch_array

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NAMED_FILES = 10
READ_AHEAD = 4096


@dataclass(frozen=True)
class Listing:
    """The files of one split."""

    classes: list[str]
    """Names of the class folders, sorted by code point: the same order on every machine."""
    paths: list[str]
    """Relative to the source's folder, with forward slashes; by class, then by name."""
    labels: np.ndarray
    """int64 (N,)."""


def image_folder(root: Path, *, test_share: float | None, form: Form) -> Source:
    """Own images: `root`/train/<class>/*, and test/ and val/ likewise, or `root`/<class>/* to be split; or an archive.

    Without test/, test images are drawn from train. Names that start with a dot and the like are skipped (see
    `is_skipped`).

    Args:
        test_share: None where the folder has a test split of its own.
        form: what images are brought to; the bits are those of the deepest image.

    Raises:
        ValueError: naming every file that cannot be used, or an option that does not go with the folder.
    """
    with open_folder(root) as folder:
        splits = split_folders(folder, root)
        check_test_share(test_share, splits, root)
        listings, problems = list_splits(folder, list(splits.values()) or [""], root)
        by_split = dict(zip(splits or ["train"], listings, strict=True))
        return read_listings(by_split, problems, folder, root, form=form, origin="image folder")


def read_listings(
    listings: dict[str, Listing],
    problems: list[str],
    folder: Path,
    root: Path,
    *,
    form: Form,
    origin: str,
) -> Source:
    """Decode the files of train, and of val and test where they are listed.

    Each image is turned upright, resized until it covers the size of `form`, and its centre cut out.

    Args:
        problems: what is already known to be wrong.
        root: the path that messages show: for an unpacked archive, the archive.
        form: what images are brought to; the bits are those of the deepest image.

    Raises:
        ValueError: naming every file that cannot be used.
    """
    form = replace(form, bits=deepest(folder, [path for listing in listings.values() for path in listing.paths]))
    images = {}
    for split, listing in listings.items():
        images[split] = scratch_array((len(listing.paths), *form.shape), form.dtype)
        problems += decode_into(images[split], folder, listing.paths, form)
    raise_for_files(root, problems)
    return in_memory(images, listings, form, origin)


def in_memory(images: dict[str, np.ndarray], listings: dict[str, Listing], form: Form, origin: str) -> Source:
    """Decoded images, (N, C, H, W) of the form's type in each split, as a source."""
    pairs = {split: (images[split], listing.labels) for split, listing in listings.items()}
    paths = {split: listing.paths for split, listing in listings.items()}
    return Source(
        *pairs["train"],
        classes=listings["train"].classes,
        max_value=form.max_value,
        origin=origin,
        paths=paths["train"],
        test=pairs.get("test"),
        test_paths=paths.get("test"),
        val=pairs.get("val"),
        val_paths=paths.get("val"),
        form=form,
    )


def split_folders(folder: Path, root: Path) -> dict[str, str]:
    """The folders of the splits, by split; none if the folders are classes.

    A single folder with such a name is a class: there are images of trains.

    Raises:
        ValueError: two folders of `root` are of one split, or there is no train.
    """
    names = [entry.name for entry in visible(folder) if entry.is_dir() and entry.name.lower() in SPELLINGS]
    return find_splits(names, root) if len(names) > 1 else {}


def imagenet(root: Path) -> FileSource:
    """ImageNet: `root`/train/<class>/* and `root`/val/<class>/*, which stay files; every one is decoded once here.

    Raises:
        ValueError: naming every file that cannot be used.
    """
    missing = [name for name in ("train", "val") if not (root / name).is_dir()]
    if missing:
        raise ValueError(f"prepare.root is {root}: has no folder {' nor '.join(missing)} of class folders")
    listings, problems = list_splits(root, ["train", "val"], root)
    train, test = (Manifest(listing.paths, listing.labels, [""] * len(listing.paths)) for listing in listings)
    for manifest in (train, test):
        problems += hash_into(manifest.hashes, root, manifest.paths)
    raise_for_files(root, problems)
    return FileSource(
        train,
        test,
        classes=listings[0].classes,
        form=USUAL_VIEW,
        origin="ImageNet",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def list_splits(folder: Path, parts: list[str], root: Path) -> tuple[list[Listing], list[str]]:
    """The files of each part, and what is wrong with their names and folders.

    Args:
        root: the path that messages show: for an unpacked archive, the archive.

    Raises:
        ValueError: the parts have fewer than two classes, or not the same ones.
    """
    problems: list[str] = []
    listings = [_list_split(folder, part, problems) for part in parts]
    classes = listings[0].classes
    if len(classes) < 2:
        found = f"only {classes[0]}" if classes else "none"
        raise ValueError(f"{root / parts[0]} must have a folder for each of at least two classes: it has {found}")
    for part, listing in zip(parts, listings, strict=True):
        if different := sorted(set(classes) ^ set(listing.classes)):
            names = ", ".join(different[:NAMED_FILES])
            raise ValueError(f"{root}: class folders in {parts[0]} or {part} but not in both: {names}")
    return listings, problems


def _list_split(folder: Path, part: str, problems: list[str]) -> Listing:
    classes: list[str] = []
    paths, labels = [], []
    for entry in visible(folder / part):
        name = f"{part}/{entry.name}".removeprefix("/")
        if problem := name_problem(entry.name):
            problems.append(f"{name!r} ({problem})")
        elif not entry.is_dir():
            problems.append(f"{name} (a file outside the class folders)")
        else:
            files = list(visible(Path(entry.path)))
            if not files:
                problems.append(f"{name} (a class without images)")
            for file in files:
                if problem := name_problem(file.name):
                    problems.append(f"{f'{name}/{file.name}'!r} ({problem})")
                else:
                    paths.append(f"{name}/{file.name}")
                    labels.append(len(classes))
            classes.append(entry.name)
    return Listing(classes, paths, np.array(labels, dtype=np.int64))


def name_problem(name: str) -> str | None:
    """Why a name cannot stand in a list with one name per line, or None. Spaces and all scripts are allowed."""
    kinds = {unicodedata.category(character) for character in name}
    if "Cs" in kinds:
        return "a name that is not in UTF-8: rename it"
    return "a name with a line break or another control character: rename it" if "Cc" in kinds else None


def deepest(folder: Path, paths: list[str]) -> int:
    """The bits of the deepest image of `paths`, 8 or 16; headers alone are read."""
    return max((bits_of(folder / path) for path in paths), default=8)


def decode_into(array: np.ndarray, folder: Path, paths: list[str], form: Form) -> list[str]:
    """Fill (N, C, H, W) with the images of `paths`; return the unusable files with reasons."""
    return decode_each(array, paths, lambda i: image_files.read_bytes(folder / paths[i]), form)


def decode_each(array: np.ndarray, names: list[str], read: Callable[[int], bytes], form: Form) -> list[str]:
    """Fill (N, C, H, W) with the images whose bytes `read` gives; return the unusable ones with reasons."""

    def use(i: int, data: bytes) -> None:
        array[i] = read_picture(data, form)

    return _for_each(names, read, use)


def hash_into(hashes: list[str], folder: Path, paths: list[str]) -> list[str]:
    """Fill in the hashes of the files of `paths`; return the unusable files with reasons."""

    def use(i: int, data: bytes) -> None:
        hashes[i] = hashlib.sha256(data).hexdigest()
        image_files.decode(data, channels=3)

    return _for_each(paths, lambda i: image_files.read_bytes(folder / paths[i]), use)


def _for_each(names: Sequence[str], read: Callable[[int], bytes], use: Callable[[int, bytes], None]) -> list[str]:
    """Call `use` with each image's number and bytes, in several threads: decoding releases the GIL."""

    from components.tools.device import available_cores  # imports torch, which takes seconds

    def work(i: int) -> str | None:
        try:
            use(i, read(i))
        except ImageFileError as error:
            return f"{names[i]} ({error})"
        return None

    problems = []
    with ThreadPoolExecutor(available_cores()) as pool, Progress("prepare", len(names), "images") as progress:
        for start in range(0, len(names), READ_AHEAD):
            for problem in pool.map(work, range(start, min(start + READ_AHEAD, len(names)))):
                if problem:
                    problems.append(problem)
                progress.advance()
    return problems


def raise_for_files(root: Path, problems: list[str]) -> None:
    """Raise one ValueError that names the first files and counts the rest."""
    if problems:
        more = f", and {len(problems) - NAMED_FILES} more" if len(problems) > NAMED_FILES else ""
        raise ValueError(
            f"{root}: {len(problems)} file(s) or folder(s) cannot be used: {', '.join(problems[:NAMED_FILES])}{more}: "
            "mend or remove them"
        )
