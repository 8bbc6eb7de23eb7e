"""Networks and checkpoints in the form of the published code for smoothing (Cohen et al. and what follows it)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CIFAR10 = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class NormalizeLayer(nn.Module):
    """Its constants are plain attributes: the checkpoint does not hold them."""

    def __init__(self, means: list[float], sds: list[float]) -> None:
        super().__init__()
        self.means, self.sds = torch.tensor(means), torch.tensor(sds)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.means.view(-1, 1, 1)) / self.sds.view(-1, 1, 1)


class Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or before != width:
            conv = nn.Conv2d(before, width, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        return F.relu(hidden + (images if self.downsample is None else self.downsample(images)))


class CifarResNet(nn.Module):
    """`cifar_resnet20` and `cifar_resnet110`, by the number of blocks per stage (3 and 18)."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1) for _ in range(blocks)])
        self.layer2 = nn.Sequential(Block(16, 32, 2), *[Block(32, 32, 1) for _ in range(blocks - 1)])
        self.layer3 = nn.Sequential(Block(32, 64, 2), *[Block(64, 64, 1) for _ in range(blocks - 1)])
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(images))))))
        return self.fc(self.avgpool(hidden).flatten(1))


class LeNet(nn.Module):
    """`lenet`, for MNIST."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)
        return self.fc2(F.relu(self.fc1(hidden.flatten(1))))


def trained_a_little(network: nn.Module, images: Tensor) -> nn.Module:
    """The network after two steps, so that no weight or statistic is at its initial value; in eval mode."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        F.cross_entropy(network.train()(images), torch.zeros(len(images), dtype=torch.int64)).backward()
        optimizer.step()
    return network.eval()


def save_checkpoint(network: nn.Module, arch: str, path: Path) -> Path:
    """The file as these programs save it after each epoch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # so that the file holds its momenta; the weights are saved after it, as they are
    content: dict[str, Any] = {"epoch": 90, "arch": arch, "state_dict": network.state_dict()}
    torch.save(content | {"optimizer": optimizer.state_dict()}, path)
    return path
