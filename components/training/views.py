"""The training images as the network sees them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from components.data.augment import PADDING, crop_and_flip
from components.data.streaming import FileSplit, TrainingView
from components.tools.device import cores_of_this_rank
from components.training.draws import Draws


def training_views(pixels: Tensor | FileSplit, steps: list[Tensor], seed: int, epoch: int) -> Iterator[Tensor]:
    """The images of each step, uint8 (B, C, H, W), on the device of its row numbers. Worker processes, one per core of
    this rank, decode files some steps ahead."""
    if isinstance(pixels, Tensor):
        yield from (pixels[rows] for rows in steps)
        return
    loader = DataLoader(
        TrainingView(pixels, seed, epoch),
        batch_sampler=[rows.tolist() for rows in steps],
        num_workers=cores_of_this_rank(),
        pin_memory=torch.cuda.is_available(),
    )
    for rows, (batch, _) in zip(steps, loader, strict=True):
        yield batch.to(rows.device, non_blocking=True)


def augmented(batch: Tensor, draws: Draws) -> Tensor:
    """A random crop of each padded image of a uint8 batch (B, C, H, W), mirrored with probability 1/2."""
    offsets = torch.stack([draws.integers(batch, high=2 * PADDING + 1) for _ in range(2)], dim=1)
    return crop_and_flip(batch, offsets, draws.integers(batch, high=2).bool())
