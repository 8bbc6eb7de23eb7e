"""Certify the test images at one noise level; continues where an interrupted run of the same certification stopped.

Several processes share the images under torchrun, or with `certify.processes`; the table is the same.
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.certification import preset_radii, table
from components.certification.cohen import certify_images
from components.certification.procedures import PROCEDURES, Procedure
from components.certification.sampling import Sampler
from components.certification.table import PartialTable, display_radius
from components.data.image_files import decoder_version
from components.data.prepared import Description, Split, load_description
from components.data.streaming import FileSplit, open_split, to_unit_interval
from components.model import weights
from components.model.card import ModelCard
from components.params import Params
from components.tools import world
from components.tools.device import available_cores, use_device
from components.tools.files import claim, read_json, write_json
from components.tools.hashing import derive_seed, hash_code, hash_value
from components.tools.progress import Progress
from pipelines import artifacts
from pipelines.cli import StoppedEarly, add_max_minutes, run_stage_at_sigma


def add_options(parser: argparse.ArgumentParser) -> None:
    add_max_minutes(parser)
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="take over the rows of partial tables that were computed elsewhere (folders of .state/partial_tables)",
    )
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="of the weights (default: outputs/models/SIGMA)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="of the table (default: outputs/certificates/SIGMA)")


def run(
    params: Params,
    sigma: float,
    max_minutes: float = math.inf,
    merge: Sequence[Path] = (),
    model: Path | None = None,
    to: Path | None = None,
) -> None:
    deadline = time.monotonic() + 60 * max_minutes
    model = model or artifacts.model(sigma)
    description = load_description(artifacts.DESCRIPTION)
    device = use_device(threads=1)  # images run side by side instead, which changes no result
    network, card = weights.load(model, device)
    check_fit(card, description, sigma, model)
    split = open_split(artifacts.TEST_SPLIT, artifacts.source_root(params.prepare.root))
    sampler = Sampler(
        network,
        sigma,
        image_shape=tuple(card.image_shape),
        num_classes=len(card.classes),
        precision=card.precision,
        compiled=params.certify.compile,
    )
    seed = derive_seed(params.seed, "certify", str(sigma))
    procedure = PROCEDURES[params.certify.mode](sampler, params.certify, seed)
    identity = procedure.facts | common_facts(sampler, card, description, seed)
    if isinstance(split, FileSplit):
        identity["decoder"] = decoder_version()
    indices = range(0, len(split.labels), params.certify.every)

    ranks = world.current()
    ranks.compare(
        identity | {"images": len(indices)}, "give all of them the same params.yaml, model, data, code and torch"
    )
    if ranks.rank == 0:
        claim(artifacts.partial_table(hash_value(identity)))
    ranks.meet()
    rows = PartialTable(artifacts.partial_table(hash_value(identity)), identity, procedure.columns, shard=ranks.rank)
    if merge and ranks.rank == 0:
        for folder in merge:
            print(f"{rows.merge(folder)} new rows from {folder}")
    ranks.meet()
    rows.lines = rows.reread()
    own = indices[ranks.rank :: ranks.size]
    certify_missing(procedure, sampler, rows, split, own, description.max_value, deadline)
    rows.close()
    ranks.meet()
    lines = rows.reread()
    if missing := sum(index not in lines for index in indices):
        raise StoppedEarly(f"stopped after {len(indices) - missing} of {len(indices)} images")
    if ranks.rank == 0:
        folder = to or artifacts.certificates(sigma).parent
        rows_in_order = (lines[index] for index in indices)
        table.write(folder / artifacts.certificates(sigma).name, rows_in_order, procedure.columns)
        write_json(folder / artifacts.certificates_identity(sigma).name, identity)


def certify_missing(
    procedure: "Procedure",
    sampler: Sampler,
    rows: PartialTable,
    split: Split | FileSplit,
    indices: Sequence[int],
    max_value: int,
    deadline: float,
) -> None:
    """Certify those of the images that have no row yet, and add their rows; no further ones after the deadline."""
    missing = [index for index in indices if index not in rows.lines]
    earlier = earlier_rows(rows.identity)
    images = ((index, to_unit_interval(torch.from_numpy(split.image(index)), max_value)) for index in missing)
    cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = 1 if sampler.device.type == "cuda" else max(1, cores)
    process = f" (process {int(os.environ['RANK']) + 1})" if "RANK" in os.environ else ""
    done = [rows.lines[index] for index in indices if index in rows.lines]
    running = RunningMetrics(procedure.facts["mode"], procedure.watched_radius, done)
    with Progress(f"certify σ={sampler.sigma}{process}", len(indices), "images", done=len(done)) as progress:
        certificates = certify_images(
            images, lambda image, index: procedure.certify(image, index, earlier.get(index)), workers=workers
        )
        for index, certificate in certificates:
            line = procedure.format_row(index, int(split.labels[index]), certificate)
            rows.append(index, line)
            progress.advance(note=running.add(line))
            if time.monotonic() >= deadline:
                break


class RunningMetrics:
    """What the progress line says of the rows so far."""

    def __init__(self, mode: str, watched_radius: float, lines: list[str]) -> None:
        self._preset = mode == "sequential"  # whose radii were chosen, not found: their mean says nothing
        self._radius, self._scores = watched_radius, [table.score(line) for line in lines]
        self._samples, self._start = 0, time.monotonic()

    def add(self, line: str) -> str:
        """Count a new row; the metrics with it."""
        self._scores.append(table.score(line))
        self._samples += table.samples(line)
        rate = self._samples / max(time.monotonic() - self._start, 1e-9)
        scores = np.array(self._scores)
        acr = "" if self._preset else f"ACR so far {display_radius(float(scores.mean()))}, "
        accuracy = (scores >= self._radius).mean()
        return f"{rate:,.0f} samples/s, {acr}certified accuracy at radius {self._radius:g}: {accuracy:.3f}"


def earlier_rows(identity: dict[str, Any]) -> dict[int, str]:
    """By image, the row with most samples of the same sequential certification at smaller n: to be topped up."""
    if identity["mode"] != "sequential":
        return {}
    found = []
    for folder in artifacts.partial_tables().glob("*/"):
        other = read_json(folder / table.IDENTITY, f"remove {folder}")
        if other["n"] < identity["n"] and other | {"n": identity["n"]} == identity:
            found.append((other["n"], table.read_partial(folder, preset_radii.COLUMNS)))
    return {index: line for _, lines in sorted(found, key=lambda item: item[0]) for index, line in lines.items()}


def check_fit(card: ModelCard, description: Description, sigma: float, model: Path) -> None:
    """Refuse weights that were trained for other data or another sigma."""
    if card.sigma != sigma:
        raise ValueError(f"{model} was trained at sigma {card.sigma}, not {sigma}: train it again")
    if (card.image_shape, card.classes) != (description.image_shape, description.classes):
        raise ValueError(f"{model} was trained on other image shapes or classes: train it again")


def common_facts(sampler: Sampler, card: ModelCard, description: Description, seed: int) -> dict[str, Any]:
    """What a row is a function of in every procedure, besides the image's number."""
    return {
        "sigma": card.sigma,
        "seed": seed,
        "weights_sha256": card.weights_sha256,
        "precision": sampler.precision,
        "compiled": sampler.compiled,
        "block": sampler.block,
        "threads": 1,
        "images_sha256": description.test_sha256,
        "device": sampler.device.type,
        "torch": version("torch"),
        "code_sha256": hash_code(artifacts.code_of("certify")),
    }


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__, processes=lambda params: params.certify.processes, add_options=add_options)
