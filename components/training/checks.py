"""Checks of the data and of a method that is not ours, before a training's first step."""

import torch
from torch import Tensor

from components.data.streaming import FileSplit
from components.model import networks
from components.params import Train
from components.tools.wording import counted
from components.training.objectives import OBJECTIVES
from components.training.objectives.own import try_out


def check_data(pixels: Tensor | FileSplit, labels: Tensor, *, classes: list[str], max_value: int) -> None:
    """Refuse data from which a training would silently learn nonsense.

    Args:
        pixels: uint8 or uint16 (N, C, H, W), or files, which are checked as they are decoded.
        labels: int64 (N,).

    Raises:
        ValueError: naming the first image that is wrong, or the class that has none.
    """
    if len(pixels) != len(labels):
        images = counted(len(pixels), "training images have", "training image has")
        raise ValueError(f"{images} {counted(len(labels), 'labels')}: run the prepare stage again")
    outside = ((labels < 0) | (labels >= len(classes))).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"training image {row} has the label {int(labels[row])}, outside the classes 0 to {len(classes) - 1}: "
            "mend the source and run the prepare stage again"
        )
    counts = labels.bincount(minlength=len(classes)).tolist()
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise ValueError(f"no training image is of class {empty[0]!r}: drop the class or lower prepare.test_share")
    if isinstance(pixels, FileSplit) or not len(pixels):
        return
    largest = torch.stack([image.int().max() for image in pixels])  # one at a time: all may be more than memory
    if len(above := (largest > max_value).nonzero()):
        row = int(above[0])
        raise ValueError(
            f"training image {row} has the pixel value {int(largest[row])}, above {max_value} which stands for "
            "1.0: mend the source and run the prepare stage again"
        )


def check_method(settings: Train, sigma: float, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Try a training method of the user's own on a few random images; ours need no trial. Torch's global generator
    stays as it is.

    Raises:
        ValueError: in one line that names the method and what is wrong with it.
    """
    if settings.method not in OBJECTIVES:
        with torch.random.fork_rng(devices=[]):
            network = networks.build(settings.network, image_shape, num_classes)
        try_out(settings, sigma, network, image_shape, num_classes)
