"""Which weights a training moves, and how far at each epoch."""

import math
from typing import Any

import torch
from torch import nn

from components.model.pretrained import last_layer
from components.params import Train

RATE_FACTOR = "rate_factor"
"""Key of an optimiser's group: its part of the learning rate. The first group's is 1, so its rate is the training's."""


def make_optimizer(network: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimiser of all parameters, or of those that a backbone_rate of 0 leaves; the others need no gradient then.

    SGD as in all published runs: momentum .9, no Nesterov. Both decay every parameter.
    """
    groups: list[dict[str, Any]] = [{"params": list(network.parameters()), RATE_FACTOR: 1.0}]
    if settings.backbone_rate != 1:
        head = list(last_layer(network)[1].parameters())
        backbone = [parameter for parameter in network.parameters() if not any(parameter is own for own in head)]
        groups = [{"params": head, RATE_FACTOR: 1.0}]
        if settings.backbone_rate:
            groups.append({"params": backbone, RATE_FACTOR: settings.backbone_rate})
        else:
            for parameter in backbone:
                parameter.requires_grad_(False)
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=decay)


def train_mode(network: nn.Module, settings: Train) -> None:
    """Train mode, but for the batch norm of a frozen backbone, which keeps its statistics and normalises by them."""
    network.train()
    if settings.backbone_rate == 0:
        head = last_layer(network)[1]
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module is not head:
                module.eval()


def set_learning_rate(optimizer: torch.optim.Optimizer, epoch: int, settings: Train) -> None:
    """Set the rate of each group for an epoch."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(epoch, settings) * group.get(RATE_FACTOR, 1.0)


def learning_rate(epoch: int, settings: Train) -> float:
    """The initial rate, divided by ten every `decay_every` epochs; the published runs decayed one epoch later. Or the
    initial rate times a falling half cosine over all epochs."""
    if settings.decay_schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
    assert settings.decay_every, "the parameters were checked"
    late = 1 if settings.decay_schedule == "published" else 0
    return settings.learning_rate * 0.1 ** (max(0, epoch - late) // settings.decay_every)
