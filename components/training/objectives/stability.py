"""Stability training (Li et al., NeurIPS 2019): the prediction under noise should equal the prediction without."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import Stability
from components.params import Train
from components.training.draws import Draws


def stability(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Stability,
) -> tuple[Tensor, Tensor]:
    """CE(F(x), y) + lambda * H(softmax F(x), softmax F(x + delta)); see `Objective` for arguments and result.

    Two separate forwards, the one without noise first: batch norm sees both, one after the other.
    """
    clean_logits = network(images).float()
    logits = network(images + sigma * draws.normal(1, images)[0]).float()
    natural_loss = F.cross_entropy(clean_logits, labels)
    cross_entropy = -(clean_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)  # (B,), the target not detached
    return natural_loss + own.weight * cross_entropy.mean(), logits[None]
