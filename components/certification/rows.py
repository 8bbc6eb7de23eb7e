"""The rows of a table as they are computed: those that are missing, and what is known of them already."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from components.certification import preset_radii, table
from components.certification.noise import ARITHMETIC
from components.certification.procedures import Procedure
from components.certification.sampling import Sampler, answered
from components.certification.side_by_side import Stopping, certify_images
from components.certification.table import PartialTable, display_radius
from components.model.card import ModelCard
from components.tools.device import cores_of_this_rank
from components.tools.files import read_json
from components.tools.progress import Progress


def check_fit(card: ModelCard, sigma: float, image_shape: list[int], classes: list[str], model: Path) -> None:
    """Raises ValueError where the weights in the folder `model` were trained for other data or another sigma."""
    if card.sigma != sigma:
        raise ValueError(f"{model} was trained at sigma {card.sigma}, not {sigma}: train it again")
    if (card.image_shape, card.classes) != (image_shape, classes):
        raise ValueError(f"{model} was trained on other image shapes or classes: train it again")


def common_facts(sampler: Sampler) -> dict[str, Any]:
    """What a row is a function of in every procedure, besides image, weights, noise and code."""
    return {
        "arithmetic": ARITHMETIC,
        "grid": sampler.grid,
        "thresholds_sha256": sampler.normal.sha256,
        "precision": sampler.precision,
        "compiled": sampler.compiled,
        "block": sampler.block,
        "threads": 1,
        "device": sampler.device.type,
        "torch": version("torch"),
    }


def certify_missing(
    procedure: Procedure,
    sampler: Sampler,
    rows: PartialTable,
    indices: Sequence[int],
    *,
    image: Callable[[int], Tensor],
    labels: np.ndarray,
    earlier: dict[int, str],
    stopping: Stopping,
) -> None:
    """Certify those of the images that have no row yet, and add their rows, until `stopping` ends it.

    Args:
        rows: their identity holds the seed of the noise.
        image: reads an image by its number: int32 (C, H, W), in steps of the sampler's grid.
        labels: of all images, by their number.
        earlier: rows of the same procedure with fewer samples, by image: they are topped up.
    """
    seed = rows.identity["seed"]

    def certify(image: Tensor, index: int) -> Any:
        row = earlier.get(index)
        start = table.samples(row) if row else 0
        stream = sampler.stream(image, seed=seed, index=index, start=start, before_block=stopping.give_up_in_time)
        return answered(procedure.start(index, row), stream.count)

    missing = ((index, image(index)) for index in indices if index not in rows.lines)
    done = [rows.lines[index] for index in indices if index in rows.lines]
    running = RunningMetrics(procedure.facts["mode"], procedure.watched_radius, done)
    workers = 1 if sampler.device.type == "cuda" else cores_of_this_rank()
    process = f" (process {int(os.environ['RANK']) + 1})" if "RANK" in os.environ else ""
    with Progress(f"certify σ={sampler.sigma}{process}", len(indices), "images", done=len(done)) as progress:
        for index, certificate in certify_images(missing, certify, workers=workers, stopping=stopping):
            line = procedure.format_row(index, int(labels[index]), certificate)
            rows.append(index, line)
            progress.advance(note=running.add(line))


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


def earlier_rows(partial_tables: Path, identity: dict[str, Any]) -> dict[int, str]:
    """By image, the row with most samples of the same sequential certification at smaller n: to be topped up.

    A folder without an identity is passed over: another process may have made it this very second. So is a spoilt one.
    """
    if identity["mode"] != "sequential":
        return {}
    found = []
    for folder in sorted(partial_tables.glob("*/")):
        if not (folder / table.IDENTITY).exists():
            continue
        try:
            other = read_json(folder / table.IDENTITY, f"remove {folder}")
            fewer = isinstance(other.get("n"), int) and other["n"] < identity["n"]
            if fewer and other | {"n": identity["n"]} == identity:
                found.append((other["n"], table.read_partial(folder, preset_radii.COLUMNS)))
        except (ValueError, OSError) as error:
            print(f"no earlier rows are taken from {folder}: {error}", file=sys.stderr)
    return {index: line for _, lines in sorted(found, key=lambda item: item[0]) for index, line in lines.items()}
