"""Certify the test images at one noise level; continues where an interrupted run of the same certification stopped.

Several processes share the images under torchrun, or with `certify.processes`; the table is the same.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.certification import table
from components.certification.procedures import PROCEDURES, Procedure
from components.certification.rows import certify_missing, check_fit, common_facts, earlier_rows
from components.certification.sampling import Sampler
from components.certification.side_by_side import Stopping
from components.certification.table import PartialTable
from components.data.image_files import decoder_version
from components.data.prepared import Split, load_description
from components.data.streaming import FileSplit, on_grid, open_split
from components.model import weights
from components.params import Params
from components.tools import world
from components.tools.device import use_device
from components.tools.files import claim, write_json
from components.tools.hashing import derive_seed, hash_code
from components.tools.wording import counted
from pipelines import artifacts
from pipelines.cli import StoppedEarly, add_max_minutes, run_stage_at_sigma, stop_requests


def add_options(parser: argparse.ArgumentParser) -> None:
    add_max_minutes(parser)
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="add the rows of partial tables that were computed elsewhere (folders of .state/partial_tables)",
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
    merge: Sequence[Path] = (),
    model: Path | None = None,
    to: Path | None = None,
) -> None:
    deadline = time.monotonic() + 60 * max_minutes
    job = set_up(params, sigma, model or artifacts.model(sigma))
    partial_table = artifacts.partial_table(job.identity)

    ranks = world.current()
    remedy = "give all of them the same params.yaml, model, data, code and torch"
    ranks.compare(job.identity | {"images": len(job.indices)}, remedy)
    if ranks.rank == 0:
        claim(partial_table)
    ranks.meet()
    rows = PartialTable(partial_table, job.identity, job.procedure.columns, shard=ranks.rank)
    if merge and ranks.rank == 0:
        for folder in merge:
            print(f"{counted(rows.merge(folder), 'new rows')} from {folder}")
    ranks.meet()
    rows.lines = rows.reread()
    with stop_requests() as stop_asked:
        certify_shard(job, rows, job.indices[ranks.rank :: ranks.size], Stopping(deadline, stop_asked))
    rows.close()
    if stop_asked() and ranks.size > 1:
        raise KeyboardInterrupt  # do not wait for the other processes, which may not have been asked
    ranks.meet()
    lines = rows.reread()
    if missing := sum(index not in lines for index in job.indices):
        raise StoppedEarly(f"stopped after {len(job.indices) - missing} of {counted(len(job.indices), 'images')}")
    if ranks.rank == 0:
        write(job, lines, to or artifacts.certificates(sigma).parent)


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
    device = use_device(threads=1)  # images run side by side instead, which changes no result
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


def certify_shard(job: Job, rows: PartialTable, indices: range, stopping: Stopping) -> None:
    """Add the missing rows of this process's images."""
    earlier = earlier_rows(artifacts.partial_tables(), job.identity)
    images: Any = {"image": job.image, "labels": job.split.labels}
    certify_missing(job.procedure, job.sampler, rows, indices, **images, earlier=earlier, stopping=stopping)


def write(job: Job, lines: dict[int, str], folder: Path) -> None:
    """Write the table in the order of the images, and its identity: that of the rows, and the choice of images."""
    sigma = job.identity["sigma"]
    rows = (lines[index] for index in job.indices)
    table.write(folder / artifacts.certificates(sigma).name, rows, job.procedure.columns)
    which = {"every": job.indices.step, "images": len(job.indices)}
    write_json(folder / artifacts.certificates_identity(sigma).name, job.identity | which)


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__, processes=lambda params: params.certify.processes, add_options=add_options)
