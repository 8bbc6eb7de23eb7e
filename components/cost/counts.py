"""How many images a source has, found without preparing them."""

from dataclasses import dataclass
from pathlib import Path

from components.data.sources.visible import visible
from components.prepare import Prepare

BUILT_IN = {"digits": (1797, 0), "mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}
"""Training and test images; the digits have no test split."""
RUN_PREPARE = "run `dvc repro prepare` first, then their number is known"


@dataclass(frozen=True)
class Counts:
    """Numbers of images, and of classes."""

    train: int
    test: int
    classes: int


def count(prepare: Prepare, root: Path) -> Counts:
    """The images that the prepare stage will give, from the names of the files alone.

    Raises:
        ValueError: they cannot be counted without reading files.
    """
    if prepare.source in BUILT_IN:
        train, test = BUILT_IN[prepare.source]
        return _split(train, test, 10, prepare.test_share)
    if not root.exists():
        raise ValueError(f"prepare.root is {root}: no such folder, so its images cannot be counted")
    if not root.is_dir():
        raise ValueError(f"prepare.root is {root}: what is in a file is not counted: {RUN_PREPARE}")
    folders = {entry.name.lower(): Path(entry.path) for entry in visible(root) if entry.is_dir()}
    tests = [folders[name] for name in ("test", "val") if name in folders]
    train_folder = folders["train"] if "train" in folders and tests else root
    classes = _files_by_class(train_folder)
    test = sum(_files_by_class(tests[0])) if train_folder != root else 0
    if not classes or not sum(classes):
        raise ValueError(f"prepare.root is {root}: has no folders of images, one per class, to count: {RUN_PREPARE}")
    return _split(sum(classes), test, len(classes), prepare.test_share)


def _split(train: int, test: int, classes: int, test_share: float | None) -> Counts:
    if not test and test_share:
        test = round(test_share * train)
        train -= test
    return Counts(train, test, classes)


def _files_by_class(folder: Path) -> list[int]:
    """How many files each class folder holds."""
    return [sum(1 for _ in visible(Path(entry.path))) for entry in visible(folder) if entry.is_dir()]
