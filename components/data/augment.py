"""Random crops and flips, for a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(images: Tensor, rows: Tensor, columns: Tensor, flips: Tensor, padding: int = 4) -> Tensor:
    """Crops of the images' own size out of images with a zero border, some of them mirrored left to right.

    Args:
        images: uint8 (B, C, H, W).
        rows, columns: int64 (B,) in 0, ..., 2 * padding: where the crop begins in the bordered image.
        flips: (B,) 1 where the crop is mirrored, else 0.
    """
    _, channels, height, width = images.shape
    bordered = F.pad(images, (padding, padding, padding, padding))
    down = rows[:, None] + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device)
    across = columns[:, None] + torch.where(flips[:, None].bool(), width - 1 - across, across)
    channel = torch.arange(channels, device=images.device)[:, None, None]
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    return bordered[image, channel, down[:, None, :, None], across[:, None, None, :]]
