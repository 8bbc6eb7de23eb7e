"""L2 attacks on the smoothed classifier, and what attacks on single noises share.

The former maximise J(u) = -sum_b log max(mean_i softmax(F(u_b + delta_i))[y_b], 1e-20). All see the network in eval
mode: batch norm uses its running statistics and leaves them as they are, and no gradient reaches the parameters.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.training.draws import Draws
from components.training.fusing import fuse
from components.training.smoothing import TINY, noisy_logits, smoothed_probabilities

CHUNK = 128
"""Noisy images per forward on a CPU, so that the activations fit into its caches; a GPU takes all at once."""


def smoothed_ascent(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Tensor,
    *,
    steps: int,
    step_size: float,
    radius: float | None,
) -> list[Tensor]:
    """Unrestricted adversaries of the smoothed classifier: the points x_0 = x, x_1, ..., x_T of the ascent.

    Steps of fixed L2 length per image, clipped to [0, 1] (SmoothMix, section 3.1).

    Args:
        images: (B, C, H, W) in [0, 1].
        noise: (m, B, C, H, W), already scaled by sigma.
        radius: radius of an L2 ball around `images` to stay in, or None.
    """
    path = [images]
    with eval_mode(network) as classifier:
        for _ in range(steps):
            gradient = loss_gradient(classifier, path[-1], labels, noise)
            point = path[-1] + step_size * gradient / (norms(gradient) + 1e-8)
            if radius is not None:
                point = images + project(point - images, radius)
            path.append(point.clamp(0, 1))
    return path


def smoothed_pgd(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    noise: Tensor,
    *,
    steps: int,
    radius: float,
    draws: Draws,
) -> Tensor:
    """Adversaries (B, C, H, W) of the smoothed classifier within `radius` (SmoothAdv, section 3).

    Starts at the image. Steps have the length 2 * radius / steps; each point is clipped to [0, 1], then projected to
    the ball. Unlike in `smoothed_ascent`, clipping comes first, and where the gradient is exactly zero, a draw from
    N(0, I) replaces the unit direction.

    Args:
        images, labels, noise: as in `smoothed_ascent`.
        draws: used in every step, needed or not, so that later draws do not depend on the gradients.
    """
    points = images
    with eval_mode(network) as classifier:
        for _ in range(steps):
            gradient = loss_gradient(classifier, points, labels, noise)
            length = norms(gradient)
            direction = torch.where(length > 0, gradient / length, draws.normal(1, images)[0])
            points = (points + 2 * radius / steps * direction).clamp(0, 1)
            points = images + project(points - images, radius)
    return points


def loss_gradient(classifier: nn.Module, points: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """The gradient of J at `points` (B, C, H, W), computed for some images at a time, which are independent."""
    chunk = len(points) if points.is_cuda else max(1, CHUNK // len(noise))
    parts = zip(points.split(chunk), labels.split(chunk), noise.split(chunk, 1), strict=True)  # type: ignore[no-untyped-call]
    gradients = []
    for some_points, some_labels, some_noise in parts:
        some_points = some_points.detach().requires_grad_()
        smoothed = smoothed_probabilities(noisy_logits(classifier, some_points, some_noise))
        of_label = smoothed.gather(-1, some_labels[:, None]).clamp_min(TINY)
        gradients += torch.autograd.grad(-of_label.log().sum(), some_points)
    return torch.cat(gradients)


def noise_gradient(classifier: nn.Module, noisy: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of each noisy image's own cross-entropy, (n, C, H, W), and the logits (n, K); some images at a time.

    Args:
        answers: classes (n,), or probabilities (n, K).
    """
    chunk = len(noisy) if noisy.is_cuda else CHUNK
    gradients, logits = [], []
    for some, their_answers in zip(noisy.split(chunk), answers.split(chunk), strict=True):  # type: ignore[no-untyped-call]
        some = some.detach().requires_grad_()
        given = classifier(some).float()
        gradients += torch.autograd.grad(F.cross_entropy(given, their_answers, reduction="sum"), some)
        logits.append(given.detach())
    return torch.cat(gradients), torch.cat(logits)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Give the network in eval mode with fused layers; restore the mode of each layer, as some may be frozen."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield fuse(network)
    finally:
        for module, mode in modes:
            module.training = mode


def project(step: Tensor, radius: float) -> Tensor:
    """Steps (B, C, H, W) shortened to L2 norm `radius` where they are longer."""
    length = norms(step)
    return torch.where(length > radius, step * (radius / (length + 1e-7)), step)


def unit(vectors: Tensor) -> Tensor:
    """(B, C, H, W) at L2 norm 1 each; zero stays zero."""
    return vectors / norms(vectors).clamp_min(TINY)


def norms(vectors: Tensor) -> Tensor:
    """L2 norm per image of (B, C, H, W), as (B, 1, 1, 1)."""
    return vectors.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
