"""A training method of your own: mixup (Zhang et al., ICLR 2018) under Gaussian noise.

`train.method: examples.own_method:mixup`, with its hyper-parameters in `train.own_method`.
"""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from components.params import Train
from components.parsing import Range
from components.training.draws import Draws


@dataclass(frozen=True)
class Mixup:
    most: Annotated[float, Range(least=0, most=0.5)] = 0.5
    """Largest share of the second image."""


def mixup(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Mixup,
) -> tuple[Tensor, Tensor]:
    """The loss of each image mixed with its neighbour, under one noise, for the labels of both."""
    share = draws.uniform(images, high=own.most)
    mixed = images.lerp(images.roll(1, 0), share[:, None, None, None])
    logits = network(mixed + sigma * draws.normal(1, images)[0]).float()
    first = F.cross_entropy(logits, labels, reduction="none")
    second = F.cross_entropy(logits, labels.roll(1, 0), reduction="none")
    return ((1 - share) * first + share * second).mean(), logits[None]
