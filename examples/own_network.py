"""A network of your own: `train.network: examples.own_network:build`."""

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Weighs each channel by what all of them hold on average (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels))

    def forward(self, features: Tensor) -> Tensor:
        weights = torch.sigmoid(self.weigh(features.mean((2, 3))))
        return features * weights[:, :, None, None]


def build(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Logits (B, num_classes) from images (B, channels, height, width) in [0, 1]."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4 * channels, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        ChannelAttention(32),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * -(-height // 4) * -(-width // 4), num_classes),
    )
