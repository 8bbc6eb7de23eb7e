"""Networks by name. Each takes images in [0, 1]; normalisation is its first layer, so radii are in pixel units."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normalize(nn.Module):
    """(x - mean) / std per channel, both buffers: they are saved with the weights and move with the network."""

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
    """The LeNet of the published MNIST experiments, for 28x28 images.

    Each ReLU comes after its pooling, on a quarter of the values: the two commute.
    """
    channels, height, width = image_shape
    features = 50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
    network = nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(features, 500),
        nn.ReLU(inplace=True),
        nn.Linear(500, num_classes),
    )
    return network.to(memory_format=torch.channels_last)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a 1x1 convolution where resolution or width change."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            convolution = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(channels_out))

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.relu(self.bn2(self.conv2(hidden)) + self.shortcut(images), inplace=True)


def cifar_resnet(blocks: int, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The residual network of He et al. 2016, section 4.2: three stages of `blocks` blocks, 16, 32 and 64 wide.

    Convolutions start at N(0, 2 / (k^2 * channels_out)), as in the published experiments.
    """
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for before, width, first_stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers.append(BasicBlock(before, width, first_stride))
        layers += [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)


def resnet50(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """torchvision's ResNet-50, for ImageNet."""
    from torchvision.models import resnet50  # seconds to import, for this network alone

    network = resnet50(num_classes=num_classes)
    if image_shape[0] != 3:
        network.conv1 = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)
    return network.to(memory_format=torch.channels_last)


NETWORKS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "small_convnet": small_convnet,
    "lenet": lenet,
    "resnet20": partial(cifar_resnet, 3),
    "resnet110": partial(cifar_resnet, 18),
    "resnet50": resnet50,
}


def fits(name: str, image_shape: tuple[int, int, int]) -> bool:
    """Whether a network accepts images of this shape; tried on the meta device, without memory or random numbers."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty layers; the result says so
        try:
            NETWORKS[name](image_shape, 2).eval()(torch.zeros(1, *image_shape))
        except RuntimeError:
            return False
    return True


def check_fit(name: str, image_shape: tuple[int, int, int]) -> None:
    """
    Raises:
        ValueError: the network does not accept images of this shape; the message names those that do.
    """
    if not fits(name, image_shape):
        others = ", ".join(other for other in NETWORKS if fits(other, image_shape)) or "none does"
        shape = "x".join(map(str, image_shape))
        raise ValueError(f"train.network is {name!r}: does not fit images of {shape}: choose one that does ({others})")


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
