"""Networks by name. Each takes images in [0, 1]; normalisation is its first layer, so radii are in pixel units."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, as buffers: saved with the weights, moved with the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def small_convnet(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Two convolutions (16 and 32 channels) on a quarter of the resolution, and a hidden layer: for 16x16 images.

    The first layer folds 2x2 pixels into channels: CPU libraries are several times slower on a single input channel.
    """
    channels, height, width = image_shape
    features = 32 * -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4 * channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(features, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


def lenet(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The LeNet of the published MNIST experiments, for 28x28 images."""
    channels, height, width = image_shape
    features = 50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(features, 500),
        nn.ReLU(),
        nn.Linear(500, num_classes),
    )


NETWORKS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "small_convnet": small_convnet,
    "lenet": lenet,
}


def build(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> nn.Module:
    """An untrained network; its initial weights come from torch's global generator."""
    network = NETWORKS[name](image_shape, num_classes)
    return nn.Sequential(Normalize(mean, std), network) if mean and std else network
