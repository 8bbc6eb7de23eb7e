"""Lists of image files that stay where they are: path, label and hash of the contents, one line per image."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = "manifest.tsv"
HEADER = "path\tlabel\tsha256"


@dataclass(frozen=True)
class Manifest:
    """One split's image files.

    Contents are identified by hash rather than by size and time: the same list then holds on every machine, and every
    file is read once anyway to see that it decodes.
    """

    paths: list[str]
    """Relative to the folder of the images (`prepare.root`), with forward slashes; without tabs or line breaks."""
    labels: np.ndarray
    """int64 (N,)."""
    hashes: list[str]
    """SHA-256 of each file's bytes."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self._text(), encoding="utf-8", newline="\n")

    def _text(self) -> str:
        rows = zip(self.paths, self.labels.tolist(), self.hashes, strict=True)
        return "\n".join([HEADER, *(f"{path}\t{label}\t{sha256}" for path, label, sha256 in rows)]) + "\n"


def load_manifest(folder: Path) -> Manifest:
    """Raises ValueError that names the file and, if a line is malformed, the line."""
    path, remedy = folder / FILE, "run the prepare stage again"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None
    if not (text.startswith(f"{HEADER}\n") and text.endswith("\n")):
        raise ValueError(f"{path} is torn: {remedy}")
    paths, labels, hashes = [], [], []
    for number, line in enumerate(text.split("\n")[1:-1], start=2):
        cells = line.split("\t")
        if len(cells) != 3 or not cells[1].isdecimal() or len(cells[2]) != 64:
            raise ValueError(f"{path} line {number} is {line!r}: {remedy}")
        paths.append(cells[0])
        labels.append(int(cells[1]))
        hashes.append(cells[2])
    return Manifest(paths, np.array(labels, dtype=np.int64), hashes)
