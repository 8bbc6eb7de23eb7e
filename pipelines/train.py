"""Train at one noise level; continues from the newest checkpoint of the same parameters, data and code."""

import argparse
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from components.data.image_files import decoder_version
from components.data.prepared import Description, Split, load_description
from components.data.streaming import FileSplit, open_split
from components.model import networks, weights
from components.params import METHOD_SECTIONS, Params, Train
from components.registry.live import LiveHistory
from components.tools.device import use_device
from components.tools.files import claim, write_json, write_text
from components.tools.hashing import derive_seed, hash_code, hash_value
from components.tools.progress import Progress
from components.tools.provenance import provenance
from components.training import checkpoint
from components.training.checks import check_data
from components.training.fit import Training, fit, images_per_epoch, make_optimizer
from components.training.ranks import Ranks, joined, share_batch_norm
from pipelines import artifacts
from pipelines.cli import StoppedEarly, add_max_minutes, positive, run_stage_at_sigma, stop_requests

REPORT_EVERY_SECONDS = 1.0
NOTHING, REPORT, SAVE, STOP = range(4)
"""What may be due between two steps; each includes the one before."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What changes when a training stops or saves, never what it ends with."""
    add_max_minutes(parser)
    parser.add_argument(
        "--checkpoint-seconds", type=positive, default=60.0, help="between two checkpoints (default: %(default)g)"
    )


@dataclass(frozen=True)
class Job:
    """What a training is a function of, and where it runs."""

    params: Params
    sigma: float
    settings: Train
    description: Description
    split: Split | FileSplit
    device: torch.device
    processes: Ranks

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that the weights are a function of; its hash is the training's key."""
        common, method = asdict(self.settings), self.settings.method
        sections = {name: common.pop(name) for name in METHOD_SECTIONS}
        own = {f"{method}.{name}": value for name, value in sections.get(method, {}).items()}
        decoder = {"decoder": decoder_version()} if isinstance(self.split, FileSplit) else {}
        return {
            "sigma": self.sigma,
            **common,
            **own,
            "processes": self.processes.size,
            "seed": self.params.seed,
            "device": self.device.type,
            "torch": version("torch"),
            "data_sha256": self.description.sha256,
            **decoder,
            "code_sha256": hash_code(artifacts.TRAINING_CODE),
        }

    @cached_property
    def key(self) -> str:
        return hash_value(self.facts)

    @cached_property
    def checkpoints(self) -> Path:
        return artifacts.checkpoints(self.key)


def run(params: Params, sigma: float, max_minutes: float, checkpoint_seconds: float) -> None:
    deadline = time.monotonic() + 60 * max_minutes
    settings, description = params.train_at(sigma), load_description(artifacts.DESCRIPTION)
    channels, height, width = description.image_shape
    networks.check_fit(settings.network, (channels, height, width))
    split = open_split(artifacts.TRAIN_SPLIT, artifacts.source_root(params.prepare.root))
    device = use_device(settings.threads)
    with joined(device) as processes:
        job = Job(params, sigma, settings, description, split, device, processes)
        if processes.first:
            claim(job.checkpoints)
        processes.largest(0)  # the others wait until it is ours
        training = start_or_resume(job)
        train(training, job, Schedule(processes, deadline, checkpoint_seconds))
        if processes.first:
            save_model(training.network, job)
            write_text(artifacts.history(sigma), pd.DataFrame(map(asdict, training.history)).to_csv(index=False))
            write_json(artifacts.provenance(sigma), provenance())


def start_or_resume(job: Job) -> Training:
    """The training as its newest checkpoint has it, or at its start; the same in every process."""
    channels, height, width = job.description.image_shape
    torch.manual_seed(derive_seed(job.params.seed, "weights"))
    network = networks.build(
        job.settings.network,
        (channels, height, width),
        len(job.description.classes),
        job.description.mean,
        job.description.std,
    ).to(job.device)
    share_batch_norm(network, job.processes)
    training = Training(network, make_optimizer(network, job.settings))
    if state := checkpoint.load_newest(job.checkpoints, job.key, job.device, say=job.processes.first):
        training.load_state(state)
        if job.processes.first:
            print(f"continuing after {training.position(job.settings.epochs)} from {job.checkpoints}")
    steps = training.epoch * 10**9 + training.step
    if job.processes.largest(steps) != -job.processes.largest(-steps):
        raise ValueError(f"the processes see different checkpoints: {job.checkpoints} must be one folder for all")
    return training


class Schedule:
    """When to report, save and stop. It goes by the clock, which no result depends on, and alike in all processes."""

    def __init__(self, processes: Ranks, deadline: float, checkpoint_seconds: float) -> None:
        """Args:
        deadline: when to stop, on the monotonic clock.
        """
        self._processes, self._deadline, self._checkpoint_seconds = processes, deadline, checkpoint_seconds
        self._reported = self._saved = time.monotonic()

    def due(self, *, stop_asked: bool, epoch_done: bool) -> int:
        """NOTHING, REPORT, SAVE or STOP."""
        now, due = time.monotonic(), NOTHING
        if stop_asked or now >= self._deadline:
            due = STOP
        elif epoch_done or now - self._saved >= self._checkpoint_seconds:
            due = SAVE
        elif now - self._reported >= REPORT_EVERY_SECONDS:
            due = REPORT
        due = self._processes.largest(due)
        if due >= REPORT:
            self._reported = now
        if due >= SAVE:
            self._saved = now
        return due


def train(training: Training, job: Job, schedule: Schedule) -> None:
    """Train to the end.

    Raises:
        StoppedEarly: at the deadline, or on SIGINT or SIGTERM; a checkpoint is saved.
        FloatingPointError: a loss or the weights are not finite; no checkpoint holds such a state.
        OSError: a checkpoint could not be written.
    """
    labels = torch.from_numpy(job.split.labels).to(job.device)
    pixels = job.split if isinstance(job.split, FileSplit) else torch.from_numpy(job.split.images).to(job.device)
    check_data(pixels, labels, classes=job.description.classes, max_value=job.description.max_value)
    steps = fit(
        training,
        pixels,
        labels,
        max_value=job.description.max_value,
        sigma=job.sigma,
        settings=job.settings,
        seed=job.params.seed,
        processes=job.processes,
    )
    with stop_requests() as stop_asked, Spectator(training, job, images_per_epoch(len(labels), job.settings)) as told:
        try:
            for images in steps:
                due = schedule.due(stop_asked=stop_asked(), epoch_done=training.step == 0)
                if due == REPORT:
                    training.check_finite()
                elif due >= SAVE:  # which checks too
                    save_checkpoint(training, job)
                told.after_step(images, due)
                if due == STOP and training.epoch < job.settings.epochs:
                    raise StoppedEarly(f"stopped after {training.position(job.settings.epochs)}")
        except FloatingPointError as error:
            good = checkpoint.newest(job.checkpoints)
            raise FloatingPointError(f"{error}; the last good checkpoint is {good or 'the start'}") from None


def save_checkpoint(training: Training, job: Job) -> None:
    """Written by the first process; where that fails, it fails in all of them."""
    state, error = training.state(), None
    if job.processes.first:
        try:
            checkpoint.save(job.checkpoints, job.key, training.epoch, training.step, state)
        except OSError as failure:
            error = failure
    if job.processes.largest(error is not None):
        raise error or OSError("the first process could not write the checkpoint")


class Spectator:
    """Shows a training while it runs: a line of progress, and the history in MLflow. In the first process alone."""

    def __init__(self, training: Training, job: Job, per_epoch: int) -> None:
        self._training, self._epochs = training, job.settings.epochs
        self._shown, self._note = training.epoch, ""
        self._silent = not job.processes.first
        total, done = job.settings.epochs * per_epoch, training.epoch * per_epoch + training.images
        self._progress = Progress(f"train σ={job.sigma}", total, "images", done)
        self._live = LiveHistory(artifacts.tracking_store(), job.params.register.name, job.key, job.facts)
        self._open = ExitStack()

    def __enter__(self) -> "Spectator":
        if not self._silent:
            self._open.enter_context(self._progress)
            self._open.enter_context(self._live)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)

    def after_step(self, images: int, due: int) -> None:
        """Count a step's images; where a report is due, read the figures, which waits for the device."""
        if self._silent:
            return
        for stats in self._training.history[self._shown :]:
            self._live.log(stats)
        self._shown = self._training.epoch
        if due >= REPORT:
            loss, accuracy = self._training.running()
            self._note = f"{self._training.position(self._epochs)}, "
            self._note += f"loss {loss:.3f}, accuracy under noise {accuracy:.3f}"
        self._progress.advance(images, self._note)


def save_model(network: nn.Module, job: Job) -> None:
    """Weights and card."""
    weights.save(
        network,
        artifacts.model(job.sigma),
        sigma=job.sigma,
        network=job.settings.network,
        precision=job.settings.precision,
        image_shape=job.description.image_shape,
        classes=job.description.classes,
        mean=job.description.mean,
        std=job.description.std,
        training_key=job.key,
        training=job.facts,
        data_sha256=job.description.sha256,
    )


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__, processes=lambda params: params.train.processes, add_options=add_options)
