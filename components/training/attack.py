"""Gradient ascent in L2 on the loss of the smoothed classifier."""

import torch
from torch import Tensor, nn

from components.training.folding import fold

CHUNK = 128
"""Noisy images per forward on a CPU, so that what lies between two layers fits its caches; a GPU takes all at once."""


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

    Climbs J(u) = -sum_b log max(mean_i softmax(F(u_b + delta_i))[y_b], 1e-20) by steps of fixed L2 length per image,
    clipped to [0, 1] (SmoothMix, section 3.1). Batch norm uses its running statistics and leaves them as they are;
    no gradient reaches the parameters.

    Args:
        images: (B, C, H, W) in [0, 1].
        noise: (m, B, C, H, W), already scaled by sigma.
        radius: radius of an L2 ball around `images` to stay in, or None.
    """
    was_training = network.training
    network.eval()
    classify = fold(network)
    chunk = len(images) if images.is_cuda else max(1, CHUNK // len(noise))  # images are independent of each other
    path = [images]
    for _ in range(steps):
        point = path[-1]
        parts = zip(torch.split(point, chunk), torch.split(labels, chunk), torch.split(noise, chunk, 1), strict=True)
        gradient = torch.cat([ascent_direction(classify, *part) for part in parts])
        point = point + step_size * gradient / (norms(gradient) + 1e-8)
        if radius is not None:
            point = images + project(point - images, radius)
        path.append(point.clamp(0, 1))
    network.train(was_training)
    return path


def ascent_direction(classify: nn.Module, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """The gradient of J at `images`, see `smoothed_ascent`: (B, C, H, W)."""
    point = images.detach().requires_grad_()
    logits = classify((point + noise).flatten(0, 1)).float()
    smoothed = logits.unflatten(0, noise.shape[:2]).softmax(-1).mean(0)
    of_label = smoothed.gather(-1, labels[:, None]).clamp_min(1e-20)
    (gradient,) = torch.autograd.grad(-of_label.log().sum(), point)
    return gradient


def project(step: Tensor, radius: float) -> Tensor:
    """Steps (B, C, H, W) shortened to L2 norm `radius` where they are longer."""
    length = norms(step)
    return torch.where(length > radius, step * (radius / (length + 1e-7)), step)


def norms(vectors: Tensor) -> Tensor:
    """L2 norm per image of (B, C, H, W), as (B, 1, 1, 1)."""
    return vectors.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
