"""The state of a training: what it begins with, and all that changes from step to step."""

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.data.prepared import Description
from components.model import networks
from components.model.pretrained import Pretrained, fit_into
from components.params import Train
from components.tools.hashing import derive_seed
from components.tools.wording import counted
from components.training.optimizer import make_optimizer
from components.training.ranks import Ranks, share_batch_norm
from components.training.validation import Validation


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
