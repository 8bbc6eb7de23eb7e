"""Twenty small images of three classes, and a network with a convolution and batch norm."""

import pytest
import torch
from torch import nn


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randint(0, 17, (20, 1, 4, 4), dtype=torch.uint8), torch.randint(0, 3, (20,))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
