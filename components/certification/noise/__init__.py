"""Keyed noise on the grid, added to images in integers: the reference in numpy, the same compiled, and a GPU kernel."""

import torch
from torch import Tensor

from components.certification.noise import native
from components.certification.noise.discrete_normal import DiscreteNormal
from components.certification.noise.reference import integer_noise, on_unit_scale

ARITHMETIC = "exact"
"""What tables, models and answers say of this noise; tables that say nothing were made with noise in floating point."""


def noisy_copies(
    image: Tensor, normal: DiscreteNormal, *, seed: int, index: int, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """What the network sees of the samples `start` to `stop` of an image's noise, and which of them are lost.

    Args:
        image: int32 (C, H, W), in steps of the grid.
        normal: of the noise; its grid is the image's.
        seed: the key, in [0, 2**63).
        index: the image's number, in [0, 2**32).

    Returns:
        float32 (stop - start, C, H, W), a function of the integer image + noise alone, and bool (stop - start,); both
        on the image's device.
    """
    if image.is_cuda:
        from components.certification.noise.cuda import noisy_copies_cuda  # Triton comes with GPUs only

        return noisy_copies_cuda(image, normal, seed=seed, index=index, start=start, stop=stop)
    values = image.contiguous().numpy().ravel()
    if library := native.load():
        copies, lost = native.noisy_copies(library, values, normal, seed, index, start, stop)
    else:
        noise, lost = integer_noise(normal, seed, index, start, stop, len(values))
        copies = on_unit_scale(values + noise, normal.grid)
    return torch.from_numpy(copies).view(-1, *image.shape), torch.from_numpy(lost)
