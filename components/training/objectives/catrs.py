"""CAT-RS (Jeong, Kim & Shin, AAAI 2023): the easiest noises of images that are often wrong, the hardest one of images
that never are."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import Catrs
from components.params import Train
from components.training.attack import eval_mode, noise_gradient, project, unit
from components.training.draws import Draws
from components.training.preparation import TrainingImages
from components.training.smoothing import TINY, divergence, noisy_logits

TARGET = "target"
"""Float32 (N, K): q, the class frequencies of the Gaussian model under noise; rows of zeros are not known yet."""


def targets(
    network: nn.Module,
    images: TrainingImages,
    known: dict[str, Tensor],
    *,
    sigma: float,
    own: Catrs,
    gaussian: nn.Module | None,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """q of every training image, once; see `Preparation` for arguments and result."""
    found, rows = known.get(TARGET), torch.arange(len(images.labels), device=images.labels.device)
    if found is not None:
        rows = (found.sum(1) == 0).nonzero().flatten()
    if not len(rows):
        return
    assert gaussian is not None, "the parameters were checked"
    copies = own.targets_copies
    counted = images.count_classes(gaussian, rows, sigma=own.targets_sigma, copies=copies, use="target", augment=True)
    for piece, counts, _ in counted:
        if found is None:
            found = counts.new_zeros(len(rows), counts.shape[1], dtype=torch.float32)
        found[piece] = counts.float() / copies
        yield (int(piece[-1]) + 1) / len(found), {TARGET: found}


def catrs(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Catrs,
    per_image: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """The mean of L_low + lambda * [k = M] * L_high, where k is drawn by the share of an image's noises that are
    classified right; see `Objective` for arguments and result."""
    m, target = own.num_noises, per_image[TARGET]
    noise = sigma * draws.normal(m, images)

    logits = noisy_logits(network, images, noise)
    right = (logits.detach().argmax(-1) == labels).float().mean(0)
    kept = number_kept(right, m, images, draws)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.repeat(m), reduction="none").view(m, -1)
    ranks = torch.arange(m, device=labels.device)[:, None]
    easiest = torch.where(ranks < kept, losses.sort(0).values, 0.0)
    low = easiest.sum(0) / m  # not over k

    adversary = hardest_noise(network, images, target, noise, steps=own.attack_steps, radius=own.attack_radius)
    log_predicted = noisy_logits(network, images, adversary).log_softmax(-1)
    high = divergence(target, log_predicted).max(0).values
    return (low + own.weight * (kept == m) * high).mean(), logits


def number_kept(right: Tensor, m: int, images: Tensor, draws: Draws) -> Tensor:
    """k = max(1, Binomial(m, right)) for each of the images, int64 (B,)."""
    hits = [draws.uniform(images, high=1.0) < right for _ in range(m)]  # U < 1 always, U < 0 never
    return torch.stack(hits).sum(0).clamp_min(1)


def hardest_noise(
    network: nn.Module, images: Tensor, target: Tensor, noise: Tensor, *, steps: int, radius: float
) -> Tensor:
    """Noise (m, B, C, H, W) near `noise` that takes the predictions away from `target`, the network in eval mode.

    Each copy has its own steps of the length 2 * radius / steps, up the gradient of KL(q || softmax F(x + e)). After
    each, e is projected to the ball around the noise, then given the noise's mean and root mean square, which may take
    it out of the ball.

    Args:
        target: q, probabilities (B, K).
    """
    copies, answers = images.expand_as(noise).flatten(0, 1), target.repeat(len(noise), 1)
    start = moved = noise.flatten(0, 1)
    with eval_mode(network) as classifier:
        for _ in range(steps):
            gradient, _ = noise_gradient(classifier, copies + moved, answers)  # KL and cross-entropy differ by H(q)
            moved = moved + 2 * radius / steps * unit(gradient)
            moved = with_moments(start + project(moved - start, radius), start)
    return torch.unflatten(moved, 0, noise.shape[:2])


def with_moments(noise: Tensor, of: Tensor) -> Tensor:
    """m0 + s0 * (e - mean e) / rms e for each of the noises (n, C, H, W): m0 and s0 are mean and root mean square of
    `of`."""
    pixels = (1, 2, 3)
    mean, rms = noise.mean(pixels, keepdim=True), noise.square().mean(pixels, keepdim=True).sqrt()
    own_mean, own_rms = of.mean(pixels, keepdim=True), of.square().mean(pixels, keepdim=True).sqrt()
    return own_mean + own_rms * (noise - mean) / rms.clamp_min(TINY)
