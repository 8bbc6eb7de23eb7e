"""The training loop, for every method."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from components.data.streaming import FileSplit, to_unit_interval
from components.params import Train
from components.tools.wording import counted
from components.training.draws import Draws, Shard
from components.training.objectives import Method, method_of
from components.training.optimizer import set_learning_rate, train_mode
from components.training.order import steps_of_epoch
from components.training.preparation import CHANCE, TrainingImages
from components.training.ranks import Ranks
from components.training.state import Training
from components.training.views import augmented, training_views


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
        every_image = TrainingImages(pixels, labels, max_value, settings, seed, epoch)
        if prepare and method.prepare and not training.step:
            yield from before_epoch(training, method, every_image, sigma, gaussian)
        yield from finish_epoch(training, method, every_image, sigma, ranks)


def finish_epoch(
    training: Training, method: Method, every: TrainingImages, sigma: float, ranks: Ranks
) -> Iterator[int]:
    """Take the steps that the epoch has left; yields the number of images after each."""
    settings, seed, epoch, device = every.settings, every.seed, every.epoch, every.labels.device
    chance = training.per_image.get(CHANCE)
    steps = list(steps_of_epoch(len(every.labels), epoch, settings, seed, device, chance))[training.step :]
    shards = [ranks.shard_of(len(rows)) for rows in steps]
    own_rows = [rows[shard.rows] for rows, shard in zip(steps, shards, strict=True)]
    last_step = training.step + len(steps) - 1
    batches = training_views(every.pixels, own_rows, seed, epoch)
    for step, (shard, rows, batch) in enumerate(zip(shards, own_rows, batches, strict=True), training.step):
        ranks.turn_to(shard)
        if settings.augment == "crop_flip":
            batch = augmented(batch, Draws(seed, epoch, step, device, shard, use="augment"))
        draws = Draws(seed, epoch, step, device, shard)
        per_image = {name: values[rows] for name, values in training.per_image.items()}
        objective = method.loss(per_image, sigma=sigma, settings=settings, epoch=epoch, draws=draws)
        images = to_unit_interval(batch, every.max_value)
        optimise(training, objective, images, every.labels[rows], settings.precision, shard, ranks)
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
