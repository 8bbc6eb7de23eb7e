"""Own images by a table of their paths and labels: CSV or Parquet."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from components.data.picture_forms import Form
from components.data.sources.archive import open_folder
from components.data.sources.class_folders import Listing, name_problem, raise_for_files, read_listings
from components.data.sources.source import Source
from components.data.sources.splits import SPELLINGS, check_test_share, find_splits
from components.data.sources.visible import visible

TABLES = (".csv", ".parquet")
FIRST_ROW = 2
"""The number of a table's first row as a spreadsheet shows it, below the names of the columns."""


def table(root: Path, *, test_share: float | None, form: Form) -> Source:
    """Own images: a table with the columns path, label and, optionally, split; it may have others.

    A path is relative to the table's folder and stays below it. Labels are names of classes or whole numbers. Splits
    are train, val and test or the usual spellings. Without test, test images are drawn from train. The images become
    as those of `image_folder`.

    Args:
        root: the table, or a folder or archive with one table at its top.
        test_share: None where the table has a test split.
        form: what images are brought to; the bits are those of the deepest image.

    Raises:
        ValueError: naming the rows and every file that cannot be used, and the remedy.
    """
    if root.is_file() and root.name.endswith(TABLES):
        return _read_source(root, root, test_share, form)
    with open_folder(root, lambda folder: len(_tables(folder)) > 0) as folder:
        tables = _tables(folder)
        if len(tables) != 1:
            names = ", ".join(path.name for path in tables) or "none"
            raise ValueError(f"prepare.root is {root}: must be or hold one table, .csv or .parquet: it has {names}")
        return _read_source(tables[0], root, test_share, form)


def _tables(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in visible(folder) if entry.name.endswith(TABLES)]


def _read_source(path: Path, root: Path, test_share: float | None, form: Form) -> Source:
    frame = read_table(path, root)
    splits = _splits(frame, root)
    check_test_share(test_share, splits, root)
    problems = _row_problems(frame)
    raise_for_files(root, problems)
    of_train = frame["split"] == splits.get("train", "")
    classes = sorted(set(frame["label"][of_train]), key=_order(frame["label"]))
    if len(classes) < 2:
        raise ValueError(
            f"{root} must have train images of at least two classes: it has {', '.join(classes) or 'none'}"
        )
    if unknown := sorted(set(frame["label"]) - set(classes)):
        raise ValueError(
            f"{root}: no train image has the label {', '.join(unknown[:10])}, but others do: mend the labels"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    listings = {}
    for split, name in (splits or {"train": ""}).items():
        rows = frame[frame["split"] == name]
        listings[split] = Listing(classes, list(rows["path"]), rows["label"].map(numbers).to_numpy(dtype=np.int64))
    return read_listings(listings, [], path.parent, root, form=form, origin="table of images")


def read_table(path: Path, root: Path) -> pd.DataFrame:
    """The columns path, label and split as texts; split is empty throughout where the table has none.

    Raises:
        ValueError: the table cannot be read, lacks a column, or has a cell that is empty or no text or whole number.
    """
    try:
        if path.name.endswith(".csv"):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
        else:
            frame = pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError, ImportError) as error:
        raise ValueError(f"{root} cannot be read ({' '.join(str(error).split())}): save the table again") from None
    if missing := [name for name in ("path", "label") if name not in frame.columns]:
        has = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(
            f"{root} has no column {' nor '.join(missing)}: it has {has}: name the columns path, label, split"
        )
    if frame.empty:
        raise ValueError(f"{root} has no rows: give each image one")
    texts = {name: _as_text(frame[name], root) for name in ("path", "label", "split") if name in frame.columns}
    return pd.DataFrame({"split": ""} | texts, index=range(len(frame)))


def _as_text(column: "pd.Series[Any]", root: Path) -> list[str]:
    cells = column.astype(object).tolist()
    for number, cell in enumerate(cells, start=FIRST_ROW):
        if not isinstance(cell, str | int | np.integer) or isinstance(cell, bool) or str(cell).strip() == "":
            shown = "empty" if cell is None or cell != cell or cell == "" else repr(cell)
            raise ValueError(f"{root}: {column.name} in row {number} is {shown}: must be a text or a whole number")
    return [str(cell) for cell in cells]


def _splits(frame: pd.DataFrame, root: Path) -> dict[str, str]:
    """The table's own names of its splits; none where it has no column split."""
    names = set(frame["split"])
    if names == {""}:
        return {}
    for number, name in enumerate(frame["split"], start=FIRST_ROW):
        if name.lower() not in SPELLINGS:
            raise ValueError(f"{root}: split in row {number} is {name!r}: must be train, val or test")
    return find_splits(names, root)


def _row_problems(frame: pd.DataFrame) -> list[str]:
    """What is wrong with the paths, and the paths that stand in several rows."""
    problems: list[str] = []
    first: dict[PurePosixPath, tuple[int, str]] = {}
    for number, (path, label) in enumerate(zip(frame["path"], frame["label"], strict=True), start=FIRST_ROW):
        parts = PurePosixPath(path)
        if problem := name_problem(path) or name_problem(label):
            problems.append(f"{path!r} of row {number} ({problem})")
        elif parts.is_absolute() or ".." in parts.parts:
            problems.append(f"{path} of row {number} (leads out of the table's folder: write paths below it)")
        elif parts in first:
            before, its_label = first[parts]
            labels = f"labels {its_label} and {label}" if its_label != label else f"label {label}"
            problems.append(f"{path} (stands in the rows {before} and {number}, with the {labels})")
        else:
            first[parts] = number, label
    return problems


def _order(labels: "pd.Series[Any]") -> Any:
    """Whole numbers by their value, names by code point: the same order on every machine."""
    return int if all(label.removeprefix("-").isdecimal() and label.isascii() for label in labels) else str
