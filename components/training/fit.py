"""The training loop, for every method."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.data.prepared import Description
from components.data.streaming import FileSplit, to_unit_interval
from components.model import networks
from components.model.pretrained import Pretrained, fit_into
from components.params import Train
from components.tools.hashing import derive_seed
from components.tools.wording import counted
from components.training.draws import Draws, Shard
from components.training.objectives import Method, method_of
from components.training.optimizer import make_optimizer, set_learning_rate, train_mode
from components.training.order import steps_of_epoch
from components.training.preparation import CHANCE, TrainingImages
from components.training.ranks import Ranks, share_batch_norm
from components.training.validation import Validation
from components.training.views import augmented, training_views


@dataclass(frozen=True)
class EpochStats:
    """One row of a training's history."""

    epoch: int
    learning_rate: float
    loss: float
    """Mean over the optimiser steps."""
    noisy_accuracy: float
    """Share of the noisy training images that were classified correctly, measured during the epoch."""
    seconds: float
    """Without those of the validation."""
    val_noisy_accuracy: float | None = None
    """Share of the noisy validation images that the network classifies correctly after the epoch; None where there are
    none, or another validation split was measured then."""


def begin(
    settings: Train,
    description: Description,
    seed: int,
    device: torch.device,
    ranks: Ranks,
    weights: Pretrained | None = None,
    validation: Validation | None = None,
) -> "Training":
    """A new training of a network for the described data, from new or given weights; the same in every rank.

    Raises:
        ValueError: the normalisation does not fit the images, or the weights do not fit the network.
    """
    channels, height, width = description.image_shape
    torch.manual_seed(derive_seed(seed, "weights"))
    shape, classes = (channels, height, width), len(description.classes)
    network = networks.build(settings.network, shape, classes, *normalisation(settings, description))
    if weights:
        done = fit_into(network, weights, may_replace_head=settings.epochs > 0)
        if ranks.is_main:
            print(done)
    network = network.to(device)
    share_batch_norm(network, ranks)
    return Training(network, make_optimizer(network, settings), validation)


def normalisation(settings: Train, description: Description) -> tuple[list[float] | None, list[float] | None]:
    """The mean and std in front of the network: those of the settings, else those of the data.

    Raises:
        ValueError: they are not one number per channel of the images.
    """
    if settings.mean is None:
        return description.mean, description.std
    if len(settings.mean) != (channels := description.image_shape[0]):
        images = f"the images have {counted(channels, 'channels')}"
        raise ValueError(f"train.mean is {settings.mean}: {images}, give one number each in train.mean and train.std")
    return settings.mean, settings.std


class Training:
    """The state of a training between two optimiser steps: all that changes, and so all that a checkpoint holds."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, validation: Validation | None = None
    ) -> None:
        """Args:
        validation: what is measured after each epoch; no state and no step depends on it.
        """
        self.network, self.optimizer, self.validation = network, optimizer, validation
        self.history: list[EpochStats] = []
        self.images: int
        """Number of images in the finished steps of the current epoch."""
        self.per_image: dict[str, Tensor] = {}
        """What the method has found of each training image; see `preparation`."""
        self.prepared: float | None = None
        """Which share of that is done while it is computed, before the epoch's first step."""
        self._begin_epoch()

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0; also the number of finished epochs."""
        return len(self.history)

    @property
    def step(self) -> int:
        """Finished steps of the current epoch."""
        return len(self._losses)

    def position(self, epochs: int) -> str:
        """For people: "epoch 3 of 90" after three finished epochs, "epoch 3 of 90, step 17" within the fourth."""
        within = f", step {self.step}" if self.step else ""
        if self.prepared is not None:
            within = f", {self.prepared:.1%} prepared"
        return f"epoch {self.epoch} of {epochs}{within}"

    def _begin_epoch(self, seconds: float = 0.0) -> None:
        self._losses: list[Tensor] = []  # kept on the device: reading one would wait for it
        self._right: Tensor | float = 0.0
        self._noisy_images = 0
        self.images = 0
        self._start = time.perf_counter() - seconds

    def count(self, loss: Tensor, right: Tensor, images: int, num_noises: int) -> None:
        """Record a step's loss and how many of its noisy images were classified correctly."""
        self._losses.append(loss)
        self._right = self._right + right.double()
        self._noisy_images += images * num_noises
        self.images += images

    def running(self) -> tuple[float, float]:
        """Mean loss and accuracy under noise of the epoch so far, or of the one just finished."""
        if not self._losses:
            return self.history[-1].loss, self.history[-1].noisy_accuracy
        return torch.stack(self._losses).mean().item(), float(self._right) / self._noisy_images

    def end_epoch(self) -> None:
        """Add the epoch to the history.

        Raises:
            FloatingPointError: see `check_finite`.
        """
        self.check_finite()
        loss, accuracy = self.running()
        rate, seconds = self.optimizer.param_groups[0]["lr"], time.perf_counter() - self._start
        self.history.append(EpochStats(self.epoch, rate, loss, accuracy, seconds, self._validated()))
        self._begin_epoch()

    def _validated(self) -> float | None:
        return self.validation.noisy_accuracy(self.network) if self.validation else None

    def _all_losses(self) -> Tensor:
        return torch.stack(self._losses) if self._losses else torch.zeros(0)

    def check_finite(self) -> None:
        """Wait for the device, then check every loss of the epoch so far and all weights.

        Raises:
            FloatingPointError: a value is not finite; the message names epoch and step.
        """
        rate = self.optimizer.param_groups[0]["lr"]
        broken = (~self._all_losses().isfinite()).nonzero()
        if len(broken):
            raise FloatingPointError(
                f"the loss is not finite at epoch {self.epoch}, step {int(broken[0])}: "
                f"lower train.learning_rate ({rate:g})"
            )
        if not torch.stack([value.isfinite().all() for value in self.network.state_dict().values()]).all():
            raise FloatingPointError(
                f"the weights are not finite at epoch {self.epoch}, after {counted(self.step, 'steps')}: "
                f"lower train.learning_rate ({rate:g})"
            )

    def weights_sha256(self) -> dict[str, str]:
        """The content of each parameter and buffer, by name."""
        values = self.network.state_dict().items()
        return {name: hashlib.sha256(value.cpu().numpy().tobytes()).hexdigest() for name, value in values}

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint: tensors and plain values, with finite losses and weights.

        Raises:
            FloatingPointError: see `check_finite`.
        """
        self.check_finite()
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(stats) for stats in self.history],
            "losses": self._all_losses(),
            "right": float(self._right),
            "noisy_images": self._noisy_images,
            "images": self.images,
            "per_image": self.per_image,
            "seconds": time.perf_counter() - self._start,
            "validation": self.validation and self.validation.sha256,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the training from what `state()` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochStats(**row) for row in state["history"]]
        self._begin_epoch(state["seconds"])
        self._losses = list(state["losses"].unbind())
        self._right, self._noisy_images, self.images = state["right"], state["noisy_images"], state["images"]
        self.per_image = state["per_image"]
        if state.get("validation") != (self.validation and self.validation.sha256):
            self._validate_anew()

    def _validate_anew(self) -> None:
        """Forget what another validation split gave. Of the past epochs, the last one's weights alone are here."""
        self.history = [replace(stats, val_noisy_accuracy=None) for stats in self.history]
        if self.history and not self.step:
            self.history[-1] = replace(self.history[-1], val_noisy_accuracy=self._validated())


def compare_ranks(training: Training, ranks: Ranks, epochs: int, checkpoints: Path) -> None:
    """Check that all ranks continue from the same step with the same weights.

    Raises:
        ValueError: they do not; raised in every rank, and the message names what differs and where.
    """
    if ranks.size == 1:
        return
    one_folder = f"the processes see different checkpoints: {checkpoints} must be one folder for all"
    ranks.world.compare({"position": training.position(epochs)}, one_folder)
    weights_sha256 = {f"weights {name}": sha256 for name, sha256 in training.weights_sha256().items()}
    ranks.world.compare(weights_sha256, "the same recipe gave different weights: compare torch and hardware")


def fit(
    training: Training,
    pixels: Tensor | FileSplit,
    labels: Tensor,
    *,
    max_value: int,
    sigma: float,
    settings: Train,
    seed: int,
    ranks: Ranks | None = None,
    gaussian: nn.Module | None = None,
    prepare: bool = True,
) -> Iterator[int]:
    """Train in place; yield the number of images after each optimiser step, and 0 in between where a method computes
    something of all images before an epoch.

    Every random number depends only on (seed, epoch, step) and the image's position in the step. So a training that is
    restored from its state at any yield ends with the same weights and history, bit for bit. If several processes share
    the images of each step, the step equals that of one process within rounding.

    Args:
        pixels: uint8 (N, C, H, W) on the network's device, or files that are decoded on the fly; `pixels / max_value`
            is in [0, 1].
        labels: int64 (N,), on the network's device.
        ranks: the processes that share the steps; each must call this with the same arguments.
        gaussian: the network that catrs takes its targets from.
        prepare: False takes what `training.per_image` holds; for measurements of steps alone.

    Raises:
        ValueError: fewer images than groups in a batch, or several ranks for a method that trains in one.
        FloatingPointError: a loss or the weights were not finite; found at the end of the epoch at the latest.
    """
    ranks = ranks or Ranks()
    method = method_of(settings)
    if len(labels) < (groups := method.steps_per_batch):
        raise ValueError(f"{counted(len(labels), 'training images')} cannot be split into {groups} groups (num_noises)")
    if method.prepare and ranks.size > 1:
        raise ValueError(f"train.processes is {ranks.size}: {settings.method} trains in one process, set it to 1")
    train_mode(training.network, settings)
    for epoch in range(training.epoch, settings.epochs):
        set_learning_rate(training.optimizer, epoch, settings)
        if prepare and method.prepare and not training.step:
            every_image = TrainingImages(pixels, labels, max_value, settings, seed, epoch)
            yield from before_epoch(training, method, every_image, sigma, gaussian)
        chance = training.per_image.get(CHANCE)
        steps = list(steps_of_epoch(len(labels), epoch, settings, seed, labels.device, chance))[training.step :]
        shards = [ranks.shard_of(len(rows)) for rows in steps]
        own_rows = [rows[shard.rows] for rows, shard in zip(steps, shards, strict=True)]
        last_step = training.step + len(steps) - 1
        batches = training_views(pixels, own_rows, seed, epoch)
        for step, (shard, rows, batch) in enumerate(zip(shards, own_rows, batches, strict=True), training.step):
            ranks.turn_to(shard)
            if settings.augment == "crop_flip":
                batch = augmented(batch, Draws(seed, epoch, step, labels.device, shard, use="augment"))
            draws = Draws(seed, epoch, step, labels.device, shard)
            per_image = {name: values[rows] for name, values in training.per_image.items()}
            objective = method.loss(per_image, sigma=sigma, settings=settings, epoch=epoch, draws=draws)
            images = to_unit_interval(batch, max_value)
            optimise(training, objective, images, labels[rows], settings.precision, shard, ranks)
            if step == last_step:
                training.end_epoch()
            yield shard.total


def before_epoch(
    training: Training, method: Method, images: TrainingImages, sigma: float, gaussian: nn.Module | None
) -> Iterator[int]:
    """Let the method compute what it needs of all images, and keep it in the training's state; yields 0 after each
    piece."""
    assert method.prepare
    known = training.per_image
    pieces = method.prepare(training.network, images, known, sigma=sigma, own=method.own, gaussian=gaussian)
    for training.prepared, training.per_image in pieces:
        yield 0
    training.prepared = None


def optimise(
    training: Training,
    objective: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]],
    images: Tensor,
    labels: Tensor,
    precision: str,
    shard: Shard,
    ranks: Ranks,
) -> None:
    """One optimiser step on this process's shard of a group: the step of the whole group's mean loss."""
    network, optimizer = training.network, training.optimizer
    in_bfloat16 = precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=in_bfloat16, cache_enabled=False):
        loss, logits = objective(network, images, labels)
    loss = loss * ranks.weight(shard)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    loss = loss.detach()
    right = (logits.detach().argmax(-1) == labels).sum() / ranks.copies
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    ranks.add_up([*gradients, loss, right])
    optimizer.step()
    training.count(loss, right, shard.total, num_noises=len(logits))
