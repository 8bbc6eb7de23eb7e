"""Gaussian augmentation (Cohen et al. 2019): cross-entropy under one noise per image."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.params import Train
from components.training.draws import Draws


def gaussian(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: None,
) -> tuple[Tensor, Tensor]:
    """CE(F(x + delta), y); see `Objective` for arguments and result."""
    logits = network(images + sigma * draws.normal(1, images)[0])
    return F.cross_entropy(logits.float(), labels), logits[None]
