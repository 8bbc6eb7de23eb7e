"""The table of certificates: one row per image, in the field's tab-separated form, and the identity beside it."""

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from components.certification.bounds import DECIMALS, round_down
from components.tools.files import read_json, write_json, write_text

COLUMNS = ["idx", "label", "predict", "radius", "correct", "selected", "counts", "n0", "n", "p_lower", "p_upper"]
"""The first five are the field's. `counts` lists the n estimation samples per class, separated by spaces; what they
lack of n was lost. p_lower and p_upper bound the probabilities of `selected` and of every other class."""


ABSTAIN = -1
T = TypeVar("T")
Counting = Generator[int, np.ndarray, T]
"""A procedure for one image. Until it has an answer it yields a number of samples, and is sent how often each class won
among the next samples of that number; what the counts lack of it are lost samples (see `discrete_normal`), which might
have gone to any class. Whoever draws them may draw those of other images beside them."""


@dataclass(frozen=True)
class Certificate:
    """With probability >= 1 - failure_prob over the sampling, the smoothed classifier answers `predict` on the whole
    open L2 ball of `radius` around the image; `ABSTAIN` claims nothing."""

    predict: int
    radius: float
    selected: int
    """The class chosen on the first n0 samples, also where the bound did not suffice."""
    counts: list[int]
    """Of the n estimation samples that were not lost, how many fell to each class."""
    n0: int
    n: int
    p_lower: float
    p_upper: float


class Row(Protocol):
    """What every table says of an image."""

    @property
    def predict(self) -> int: ...
    @property
    def radius(self) -> float: ...
    @property
    def selected(self) -> int: ...
    @property
    def counts(self) -> list[int]: ...
    @property
    def n0(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def p_lower(self) -> float: ...
    @property
    def p_upper(self) -> float: ...


def format_row(index: int, label: int, certificate: Row) -> str:
    """One line of the table. Radius and bounds were rounded to the decimals that are written."""
    values = [
        index,
        label,
        certificate.predict,
        f"{certificate.radius:.{DECIMALS}f}",
        int(certificate.predict == label),
        certificate.selected,
        " ".join(map(str, certificate.counts)),
        certificate.n0,
        certificate.n,
        f"{certificate.p_lower:.{DECIMALS}f}",
        f"{certificate.p_upper:.{DECIMALS}f}",
    ]
    return "\t".join(map(str, values)) + "\n"


def score(line: str) -> float:
    """What a row adds to the ACR: its radius where the right class is certified, else 0."""
    row = values_of(line)
    return float(row["radius"]) * int(row["correct"])


def samples(line: str) -> int:
    """How many samples a row took."""
    row = values_of(line)
    return int(row["n0"]) + int(row["n"])


def values_of(line: str, columns: list[str] = COLUMNS) -> dict[str, str]:
    """A row's values by column; what it has beyond the columns is left out."""
    return dict(zip(columns, line.rstrip("\n").split("\t"), strict=False))


class PartialTable:
    """Rows kept on disk as they are computed, so that a killed run loses at most the images in flight.

    Each process of a certification appends to a file of its own, and sees the rows of all of them as they were when it
    started.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], columns: list[str], own: str = "rows-0.tsv") -> None:
        """Open or continue the rows of one certification; a torn last line is dropped.

        Args:
            identity: all that a row is a function of, besides the image's number.
            own: the name of this process's file, rows-*.tsv, among those of the others.

        Raises:
            ValueError: the folder holds rows of another identity.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.identity, self._columns = folder, identity, columns
        if (folder / IDENTITY).exists():
            require_same_identity(folder, identity)
        else:
            write_json(folder / IDENTITY, identity)
        self.own = folder / own
        self._file = self.own.open("ab")
        self._file.truncate(sum(map(len, whole_lines(self.own, columns))))
        self.lines = self.reread()

    def reread(self) -> dict[int, str]:
        """The rows of all processes so far, by image."""
        return read_partial(self.folder, self._columns)

    def append(self, index: int, line: str) -> None:
        self._file.write(line.encode())
        self._file.flush()
        self.lines[index] = line

    def merge(self, folder: Path) -> int:
        """Take the rows of a partial table that was computed elsewhere, unless they are here; how many were new.

        Raises:
            ValueError: it has another identity (weights, precision, seed, n, ...): the differences are named.
        """
        require_same_identity(folder, self.identity)
        new = {i: line for i, line in read_partial(folder, self._columns).items() if i not in self.lines}
        for index, line in new.items():
            self.append(index, line)
        return len(new)

    def close(self) -> None:
        self._file.close()


IDENTITY = "identity.json"


def require_same_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Raises ValueError naming what differs between the identity in `folder` and `identity`."""
    found = read_json(folder / IDENTITY, "copy the whole folder of a partial table")
    names = [name for name in {**identity, **found} if identity.get(name) != found.get(name)]
    if names:
        named = ", ".join(f"{name} ({found.get(name)!r} there, {identity.get(name)!r} here)" for name in names)
        raise ValueError(f"{folder} holds rows of another certification, which cannot be merged: {named}")


def read_partial(folder: Path, columns: list[str]) -> dict[int, str]:
    """The rows of all processes in a partial table's folder, by image."""
    lines = [line for path in sorted(folder.glob("rows-*.tsv")) for line in whole_lines(path, columns)]
    return {int(line.split(b"\t", 1)[0]): line.decode() for line in lines}


def whole_lines(path: Path, columns: list[str]) -> list[bytes]:
    """The lines of a file of rows, up to the first that is torn."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    broken = (
        i
        for i, line in enumerate(lines)
        if not line.endswith(b"\n") or len(fields := line.split(b"\t")) != len(columns) or not fields[0].isdigit()
    )
    return lines[: next(broken, len(lines))]


def write(path: Path, rows: Iterable[str], columns: list[str] = COLUMNS) -> None:
    """The whole table, moved into place when complete."""
    write_text(path, "\t".join(columns) + "\n" + "".join(rows))


def read(path: Path) -> pd.DataFrame:
    """A table of ours, or any table in the field's form (`idx label predict radius correct ...`).

    Raises:
        ValueError: missing file, missing column, a value that is no number, a doubled image.
    """
    try:
        table = pd.read_csv(path, sep="\t")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}): certify again") from None
    missing = [column for column in COLUMNS[:5] if column not in table]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}: not a table of certificates")
    numeric = [column for column in COLUMNS if column in table and column != "counts"]
    numbers = table[numeric].apply(pd.to_numeric, errors="coerce")
    if numbers.isna().any(axis=None) or table["idx"].duplicated().any() or not len(table):
        raise ValueError(f"{path} is torn, empty or holds an image twice: certify again")
    table[numeric] = numbers
    return table


def display_radius(radius: float, decimals: int = 3) -> str:
    """A radius for people: rounded down, like the one in the file."""
    return f"{math.floor(round_down(radius) * 10**decimals) / 10**decimals:.{decimals}f}"
