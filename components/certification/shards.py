"""Shards of a certification, for machines that never meet: each computes the rows of some of the images, at any time
and in any order. A row depends on its image's number alone, so the table that they make is that of one process."""

import argparse
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from components.certification.table import IDENTITY, require_same_identity
from components.tools.files import free, lock_of, read_json


class Shard(NamedTuple):
    """Shard `number` of `of`, counted from 1: every `of`-th image."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def images(self, indices: range) -> range:
        """Its share of the images' numbers."""
        return indices[self.number - 1 :: self.of]

    def divided(self, rank: int, size: int) -> "Shard":
        """What one of several processes computes of it: a shard, too."""
        return Shard(self.number + self.of * rank, self.of * size)

    def file(self, folder: Path) -> Path:
        """Its rows in the folder of all rows; whoever computes it has claimed this path."""
        return folder / f"rows-{self.number}-of-{self.of}.tsv"


WHOLE = Shard(1, 1)


def parse(text: str) -> Shard:
    """A shard on a command line, such as 3/8."""
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text} is not a shard i/N, such as 3/8, with i from 1 to N")
    return Shard(int(number), int(of))


def abandoned(folder: Path, shard: Shard) -> Iterator[Shard]:
    """The other shards that nobody is at work on, one after the other: those that a lost machine left, those that are
    done, and those that have not begun. Each is claimed while the caller has it."""
    for step in range(1, shard.of):
        other = Shard((shard.number - 1 + step) % shard.of + 1, shard.of)
        with free(lock_of(other.file(folder))) as nobody:
            if nobody:
                yield other


def unfinished(folder: Path, indices: range, rows: Collection[int]) -> list[Shard]:
    """Of the shards whose files lie in a folder, those that lack images.

    Where files of several numbers of shards lie there, the number that most have counts.
    """
    counts = Counter(int(path.stem.rpartition("-")[2]) for path in folder.glob("rows-*-of-*.tsv"))
    of = max(counts, key=lambda of: (counts[of], of), default=0)
    shards = (Shard(number, of) for number in range(1, of + 1))
    return [shard for shard in shards if any(index not in rows for index in shard.images(indices))]


def folder_of(location: Path, key: str, identity: dict[str, object]) -> Path:
    """The folder of a certification's rows: the location itself, or the one of this key in it.

    Raises:
        ValueError: there is none; where there are rows of another certification at this sigma, what differs is named.
    """
    if (location / IDENTITY).exists():
        return location
    if (location / key / IDENTITY).exists():
        return location / key
    for other in sorted(location.glob(f"*/{IDENTITY}")):
        if read_json(other, f"remove {other.parent}").get("sigma") == identity["sigma"]:
            require_same_identity(other.parent, identity)
    raise ValueError(no_rows(str(location)))


def no_rows(location: str) -> str:
    return (
        f"{location} has no rows of this certification: name the place that --rows named, and give all machines the "
        "same params.yaml, model, data, code and torch"
    )
