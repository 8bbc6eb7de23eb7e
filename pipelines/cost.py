"""What a recipe will cost on this machine: a few real steps are measured, the rest is arithmetic."""

import math
import sys
import time
from dataclasses import replace
from typing import Any

import torch
import yaml

from components.cost.counts import Counts, count
from components.cost.estimate import OTHER_STAGES, Estimate, Measured, estimate, suggestions
from components.cost.measure import Data, Speed, speed
from components.data import manifest
from components.data.prepared import Description, load_description
from components.data.sources.memory import usable_memory
from components.data.streaming import FileSplit, open_split
from components.evaluation.report import text_table
from components.model import networks
from components.params import Params, level_key
from components.parsing import read_yaml
from components.tools.device import available_cores
from components.tools.wording import counted
from pipelines import artifacts

SECONDS = 8.0
"""What measuring takes, all noise levels together, beside setting them up."""
SMALLER = {"resnet50": "resnet20", "resnet110": "resnet20", "resnet20": "small_convnet", "lenet": "small_convnet"}
"""A network that takes less time, by name; for networks that are not ours resnet20."""


def run(params: Params, image_shape: tuple[int, int, int]) -> None:
    """Measure and print; nothing is written."""
    start, began = time.process_time(), time.monotonic()  # a stage, too, begins with what this process did until now
    counts, data, known_from = what_there_is(params, image_shape)
    measured = measure(params, data, start, SECONDS / len(params.sigmas))
    smaller = measure_smaller(params, data, measured, SECONDS / 4)
    took = time.monotonic() - began
    print(
        f"{counted(counts.train, 'training images', form=',')} and {counted(counts.test, 'test images', form=',')} "
        f"({known_from}); measured for {took:.0f} s on {place()}"
    )
    now = estimate(params, counts, measured)
    print(table(now))
    print(memory(measured, data))
    for note in notes(params, measured, data):
        print(note)
    rows = [
        [found.change, *totals(found.estimate), found.price] for found in suggestions(params, counts, measured, smaller)
    ]
    if rows:
        print("\nTo make it shorter, each change alone:")
        print(left_aligned(["in params.yaml", "train", "certify", "total", "what it costs"], rows))


def what_there_is(params: Params, image_shape: tuple[int, int, int]) -> tuple[Counts, Data, str]:
    """Numbers of images, what they are like, and how that is known.

    Raises:
        ValueError: the prepare stage must run first.
    """
    root = artifacts.source_root(params.prepare.root)
    if description := prepared(params, image_shape):
        split = open_split(artifacts.TRAIN_SPLIT, root) if (artifacts.TRAIN_SPLIT / manifest.FILE).exists() else None
        counts = Counts(description.train_images, description.test_images, len(description.classes))
        return counts, Data(description, split if isinstance(split, FileSplit) else None), "prepared"
    counts = count(params.prepare, root)
    if not counts.train or not counts.test:
        what = "training" if not counts.train else "test"
        raise ValueError(f"prepare.source is {params.prepare.source}: gives no {what} image, of {counts.train} in all")
    facts: dict[str, Any] = {"source": params.prepare.source, "origin": "", "mean": None, "std": None}
    facts |= {"train_sha256": "", "test_sha256": "", "max_value": 255, "image_shape": list(image_shape)}
    facts |= {"train_images": counts.train, "test_images": counts.test}
    return counts, Data(Description(classes=list(map(str, range(counts.classes))), **facts)), "not prepared yet"


def prepared(params: Params, image_shape: tuple[int, int, int]) -> Description | None:
    """The description of the prepared data, if the parameters are still those that it was prepared with."""
    try:
        description = load_description(artifacts.DESCRIPTION)
    except ValueError:
        return None
    if (description.source, description.image_shape) != (params.prepare.source, list(image_shape)):
        return None
    lock = artifacts.PARAMS.with_name("dvc.lock")
    if lock.exists():
        stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
        with_params = stages.get("prepare", {}).get("params", {}).get("params.yaml")
        if with_params and with_params["prepare"] != read_yaml(artifacts.PARAMS)["prepare"]:
            return None
    return description


def measure(params: Params, data: Data, start: float, seconds: float) -> Measured:
    """All noise levels, each for some seconds."""
    speeds = {}
    for sigma in params.sigmas:
        print(f"measuring {params.train.network} at sigma {sigma}", file=sys.stderr, flush=True)
        speeds[sigma] = speed(params, sigma, data, seconds)
    return Measured(speeds, start)


def measure_smaller(params: Params, data: Data, measured: Measured, seconds: float) -> tuple[str, Measured] | None:
    """What a smaller network would do, if there is one: measured at one noise level, whose gain is that of all."""
    name = SMALLER.get(params.train.network, "resnet20") if params.train.network != "small_convnet" else None
    channels, height, width = data.description.image_shape
    if name is None or not networks.fits(name, (channels, height, width)):
        return None
    smaller: Any = {"network": name}
    sigma = params.sigmas[0]
    print(f"measuring {name} at sigma {sigma}", file=sys.stderr, flush=True)
    quick = speed(replace(params, train=replace(params.train, **smaller)), sigma, data, seconds)
    known = measured.speeds[sigma]
    train, samples = quick.train_images / known.train_images, quick.samples / known.samples

    def gained(speed: Speed) -> Speed:
        return replace(speed, train_images=train * speed.train_images, samples=samples * speed.samples)

    return name, Measured({sigma: gained(speed) for sigma, speed in measured.speeds.items()}, measured.start)


def table(now: Estimate) -> str:
    """Time per stage and noise level, and in all."""
    rows = [
        [level_key(sigma), duration(train), duration(now.certify[sigma]), duration(train + now.certify[sigma])]
        for sigma, train in now.train.items()
    ]
    rows.append(["all", *totals(Estimate(now.train, now.certify, 0.0))])
    return (
        text_table(["sigma", "train", "certify", "both"], rows)
        + f"\n{', '.join(OTHER_STAGES)}: {duration(now.others)}, most of it to start them"
        + f"\ntotal: {duration(now.total)}, one stage after another"
    )


def totals(times: Estimate) -> list[str]:
    """Training, certification, everything."""
    return [duration(sum(times.train.values())), duration(sum(times.certify.values())), duration(times.total)]


def duration(seconds: float) -> str:
    """For people: in minutes, long ones in hours or days."""
    for size, unit in ((86400.0, "days"), (3600.0, "h")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.1f} min"


def memory(measured: Measured, data: Data) -> str:
    """The most memory that one stage takes: what was measured, and the images of a training, which were not loaded."""
    description = data.description
    images = 0 if data.files else math.prod(description.image_shape) * description.train_images
    most = max(speed.memory for speed in measured.speeds.values()) + images
    line = f"peak memory of a stage: {gibibytes(most)} of {gibibytes(usable_memory())}"
    gpu = max(speed.gpu_memory for speed in measured.speeds.values())
    if gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        line += f"; of the GPU: {gibibytes(gpu + images)} of {gibibytes(total)}"
    return line


def gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def place() -> str:
    """The device and its size."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return counted(available_cores(), "cores")


def notes(params: Params, measured: Measured, data: Data) -> list[str]:
    """What the figures leave out or guess."""
    said = []
    share = min(speed.batch_share for speed in measured.speeds.values())
    if share < 1:
        said.append(f"a whole training step takes too long to measure: {share:.1%} of the batch was taken, and scaled")
    if params.certify.mode == "sequential":
        said.append("certify: the samples of preset radii are those that the digits took; yours may need others")
    if params.certify.early_abstention:
        said.append("certify: at most, as early_abstention ends some images sooner")
    if params.train.processes > 1:
        said.append("train: without the messages between the processes")
    if params.prepare.source == "imagenet" and data.files is None:
        said.append("train: without decoding the files, which are not prepared yet")
    return said


def left_aligned(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first and last columns are texts."""
    width = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            [
                row[0].ljust(width[0]),
                *(cell.rjust(size) for cell, size in zip(row[1:-1], width[1:-1], strict=True)),
                row[-1],
            ]
        )
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
