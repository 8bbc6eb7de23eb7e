"""Networks by name: ours, those of two libraries, and a user's own. Each takes images in [0, 1]; normalisation is its
first layer, so radii are in pixel units."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components import own_code
from components.model.libraries import LIBRARIES
from components.own_code import OwnCode

Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width of an image."""
Builder: TypeAlias = Callable[[Shape, int], nn.Module]
"""Makes a network from the images' shape and the number of classes."""


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


def small_convnet(image_shape: Shape, num_classes: int) -> nn.Module:
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


def lenet(image_shape: Shape, num_classes: int) -> nn.Module:
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


def cifar_resnet(blocks: int, image_shape: Shape, num_classes: int) -> nn.Module:
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


def resnet50(image_shape: Shape, num_classes: int) -> nn.Module:
    """torchvision's ResNet-50, for ImageNet."""
    from torchvision.models import resnet50  # seconds to import, for this network alone

    network = resnet50(num_classes=num_classes)
    if image_shape[0] != 3:
        network.conv1 = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)
    return network.to(memory_format=torch.channels_last)


NETWORKS: dict[str, Builder] = {
    "small_convnet": small_convnet,
    "lenet": lenet,
    "resnet20": partial(cifar_resnet, 3),
    "resnet110": partial(cifar_resnet, 18),
    "resnet50": resnet50,
}


# --- by name -----------------------------------------------------------------------------------------------------


def code_of(name: str) -> OwnCode | None:
    """The code that a network comes from, as `own_code.find` says: for a library's, its version. None for ours.

    Raises:
        ValueError: there is none.
    """
    return None if name in NETWORKS else own_code.find(name)


def builder_of(name: str, code: OwnCode | None) -> Any:
    """What builds a network; for a user's own, whatever its name stands for."""
    library, _, model = name.partition(":")
    if name in NETWORKS:
        return NETWORKS[name]
    if library in LIBRARIES:
        return partial(LIBRARIES[library], model)
    assert code is not None
    return own_code.load(code)


def build(
    name: str,
    image_shape: Shape,
    num_classes: int,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    code: OwnCode | None = None,
) -> nn.Module:
    """An untrained network; its initial weights come from torch's global generator.

    Args:
        code: of a user's own network; without it, that of the project.

    Raises:
        ValueError: an own or a library's network cannot be built; the line names it.
    """
    if name in NETWORKS:
        network = NETWORKS[name](image_shape, num_classes)
    else:
        with own_code.named_errors(_said(name, image_shape, num_classes), code):
            code = code or code_of(name)
            network = builder_of(name, code)(image_shape, num_classes)
    return nn.Sequential(Normalize(mean, std), network) if mean and std else network


def _said(name: str, image_shape: Shape, num_classes: int) -> str:
    return f"network {name!r} cannot be built for images of {_shown(image_shape)} and {num_classes} classes"


def _shown(image_shape: Shape) -> str:
    return "x".join(map(str, image_shape))


# --- does it fit? ------------------------------------------------------------------------------------------------


def fits(name: str, image_shape: Shape) -> bool:
    """Whether one of our networks accepts images of this shape; torch's global generator stays as it is."""
    # not on the meta device: there, a ReLU imports torch's compiler, which takes seconds
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty layers; the result says so
        try:
            NETWORKS[name](image_shape, 2).eval()(torch.zeros(1, *image_shape))
        except RuntimeError:
            return False
    return True


def check_fit(name: str, image_shape: Shape, num_classes: int | None = None) -> None:
    """Check that a network takes these images, and that it is one that can be certified. One that is not ours is tried
    on random images on the CPU; torch's global generator stays as it is.

    Args:
        num_classes: None where it is not known yet.

    Raises:
        ValueError: in one line that names the network and what is wrong with it.
    """
    if name not in NETWORKS:
        try_out(name, image_shape, num_classes)
    elif not fits(name, image_shape):
        others = ", ".join(other for other in NETWORKS if fits(other, image_shape)) or "none does"
        raise ValueError(
            f"train.network is {name!r}: does not fit images of {_shown(image_shape)}: choose one that does ({others})"
        )


def try_out(name: str, image_shape: Shape, num_classes: int | None) -> None:
    """Build a network that is not ours twice and ask it; see `check_fit`."""
    said, classes = f"train.network is {name!r}", num_classes or 2
    with own_code.named_errors(said):
        code = code_of(name)
    with own_code.named_errors(said, code):
        builder = builder_of(name, code)
    _check_builder(builder, said)
    with torch.random.fork_rng(devices=[]):
        network, twin = (_seeded(builder, image_shape, classes, said, code) for _ in range(2))
        weights = twin.state_dict()
        if not all(torch.equal(value, weights[key]) for key, value in network.state_dict().items()):
            raise ValueError(f"{said}: its first weights do not follow torch's seed: draw them with torch alone")
        images = torch.rand(3, *image_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), own_code.named_errors(f"{said}: does not take images of {_shown(image_shape)}", code):
            train_mode = network.train()(images[:2])
            first, again, beside = (network.eval()(pair) for pair in (images[:2], images[:2], images[[0, 2]]))
    for answer in (first, train_mode):
        _check_answer(answer, num_classes, said)
    if not torch.equal(first, again):
        raise ValueError(
            f"{said}: answers the same images differently in eval mode: switch off there what is random or changes"
        )
    if not torch.allclose(first[0], beside[0], rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"{said}: its answer to an image depends on the other images of the batch in eval mode: no certificate "
            "would hold"
        )


def _check_builder(builder: Any, said: str) -> None:
    if not callable(builder):
        raise ValueError(f"{said}: is of type {type(builder).__name__}: must be a function (image_shape, num_classes)")
    try:
        inspect.signature(builder).bind((1, 1, 1), 2)
    except TypeError as error:
        raise ValueError(f"{said}: must take the arguments (image_shape, num_classes): {error}") from None


def _seeded(builder: Any, image_shape: Shape, num_classes: int, said: str, code: OwnCode | None) -> nn.Module:
    torch.manual_seed(0)
    with own_code.named_errors(f"{said}: fails for images of {_shown(image_shape)} and {num_classes} classes", code):
        network = builder(image_shape, num_classes)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{said}: gives a {type(network).__name__}, must give a torch.nn.Module")
    return network


def _check_answer(answer: Any, num_classes: int | None, said: str) -> None:
    expected = f"must be numbers of the shape (2, {num_classes or 'classes'})"
    if not isinstance(answer, Tensor):
        raise ValueError(f"{said}: answers 2 images with a {type(answer).__name__}: {expected}")
    right = answer.ndim == 2 and len(answer) == 2 and num_classes in (None, answer.shape[-1])
    if not right or not answer.is_floating_point():
        raise ValueError(f"{said}: answers 2 images with {answer.dtype} of the shape {tuple(answer.shape)}: {expected}")
