"""Random views of training images, on whole batches and on any device; the caller draws the random numbers."""

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 4
"""Width in pixels of the black border that is added around a CIFAR-10 image before it is cropped."""


def crop_and_flip(pixels: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """CIFAR-10's training view: pad by 4, cut out the original size, mirror left to right where asked.

    Args:
        pixels: (B, C, H, W), any type.
        offsets: int64 (B, 2), row and column of each crop's corner in the padded image, 0 to 8; 4 leaves it as it is.
        flips: bool (B,).

    Returns:
        (B, C, H, W) of the same type, int32 for uint16, on the same device.
    """
    if pixels.dtype == torch.uint16:  # of which torch knows little
        pixels = pixels.int()
    _, channels, height, width = pixels.shape
    rows = offsets[:, :1] + torch.arange(height, device=pixels.device)
    steps = torch.arange(width, device=pixels.device)
    columns = offsets[:, 1:] + torch.where(flips[:, None], steps.flip(0), steps)
    padded = F.pad(pixels, [PADDING] * 4)
    places = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
    views = padded.flatten(2).gather(2, places[:, None, :].expand(-1, channels, -1))
    return views.view(pixels.shape)
