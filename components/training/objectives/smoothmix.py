"""SmoothMix (Jeong et al., NeurIPS 2021): mix each image with its adversary of the smoothed classifier."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.params import Train
from components.training.attack import project, smoothed_ascent
from components.training.draws import Draws

TINY = 1e-20  # under a logarithm: keeps 0 * inf out of the divergence


def smoothmix(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    warmup: float,
    draws: Draws,
) -> tuple[Tensor, Tensor]:
    """L_nat + eta * w_e * L_mix; see `Objective` for arguments and result.

    The noises are drawn once: the attack, the clean pass and the mixed pass share them.
    """
    mix = settings.smoothmix
    m = mix.num_noises
    noise = sigma * draws.normal(m, images)

    path = smoothed_ascent(
        network, images, labels, noise, steps=mix.attack_steps, step_size=mix.step_size, radius=mix.attack_radius
    )
    adversary, clean = path[-1], images
    if mix.clean_step < mix.attack_steps:
        step = project(path[mix.clean_step] - images, warmup * mix.step_size * mix.clean_step)
        clean = (images + step).clamp(0, 1)

    # Two separate forwards: one over both would change the statistics that batch norm sees.
    logits = noisy_logits(network, clean, noise)
    smoothed = logits.softmax(-1).mean(0)  # p-bar, with its gradient
    natural_loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(m))

    mixing = draws.uniform(images, high=0.5)[:, None]  # lambda, one per image
    pixelwise = mixing[..., None, None]
    mixed = (1 - pixelwise) * clean + pixelwise * adversary
    target = ((1 - mixing) * smoothed + mixing / smoothed.shape[-1]).clamp_min(TINY)
    log_predicted = noisy_logits(network, mixed, noise).log_softmax(-1)
    divergence = (target * (target.log() - log_predicted)).sum(-1)  # (m, B)
    correct = smoothed.argmax(-1) == labels
    mixed_loss = (correct * divergence).mean()  # over all m * B, not over the correct ones

    return natural_loss + mix.mix_weight * warmup * mixed_loss, logits


def noisy_logits(network: nn.Module, images: Tensor, noise: Tensor) -> Tensor:
    """Float32 logits (m, B, K) of images (B, C, H, W) under noise (m, B, C, H, W), in one forward."""
    logits = network((images + noise).flatten(0, 1)).float()
    return torch.unflatten(logits, 0, noise.shape[:2])
