"""Which part of a source is which: the spellings of train, val and test, and whether the source needs `test_share`."""

from collections.abc import Collection, Iterable
from pathlib import Path

SPLITS = ("train", "val", "test")
"""In the order in which they are read. val is for choosing: nothing is ever certified on it."""
SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names, in lower case, that people give to their splits."""


def find_splits(names: Iterable[str], root: Path) -> dict[str, str]:
    """The source's name of each of its splits, in the order of SPLITS; other names are passed over.

    Raises:
        ValueError: two names are of one split, or there is no train.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        split = SPELLINGS.get(name.lower())
        if split and split in found:
            raise ValueError(f"{root}: {found[split]} and {name} are both the split {split}: merge or rename one")
        if split:
            found[split] = name
    if found and "train" not in found:
        raise ValueError(
            f"{root} has {' and '.join(found.values())} but no train: add it, or rename one of them to train"
        )
    return {split: found[split] for split in SPLITS if split in found}


def check_test_share(test_share: float | None, splits: Collection[str], root: Path) -> None:
    """Raise ValueError unless `test_share` is given exactly where the source has no test split."""
    if "test" in splits and test_share is not None:
        raise ValueError(f"prepare.test_share is {test_share}: {root} has a test split of its own, so set it to null")
    if "test" not in splits and test_share is None:
        if "val" in splits:
            raise ValueError(
                f"prepare.test_share is null: {root} has train and val but no test, and nothing is certified on val, "
                "which is for choosing: give the share of train to hold out as test, or rename val to test"
            )
        raise ValueError(f"prepare.test_share is null: {root} has no splits train and test, so give the share")
