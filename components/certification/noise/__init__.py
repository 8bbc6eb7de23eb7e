"""Keyed Gaussian noise, added to images: the reference in numpy, the same bits compiled, and a GPU kernel."""

import ctypes

import numpy as np
import torch
from torch import Tensor

from components.certification.noise import native
from components.certification.noise.reference import gaussian_noise


def noisy_copies(image: Tensor, sigma: float, *, seed: int, index: int, start: int, stop: int) -> Tensor:
    """image + N(0, sigma^2 I) for the samples `start` to `stop` of an image's noise, drawn and added in float32.

    Args:
        image: float32 (C, H, W).
        seed: the key, in [0, 2**63).
        index: the image's number, in [0, 2**32).

    Returns:
        float32 (stop - start, C, H, W) on the image's device.
    """
    if image.is_cuda:
        from components.certification.noise.cuda import noisy_copies_cuda  # Triton comes with GPUs only

        return noisy_copies_cuda(image, sigma, seed=seed, index=index, start=start, stop=stop)
    values, samples = image.numel(), stop - start
    image = image.contiguous()
    if library := native.load():
        out = torch.empty((samples, *image.shape))
        arguments = (ctypes.c_float(sigma), ctypes.c_uint64(seed), ctypes.c_uint32(index), ctypes.c_uint64(start))
        sizes = (ctypes.c_int64(samples), ctypes.c_int64(values))
        library.noisy_copies(ctypes.c_void_p(out.data_ptr()), ctypes.c_void_p(image.data_ptr()), *arguments, *sizes)
        return out
    noise = gaussian_noise(seed, index, start, stop, values)
    return torch.from_numpy(image.numpy().ravel() + np.float32(sigma) * noise).view(samples, *image.shape)
