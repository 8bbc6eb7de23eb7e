"""Functions that the methods share: logits under noise, and sums over classes that stay finite at probability 0."""

import torch
from torch import Tensor, nn

from components.params import Train

TINY = 1e-20  # under a logarithm: keeps 0 * inf out of a sum


def noisy_logits(network: nn.Module, images: Tensor, noise: Tensor) -> Tensor:
    """Float32 logits (m, B, K) of images (B, C, H, W) under noise (m, B, C, H, W), in one forward."""
    logits = network((images + noise).flatten(0, 1)).float()
    return torch.unflatten(logits, 0, noise.shape[:2])


def smoothed_probabilities(logits: Tensor) -> Tensor:
    """p-bar: the mean over the noises of softmax (m, B, K), as (B, K), with its gradient."""
    return logits.softmax(-1).mean(0)


def divergence(target: Tensor, log_predicted: Tensor) -> Tensor:
    """KL(target || predicted) over the last dimension; the gradient flows through both arguments.

    Args:
        target: probabilities (B, K).
        log_predicted: logarithms of probabilities (m, B, K).

    Returns:
        (m, B).
    """
    target = target.clamp_min(TINY)
    return (target * (target.log() - log_predicted)).sum(-1)


def entropy(probabilities: Tensor) -> Tensor:
    """H(p) in nats over the last dimension of (B, K), as (B,)."""
    return -(probabilities * probabilities.clamp_min(TINY).log()).sum(-1)


def warmup_weight(epoch: int, settings: Train) -> float:
    """w_e = min(1, (e + 1) / warmup_epochs) in (0, 1], epochs counted from 0: never 0, not even in the first."""
    return min(1.0, (epoch + 1) / settings.warmup_epochs)
