"""Train at one noise level; continues from the newest checkpoint of the same parameters, data and code."""

import argparse
import time
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from components import own_code
from components.data.image_files import decoder_version
from components.data.prepared import Description, Split, load_description, load_split
from components.data.streaming import FileSplit, as_tensor, grid_of, open_split
from components.model import networks, weights
from components.model.pretrained import read
from components.model.weights_files import TARGETS_KEY, identity
from components.params import OWN_METHOD, Params, Train
from components.registry.live import LiveHistory
from components.tools.device import use_device
from components.tools.files import claim, write_json, write_text
from components.tools.hashing import hash_code, hash_value
from components.tools.provenance import provenance
from components.training import checkpoint
from components.training.checks import check_data, check_method
from components.training.fit import fit
from components.training.objectives import method_of
from components.training.order import images_per_epoch
from components.training.ranks import Ranks, connected
from components.training.schedule import REPORT, SAVE, STOP, Schedule
from components.training.state import EpochStats, Training, begin, compare_ranks, normalisation
from components.training.targets import gaussian_network
from components.training.validation import Validation
from pipelines import artifacts
from pipelines.cli import StoppedEarly, add_max_minutes, positive, run_stage_at_sigma, stop_requests
from pipelines.spectator import NoSpectator, Spectator


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add options that change when a training stops or saves, but never its result."""
    add_max_minutes(parser)
    parser.add_argument(
        "--checkpoint-seconds", type=positive, default=60.0, help="time between two checkpoints (default: %(default)g)"
    )


@dataclass(frozen=True)
class Job:
    """All that a training depends on, and where it runs."""

    params: Params
    sigma: float
    settings: Train
    description: Description
    split: Split | FileSplit
    device: torch.device
    ranks: Ranks

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that the weights depend on; its hash is the training's key."""
        decoder = {"decoder": decoder_version()} if isinstance(self.split, FileSplit) else {}
        brought = self.settings.brought
        own = method_of(self.settings).own if "method" in brought else None
        return {
            "sigma": self.sigma,
            **self.settings.facts,
            **{f"{OWN_METHOD}.{name}": value for name, value in (asdict(own) if own else {}).items()},
            **{f"{field}_code_sha256": hash_value(own_code.find(name).facts) for field, name in brought.items()},
            "weights": self.weights_identity,
            **self.targets_identity,
            "processes": self.ranks.size,
            "seed": self.params.seed,
            "device": self.device.type,
            "torch": version("torch"),
            "data_sha256": self.description.sha256,
            **decoder,
            "code_sha256": hash_code(artifacts.code_of("train")),
        }

    @cached_property
    def weights_identity(self) -> str | None:
        """The content of the weights that the training starts from, whatever their path; None for new ones."""
        weights = self.settings.weights
        return None if weights is None else identity(weights, artifacts.weights_root())

    @cached_property
    def targets_identity(self) -> dict[str, str]:
        """The content of the model that catrs takes its targets from, whatever its path."""
        model = self.settings.targets
        return {} if model is None else {"catrs.targets": identity(model, artifacts.weights_root(), TARGETS_KEY)}

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
    shape, classes = (channels, height, width), len(description.classes)
    networks.check_fit(settings.network, shape, classes)
    check_method(settings, sigma, shape, classes)
    split = open_split(artifacts.TRAIN_SPLIT, artifacts.source_root(params.prepare.root))
    device = use_device(settings.threads, settings.device)
    with connected(device) as ranks:
        job = Job(params, sigma, settings, description, split, device, ranks)
        ranks.world.compare(job.facts, "give all of them the same params.yaml, data, code and versions")
        if ranks.is_main:
            claim(job.checkpoints)
        ranks.world.meet()  # the other ranks wait for the claim
        training = start_or_resume(job)
        if settings.epochs:
            train(training, job, Schedule(ranks, deadline, checkpoint_seconds))
        if ranks.is_main:
            save_model(training.network, job)
            write_text(artifacts.history(sigma), table_of(training).to_csv(index=False))
            write_json(artifacts.provenance(sigma), provenance())


def start_or_resume(job: Job) -> Training:
    """The training, restored from its newest checkpoint if there is one.

    Raises:
        ValueError: in every rank, if the ranks are at different steps or have different weights, or the weights that it
            starts from cannot be read or do not fit.
    """
    settings = job.settings
    found = settings.weights and read(settings.weights, settings.network, artifacts.weights_root())
    validation = find_validation(job)
    training = begin(settings, job.description, job.params.seed, job.device, job.ranks, found or None, validation)
    if state := checkpoint.load_newest(job.checkpoints, job.key, job.device, say=job.ranks.is_main):
        training.load_state(state)
        if job.ranks.is_main:
            print(f"continuing after {training.position(job.settings.epochs)} from {job.checkpoints}")
    compare_ranks(training, job.ranks, job.settings.epochs, job.checkpoints)
    return training


def find_validation(job: Job) -> Validation | None:
    """What is measured after each epoch; None without a validation split. The weights do not depend on it, so it is no
    part of `Job.facts`."""
    if not artifacts.VAL_SPLIT.exists():  # data that was prepared before there was such a split
        return None
    split = load_split(artifacts.VAL_SPLIT)
    if not len(split):
        return None
    pixels, labels = (as_tensor(array).to(job.device) for array in (split.images, split.labels))
    values = (job.description.max_value, job.sigma, job.settings, job.params.seed)
    return Validation(pixels, labels, *values, sha256=split.sha256, ranks=job.ranks)


def table_of(training: Training) -> pd.DataFrame:
    """The history, one row per epoch."""
    columns = [field.name for field in fields(EpochStats)]  # without an epoch, pandas would not know them
    if training.validation is None:
        columns.remove("val_noisy_accuracy")
    return pd.DataFrame([asdict(stats) for stats in training.history], columns=columns)


def train(training: Training, job: Job, schedule: Schedule) -> None:
    """Train to the end.

    Raises:
        StoppedEarly: at the deadline, or on SIGINT or SIGTERM; a checkpoint is saved.
        FloatingPointError: a loss or the weights are not finite; no checkpoint holds such a state.
        OSError: a checkpoint could not be written.
    """
    labels = torch.from_numpy(job.split.labels).to(job.device)
    pixels = job.split if isinstance(job.split, FileSplit) else as_tensor(job.split.images).to(job.device)
    check_data(pixels, labels, classes=job.description.classes, max_value=job.description.max_value)
    steps = fit(
        training,
        pixels,
        labels,
        max_value=job.description.max_value,
        sigma=job.sigma,
        settings=job.settings,
        seed=job.params.seed,
        ranks=job.ranks,
        gaussian=gaussian_network(job.settings, job.description, artifacts.weights_root(), job.device),
    )
    with stop_requests() as stop_asked, spectator(training, job) as told:
        try:
            for images in steps:
                due = schedule.due(stop_asked=stop_asked(), epoch_done=training.step == 0 and images > 0)
                if due == REPORT:
                    training.check_finite()
                elif due >= SAVE:  # which checks too
                    checkpoint.save_by_main_rank(training, job.checkpoints, job.key, job.ranks)
                told.after_step(images, due)
                if due == STOP and training.epoch < job.settings.epochs:
                    raise StoppedEarly(f"stopped after {training.position(job.settings.epochs)}")
        except FloatingPointError as error:
            good = checkpoint.newest(job.checkpoints)
            raise FloatingPointError(f"{error}; the last good checkpoint is {good or 'the start'}") from None


def spectator(training: Training, job: Job) -> Spectator | NoSpectator:
    """The main rank shows the training; the others show nothing."""
    if not job.ranks.is_main:
        return NoSpectator()
    live = LiveHistory(artifacts.tracking_store(), job.params.register.name, job.key, job.facts)
    per_epoch = images_per_epoch(len(job.split.labels), job.settings)
    return Spectator(training, f"train σ={job.sigma}", job.settings.epochs, per_epoch, live)


def save_model(network: nn.Module, job: Job) -> None:
    """Weights and card."""
    mean, std = normalisation(job.settings, job.description)
    weights.save(
        network,
        artifacts.model(job.sigma),
        sigma=job.sigma,
        network=job.settings.network,
        precision=job.settings.precision,
        image_shape=job.description.image_shape,
        classes=job.description.classes,
        mean=mean,
        std=std,
        training_key=job.key,
        training=job.facts,
        data_sha256=job.description.sha256,
        grid=grid_of(job.description.max_value),
        pictures=job.description.pictures,
    )


if __name__ == "__main__":
    run_stage_at_sigma(run, __doc__, processes=lambda params: params.train.processes, add_options=add_options)
