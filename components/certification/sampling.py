"""Counting the classes that a network gives to noisy copies of an image."""

import numpy as np
import torch
from torch import Tensor, nn

from components.certification.noise import gaussian_noise

BLOCK = 1000
"""Samples in one forward. Part of a table's identity: a network's rounding depends on the shape of its batch."""


def check_image(image: Tensor, index: int) -> None:
    """Raises ValueError when a value is not finite or outside [0, 1]."""
    if not ((image >= 0) & (image <= 1)).all():  # also false for NaN
        raise ValueError(f"image {index} has values that are not finite or outside [0, 1]: scale it to [0, 1] first")


@torch.inference_mode()
def count_classes(
    network: nn.Module, image: Tensor, sigma: float, *, num_classes: int, seed: int, index: int, start: int, stop: int
) -> np.ndarray:
    """How often each class wins under samples `start` to `stop` of the image's noise.

    Noise is drawn and added in float32. A block holds consecutive samples of one image, so that its shape, and with
    it the network's rounding, depends on (start, stop) alone.

    Args:
        network: in eval mode; logits from (B, C, H, W).
        image: float32 (C, H, W) in [0, 1].
        index: the image's number, which keys its noise.

    Returns:
        int64 (num_classes,) that sum to stop - start.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    counts = torch.zeros(num_classes, dtype=torch.int64, device=image.device)
    finite = torch.ones((), dtype=torch.bool, device=image.device)
    for begin in range(start, stop, BLOCK):
        noise = gaussian_noise(seed, index, begin, min(begin + BLOCK, stop), tuple(image.shape))
        logits = network(torch.from_numpy(noise).to(image.device).mul_(sigma).add_(image))
        finite &= logits.isfinite().all()
        counts += torch.bincount(logits.argmax(-1), minlength=num_classes)
    if not finite:
        raise FloatingPointError(f"image {index}: a logit is not finite, so nothing can be certified; retrain")
    return counts.cpu().numpy()
