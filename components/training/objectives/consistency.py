"""Consistency regularization (Jeong & Shin, NeurIPS 2020): the prediction under each noise should equal their mean."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import Consistency
from components.params import Train
from components.training.draws import Draws
from components.training.smoothing import divergence, entropy, noisy_logits, smoothed_probabilities


def consistency(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Consistency,
) -> tuple[Tensor, Tensor]:
    """mean_i CE(z_i, y) + lambda * mean_i KL(p-bar || softmax z_i) + eta * H(p-bar), p-bar not detached.

    See `Objective` for arguments and result.
    """
    logits = noisy_logits(network, images, sigma * draws.normal(own.num_noises, images))
    smoothed = smoothed_probabilities(logits)
    natural_loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(own.num_noises))
    spread = divergence(smoothed, logits.log_softmax(-1)).mean()
    return natural_loss + own.weight * spread + own.entropy_weight * entropy(smoothed).mean(), logits
