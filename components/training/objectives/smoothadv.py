"""SmoothAdv (Salman et al., NeurIPS 2019): cross-entropy at adversaries of the smoothed classifier."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import SmoothAdv
from components.params import Train
from components.training.attack import smoothed_pgd
from components.training.draws import Draws
from components.training.smoothing import noisy_logits, warmup_weight


def smoothadv(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: SmoothAdv,
) -> tuple[Tensor, Tensor]:
    """mean_i CE(F(x_adv + delta_i), y); see `Objective` for arguments and result.

    The noises are drawn once: attack and training pass share them. The attack's radius grows in the warm-up.
    """
    noise = sigma * draws.normal(own.num_noises, images)
    radius = warmup_weight(epoch, settings) * own.attack_radius
    adversary = smoothed_pgd(network, images, labels, noise, steps=own.attack_steps, radius=radius, draws=draws)
    logits = noisy_logits(network, adversary, noise)
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(own.num_noises)), logits
