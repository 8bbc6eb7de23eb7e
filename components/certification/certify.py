"""The reference procedure of Cohen et al. 2019 (algorithm 2, CERTIFY)."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from components.certification.bounds import certified_radius, lower_bound
from components.certification.sampling import check_image, count_classes
from components.certification.table import ABSTAIN, Certificate
from components.data.pixels import to_unit_interval
from components.params import Certify


def certify_image(
    network: nn.Module,
    image: Tensor,
    sigma: float,
    *,
    num_classes: int,
    n0: int,
    n: int,
    failure_prob: float,
    seed: int,
    index: int,
) -> Certificate:
    """Choose a class on `n0` samples, bound its probability on `n` fresh ones.

    Args:
        network: in eval mode.
        image: float32 (C, H, W).
        seed, index: key the noise; samples 0 to n0 select, samples n0 to n0 + n estimate.

    Raises:
        ValueError: the image is not finite or leaves [0, 1].
        FloatingPointError: a logit is not finite.
    """
    check_image(image, index)

    def count(start: int, stop: int) -> np.ndarray:
        return count_classes(
            network, image, sigma, num_classes=num_classes, seed=seed, index=index, start=start, stop=stop
        )

    selected = int(count(0, n0).argmax())
    counts = count(n0, n0 + n)
    p_lower = lower_bound(int(counts[selected]), n, failure_prob)
    if p_lower <= 0.5:
        return Certificate(ABSTAIN, 0.0, selected, counts.tolist(), p_lower)
    return Certificate(selected, certified_radius(p_lower, sigma), selected, counts.tolist(), p_lower)


def certify_images(
    network: nn.Module,
    pixels: np.ndarray,
    indices: Iterable[int],
    sigma: float,
    *,
    max_value: int,
    num_classes: int,
    settings: Certify,
    seed: int,
    workers: int,
) -> Iterator[tuple[int, Certificate]]:
    """Certify images of `pixels`, uint8 (N, C, H, W), in the order of `indices`, `workers` of them side by side.

    Each image is computed by one thread from its own noise, so that the certificates do not depend on `workers`.
    """
    device = next(network.parameters()).device
    network.eval()

    def work(index: int) -> tuple[int, Certificate]:
        image = to_unit_interval(torch.from_numpy(pixels[index]), max_value).to(device)
        return index, certify_image(
            network,
            image,
            sigma,
            num_classes=num_classes,
            n0=settings.n0,
            n=settings.n,
            failure_prob=settings.failure_prob,
            seed=seed,
            index=index,
        )

    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(work, indices)
    finally:
        pool.shutdown(cancel_futures=True)
