"""Sun et al., ICML 2025, "Average Certified Radius is a Poor Metric": cross-entropy at the hardest noises of the images
that can be certified.

Its authors made it to show that the average certified radius can be gamed: hard images are given up. On CIFAR-10 at
sigma 1.0 its clean accuracy is .420 where Gaussian training has .509. Never a default.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.methods import Sun2025
from components.params import Train
from components.training.attack import eval_mode, noise_gradient, norms, unit
from components.training.draws import Draws
from components.training.preparation import CHANCE, TrainingImages
from components.training.smoothing import TINY, noisy_logits

REWEIGH_EVERY = 10
"""Epochs between two decisions how often each image is drawn."""
SELECTION_COPIES, WEIGHT_COPIES = 100, 16
"""Noisy copies of an image, from which it is decided whether it is kept, and how often it is drawn."""
LEAST_RIGHT = WEIGHT_COPIES * 3 // 4
"""With fewer copies right than this, an image is drawn as with this many."""
WEIGHT_LEVEL = 0.1


def weight_by_right() -> Tensor:
    """Phi^-1 of the Clopper-Pearson lower bound of m right copies of 16, at level .1; m below 12 counts as 12.

    Float64 (17,), by m. In proportion to the radius that could be certified from so many.
    """
    from scipy.special import betaincinv, ndtri  # a third of a second to import, for this method alone

    right = np.arange(WEIGHT_COPIES + 1).clip(LEAST_RIGHT, None)
    return torch.from_numpy(ndtri(betaincinv(right, WEIGHT_COPIES - right + 1, WEIGHT_LEVEL)))


def selection(
    network: nn.Module,
    images: TrainingImages,
    known: dict[str, Tensor],
    *,
    sigma: float,
    own: Sun2025,
    gaussian: nn.Module | None,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Which images are kept, once, and how often each of them is drawn, then and every 10 epochs; see `Preparation`.

    Raises:
        ValueError: none is kept.
    """
    since = images.epoch - own.selection_epoch
    if since < 0 or since % REWEIGH_EVERY:
        return
    labels = images.labels
    rows = torch.arange(len(labels), device=labels.device)
    right = torch.zeros_like(labels)  # of the copies
    if since == 0:
        counted = images.count_classes(network, rows, sigma=sigma, copies=SELECTION_COPIES, use="selection")
        for piece, counts, share in counted:
            right[piece] = counts.gather(1, labels[piece, None])[:, 0]
            yield share, known
        rows = rows[right.double() / SELECTION_COPIES >= own.least_share]
        if not len(rows):
            raise ValueError(
                f"train.sun2025.least_share is {own.least_share}: at epoch {images.epoch} no training image is "
                f"classified right under so much of the noise: lower it, or raise selection_epoch"
            )
    else:
        rows = rows[known[CHANCE] > 0]
    counted = images.count_classes(network, rows, sigma=sigma, copies=WEIGHT_COPIES, use="weight")
    for piece, counts, share in counted:
        right[piece] = counts.gather(1, labels[piece, None])[:, 0]
        yield share, known
    chance = torch.zeros_like(labels, dtype=torch.float64)
    chance[rows] = weight_by_right().to(labels.device)[right[rows]]
    yield 1.0, {CHANCE: chance}


def sun2025(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    settings: Train,
    epoch: int,
    draws: Draws,
    own: Sun2025,
    per_image: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """mean_i CE(F(x + e_i), y); see `Objective` for arguments and result. e_i is Gaussian noise, and from
    `selection_epoch` on what an attack makes of it."""
    noise = sigma * draws.normal(own.num_noises, images)
    if epoch >= own.selection_epoch:
        noise = noise_on_sphere(network, images, labels, noise, steps=own.attack_steps, step_size=own.step_size)
    logits = noisy_logits(network, images, noise)
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(own.num_noises)), logits


def noise_on_sphere(
    network: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, *, steps: int, step_size: float
) -> Tensor:
    """Noise (m, B, C, H, W) as long as `noise`, of which more is misclassified by the network in eval mode.

    Each copy has its own steps up the gradient of its cross-entropy, each followed by a return to its length. A copy
    that is misclassified stays where it is; after the last step nothing is checked.
    """
    copies, answers = images.expand_as(noise).flatten(0, 1), labels.repeat(len(noise))
    moved = noise.flatten(0, 1)
    length = norms(moved)
    with eval_mode(network) as classifier:
        for _ in range(steps):
            gradient, logits = noise_gradient(classifier, copies + moved, answers)
            stepped = moved + step_size * unit(gradient)
            stepped = stepped * (length / norms(stepped).clamp_min(TINY))
            right = (logits.argmax(-1) == answers).view(-1, 1, 1, 1)
            moved = torch.where(right, stepped, moved)
    return torch.unflatten(moved, 0, noise.shape[:2])
