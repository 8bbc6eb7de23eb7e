"""The table of certificates: one row per image, in the field's tab-separated form, and the identity beside it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from components.certification.bounds import DECIMALS, round_down
from components.files import write_json, write_text

COLUMNS = ["idx", "label", "predict", "radius", "correct", "selected", "counts", "n0", "n", "p_lower"]
"""The first five are the field's; `counts` lists the n estimation samples per class, separated by spaces."""


ABSTAIN = -1


@dataclass(frozen=True)
class Certificate:
    """With probability >= 1 - failure_prob over the sampling, the smoothed classifier answers `predict` on the whole
    open L2 ball of `radius` around the image; `ABSTAIN` claims nothing."""

    predict: int
    radius: float
    selected: int
    """The class chosen on the first n0 samples, also where the bound did not suffice."""
    counts: list[int]
    """Of the n estimation samples, how many fell to each class."""
    p_lower: float


def format_row(index: int, label: int, certificate: Certificate, n0: int, n: int) -> str:
    """One line of the table. Radius and p_lower were rounded down to the decimals that are written."""
    values = [
        index,
        label,
        certificate.predict,
        f"{certificate.radius:.{DECIMALS}f}",
        int(certificate.predict == label),
        certificate.selected,
        " ".join(map(str, certificate.counts)),
        n0,
        n,
        f"{certificate.p_lower:.{DECIMALS}f}",
    ]
    return "\t".join(map(str, values)) + "\n"


def score(line: str) -> float:
    """What a row adds to the ACR: its radius where the right class is certified, else 0."""
    fields = line.split("\t")
    return float(fields[3]) * int(fields[4])


class PartialTable:
    """Rows kept on disk as they are computed, so that a killed run loses at most the image in flight."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open or continue the rows of one certification; a torn last line is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "identity.json", identity)
        self._path = folder / "rows.tsv"
        self.lines: dict[int, str] = {}
        kept = 0
        if self._path.exists():
            for line in self._path.read_bytes().splitlines(keepends=True):
                fields = line.decode(errors="replace").split("\t")
                if not line.endswith(b"\n") or len(fields) != len(COLUMNS):
                    break
                self.lines[int(fields[0])] = line.decode()
                kept += len(line)
        self._file = self._path.open("ab")
        self._file.truncate(kept)

    def append(self, index: int, line: str) -> None:
        self._file.write(line.encode())
        self._file.flush()
        self.lines[index] = line

    def close(self) -> None:
        self._file.close()


def write(path: Path, rows: Iterable[str]) -> None:
    """The whole table, moved into place when complete."""
    write_text(path, "\t".join(COLUMNS) + "\n" + "".join(rows))


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
