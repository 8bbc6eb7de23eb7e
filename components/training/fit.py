"""The training loop, for every method."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.data.pixels import to_unit_interval
from components.identity import derive_seed
from components.params import Train
from components.training.draws import Draws
from components.training.objectives import OBJECTIVES, STEPS_PER_BATCH


@dataclass(frozen=True)
class EpochStats:
    """One row of a training's history."""

    epoch: int
    learning_rate: float
    loss: float
    """Mean over the optimiser steps."""
    noisy_accuracy: float
    """Share of noisy training images classified right, as seen while training."""
    seconds: float


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """SGD as in all published runs: momentum .9, weight decay 1e-4 on every parameter, no Nesterov."""
    return torch.optim.SGD(network.parameters(), lr=settings.learning_rate, momentum=0.9, weight_decay=1e-4)


def fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    labels: Tensor,
    *,
    max_value: int,
    sigma: float,
    settings: Train,
    seed: int,
    first_epoch: int = 0,
    on_step: Callable[[int], None] = lambda images: None,
) -> Iterator[EpochStats]:
    """Train in place, one `EpochStats` per finished epoch.

    Every random number depends on (seed, epoch, step) alone: starting at `first_epoch` with the network and optimiser
    as they were after that many epochs gives the same weights, bit for bit, as never having stopped.

    Args:
        pixels: uint8 (N, C, H, W) on the network's device; `pixels / max_value` is in [0, 1].
        labels: int64 (N,), on the same device.
        on_step: told the number of images of each optimiser step when it is done.

    Raises:
        ValueError: fewer images than groups in a batch.
        FloatingPointError: the loss of a step was not finite.
    """
    objective = OBJECTIVES[settings.method]
    if len(labels) < (groups := STEPS_PER_BATCH[settings.method](settings)):
        raise ValueError(f"{len(labels)} training images cannot be split into {groups} groups (num_noises)")
    for epoch in range(first_epoch, settings.epochs):
        start = time.perf_counter()
        rate = learning_rate(epoch, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        network.train()
        losses, right, seen = [], torch.zeros((), dtype=torch.int64, device=pixels.device), 0
        for step, rows in enumerate(steps_of_epoch(len(labels), epoch, settings, seed, pixels.device)):
            images, targets = to_unit_interval(pixels[rows], max_value), labels[rows]
            draws = Draws(seed, epoch, step, pixels.device)
            loss, logits = objective(network, images, targets, sigma=sigma, settings=settings, epoch=epoch, draws=draws)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())  # read once per epoch: reading would wait for the device
            right += (logits.detach().argmax(-1) == targets).sum()
            seen += logits.shape[0] * logits.shape[1]
            on_step(len(rows))
        epoch_losses = torch.stack(losses)
        broken = (~epoch_losses.isfinite()).nonzero()
        if len(broken):
            raise FloatingPointError(
                f"the loss is not finite at epoch {epoch}, step {int(broken[0])}: lower train.learning_rate ({rate:g})"
            )
        yield EpochStats(epoch, rate, epoch_losses.mean().item(), right.item() / seen, time.perf_counter() - start)


def steps_of_epoch(num_images: int, epoch: int, settings: Train, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Row indices of each optimiser step of an epoch.

    A batch of n images, the smaller last one too, is split into consecutive groups of floor(n / groups); the remainder
    is left out, as in the published runs.
    """
    groups = STEPS_PER_BATCH[settings.method](settings)
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(num_images, generator=generator).to(device)
    for batch in order.split(settings.batch_size):  # type: ignore[no-untyped-call]
        size = len(batch) // groups
        if size:
            yield from batch[: size * groups].view(groups, size)


def learning_rate(epoch: int, settings: Train) -> float:
    """A tenth every `decay_every` epochs; the published runs dropped one epoch late."""
    late = 1 if settings.decay_schedule == "published" else 0
    return settings.learning_rate * 0.1 ** (max(0, epoch - late) // settings.decay_every)
