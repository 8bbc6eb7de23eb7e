"""MACER (Zhai et al., ICLR 2020): enlarge the certified radius of images that are classified right."""

from torch import Tensor, nn
from torch.special import ndtri

from components.methods import Macer
from components.params import Train
from components.training.draws import Draws
from components.training.smoothing import noisy_logits, smoothed_probabilities


def macer(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Macer,
) -> tuple[Tensor, Tensor]:
    """-log p-bar_y, and lambda times a hinge on the certified radius; see `Objective` for arguments and result."""
    logits = noisy_logits(network, images, sigma * draws.normal(own.num_noises, images))
    of_label = smoothed_probabilities(logits).gather(-1, labels[:, None])
    weight = 0.0 if own.deferred and epoch <= (settings.decay_every or 0) else own.weight
    robustness_loss = sigma / 2 * hinge(logits, labels, own)
    return -(of_label + 1e-10).log().mean() + weight * robustness_loss.mean(), logits


def hinge(logits: Tensor, labels: Tensor, own: Macer) -> Tensor:
    """gamma - xi of each image classified right with 0 <= xi <= gamma, else 0: (B,) from logits (m, B, K).

    xi = Phi^-1(p1) - Phi^-1(p2), of the two largest probabilities at inverse temperature beta; sigma / 2 * xi is the
    certified radius. An image whose xi is not finite is left out before Phi^-1 is taken: after, its gradient would be
    0 * inf, which is NaN.
    """
    largest, classes = smoothed_probabilities(own.inverse_temperature * logits).topk(2, dim=-1)
    first, second = largest.unbind(-1)
    counted = (classes[:, 0] == labels) & (first < 1) & (second > 0)
    robustness = ndtri(first.where(counted, 0.5)) - ndtri(second.where(counted, 0.5))
    return counted * (own.margin - robustness).clamp_min(0)
