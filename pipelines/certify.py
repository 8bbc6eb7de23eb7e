"""Certify the test images at one noise level; continues where an interrupted run of the same certification stopped.

Several processes share the images under torchrun, or with `certify.processes`; machines that never meet take shards.
The table is the same.
"""

import argparse
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.certification import table
from components.certification.procedures import PROCEDURES, Procedure
from components.certification.rows import certify_missing, check_fit, common_facts, earlier_rows
from components.certification.sampling import Sampler
from components.certification.shards import WHOLE, Shard, abandoned, folder_of, no_rows, parse, unfinished
from components.certification.side_by_side import Stopping
from components.certification.table import IDENTITY, PartialTable
from components.data.image_files import decoder_version
from components.data.prepared import Split, load_description
from components.data.streaming import FileSplit, on_grid, open_split
from components.model import weights
from components.params import Params, level_key
from components.tools import world
from components.tools.device import use_device
from components.tools.files import claim, write_json
from components.tools.hashing import derive_seed, hash_code
from components.tools.remote import Remote, is_address
from components.tools.wording import counted
from pipelines import artifacts
from pipelines.cli import StoppedEarly, add_max_minutes, run_stage_at_sigma, stop_requests


def add_options(parser: argparse.ArgumentParser) -> None:
    add_max_minutes(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--shard",
        type=parse,
        metavar="i/N",
        help="compute the rows of every N-th image, and no table: at any time, in any order, on any machine",
    )
    parser.add_argument(
        "--rows",
        metavar="PLACE",
        help="folder, or address such as s3://bucket/folder, for the rows (default: .state/partial_tables)",
    )
    either.add_argument(
        "--merge",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="make the table of the rows that lie here and in these places; compute nothing",
    )
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="folder of the weights (default: outputs/models/SIGMA)"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="folder for the table (default: outputs/certificates/SIGMA)"
    )


def run(
    params: Params,
    sigma: float,
    max_minutes: float = math.inf,
    shard: Shard | None = None,
    rows: str | None = None,
    merge: Sequence[str] = (),
    model: Path | None = None,
    to: Path | None = None,
) -> None:
    deadline = time.monotonic() + 60 * max_minutes
    job = set_up(params, sigma, model or artifacts.model(sigma))
    key, to = artifacts.row_key(job.identity), to or artifacts.certificates(sigma).parent
    away = Remote(f"{rows}/{key}") if rows and is_address(rows) else None
    folder = artifacts.partial_tables(None if away else rows) / key
    ranks = world.current()
    if merge:
        if ranks.rank == 0:
            write(job, merged(job, folder, merge), to)
        return

    mine = (shard or WHOLE).divided(ranks.rank, ranks.size)
    remedy = "give all of them the same params.yaml, model, data, code and versions"
    ranks.compare(job.identity | {"images": len(job.indices), "shard": str(shard)}, remedy)
    if ranks.rank == 0:
        claim(shard.file(folder) if shard else folder)
        if away:
            away.fetch(folder)
    ranks.meet()
    claim(mine.file(folder))  # a shard on another machine may have the same file
    kept = PartialTable(folder, job.identity, job.procedure.columns, mine.file(folder).name)
    with stop_requests() as stop_asked, away.kept_up(folder / IDENTITY, kept.own) if away else nullcontext():
        stopping = Stopping(deadline, stop_asked)
        add_missing(job, kept, mine, stopping)
        for other in abandoned(folder, mine) if shard and not away and ranks.size == 1 else ():
            if not stopping.begins_no_more():
                add_missing(job, kept, other, stopping)
    kept.close()
    if stop_asked() and ranks.size > 1:
        raise KeyboardInterrupt  # do not wait for the other processes, which may not have been asked
    ranks.meet()
    lines, asked = kept.reread(), (shard or WHOLE).images(job.indices)
    if missing := sum(index not in lines for index in asked):
        raise StoppedEarly(f"stopped after {len(asked) - missing} of {counted(len(asked), 'images')}")
    if ranks.rank == 0 and shard is None:
        write(job, lines, to)


@dataclass(frozen=True)
class Job:
    """What is certified, and how."""

    sampler: Sampler
    procedure: Procedure
    identity: dict[str, Any]
    """All that a row depends on besides the image's number."""
    split: Split | FileSplit
    max_value: int
    """The pixel value that stands for 1.0."""
    indices: range
    """The numbers of the images, among those of the split."""

    def image(self, index: int) -> Tensor:
        return on_grid(torch.from_numpy(self.split.image(index)), self.max_value, self.sampler.grid)


def set_up(params: Params, sigma: float, model: Path) -> Job:
    """Weights, images and procedure, checked against each other."""
    description = load_description(artifacts.DESCRIPTION)
    device = use_device(1, params.certify.device)  # images run side by side instead, which changes no result
    network, card = weights.load(model, device)
    check_fit(card, sigma, description.image_shape, description.classes, model)
    split = open_split(artifacts.TEST_SPLIT, artifacts.source_root(params.prepare.root))
    sampler = Sampler(
        network,
        sigma,
        grid=card.grid,
        image_shape=tuple(card.image_shape),
        num_classes=len(card.classes),
        precision=card.precision,
        compiled=params.certify.compile,
        block=params.certify.block,
    )
    procedure = PROCEDURES[params.certify.mode](sigma, params.certify)
    identity = procedure.facts | common_facts(sampler)
    identity |= {
        "sigma": sigma,
        "seed": derive_seed(params.seed, "certify", str(sigma)),
        **card.content,
        "images_sha256": description.test_sha256,
        "code_sha256": hash_code(artifacts.code_of("certify")),
    }
    if isinstance(split, FileSplit):
        identity["decoder"] = decoder_version()
    indices = range(0, len(split.labels), params.certify.every)
    return Job(sampler, procedure, identity, split, description.max_value, indices)


def add_missing(job: Job, rows: PartialTable, shard: Shard, stopping: Stopping) -> None:
    """Add the rows that a shard lacks."""
    indices = shard.images(job.indices)
    if all(index in rows.lines for index in indices):
        return
    rows.lines = rows.reread()
    earlier = earlier_rows(artifacts.partial_tables(), job.identity)
    images: Any = {"image": job.image, "labels": job.split.labels}
    certify_missing(job.procedure, job.sampler, rows, indices, **images, earlier=earlier, stopping=stopping)


def merged(job: Job, folder: Path, locations: Sequence[str]) -> dict[int, str]:
    """The rows of all images, of which some lie elsewhere.

    Raises:
        StoppedEarly: some images have none; the shards are named, with the commands that compute them.
    """
    claim(folder)
    rows = PartialTable(folder, job.identity, job.procedure.columns)
    lacking: dict[Shard, str] = {}
    for location in locations:
        there, before = folder, len(rows.lines)
        if is_address(location):
            if not Remote(f"{location}/{folder.name}").fetch(folder):
                raise ValueError(no_rows(location))
            rows.lines = rows.reread()
        else:
            there = folder_of(Path(location), folder.name, job.identity)
            rows.merge(there)
        print(f"{counted(len(rows.lines) - before, 'new rows')} from {location}")
        lacking |= dict.fromkeys(unfinished(there, job.indices, rows.lines), location)
    rows.close()
    missing = sum(index not in rows.lines for index in job.indices)
    if missing:
        command = f"python -m pipelines.certify --sigma {level_key(job.identity['sigma'])}"
        named = [f"{command} --shard {shard} --rows {location}" for shard, location in lacking.items()]
        others = f" and {len(named) - 3} other shards" if len(named) > 3 else ""
        raise StoppedEarly(
            f"{counted(missing, 'images have', 'image has')} no row yet: compute them with "
            f"{', '.join(named[:3]) + others if named else command}"
        )
    return rows.lines


def write(job: Job, lines: dict[int, str], folder: Path) -> None:
    """Write the table in the order of the images, and its identity: that of the rows, and the choice of images."""
    sigma = job.identity["sigma"]
    rows = (lines[index] for index in job.indices)
    table.write(folder / artifacts.certificates(sigma).name, rows, job.procedure.columns)
    which = {"every": job.indices.step, "images": len(job.indices)}
    write_json(folder / artifacts.certificates_identity(sigma).name, job.identity | which)


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__, processes=lambda params: params.certify.processes, add_options=add_options)
