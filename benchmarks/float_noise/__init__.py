"""Float32 noise by Box-Muller, as it was before certificates held for the program that runs.

For comparison alone: tests show how it contradicts certificates, the benchmark how fast it is. Nothing certifies with
it.
"""

import ctypes
import functools
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.float_noise.reference import gaussian_noise
from components.certification.noise import native

SOURCE = Path(__file__).with_name("native.cpp")


def noisy_copies(image: Tensor, sigma: float, *, seed: int, index: int, start: int, stop: int) -> Tensor:
    """image + N(0, sigma^2 I) for the samples `start` to `stop` of an image's noise, drawn and added in float32.

    Args:
        image: float32 (C, H, W), on the CPU.
        seed: the key, in [0, 2**63).
        index: the image's number, in [0, 2**32).

    Returns:
        float32 (stop - start, C, H, W).
    """
    values = image.contiguous().numpy().ravel()
    if library := load():
        copies = _compiled(library, values, sigma, seed, index, start, stop)
    else:
        copies = values + np.float32(sigma) * gaussian_noise(seed, index, start, stop, len(values))
    return torch.from_numpy(copies).view(-1, *image.shape)


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, or None where it cannot be built: one line on stderr then says why."""
    try:
        library = ctypes.CDLL(str(native.build(SOURCE)))
        library.noisy_copies.restype = None
        key = 2**62 + 12345, 2**31 + 7, 2**32 - 1  # every half of every word counts
        out = _compiled(library, np.zeros(1001, dtype=np.float32), 1.0, *key, key[2] + 3)
        if not np.array_equal(out, gaussian_noise(*key, key[2] + 3, 1001)):
            raise RuntimeError("the compiled noise differs from the reference")
        return library
    except (OSError, RuntimeError) as error:
        print(f"float noise is drawn by numpy: {error}", file=sys.stderr)
        return None


def _compiled(
    library: ctypes.CDLL, image: np.ndarray, sigma: float, seed: int, index: int, start: int, stop: int
) -> np.ndarray:
    """float32 (stop - start, values) from a contiguous float32 image."""
    out = np.empty((stop - start, image.size), dtype=np.float32)
    library.noisy_copies(
        ctypes.c_void_p(out.ctypes.data),
        ctypes.c_void_p(image.ctypes.data),
        ctypes.c_float(sigma),
        ctypes.c_uint64(seed),
        ctypes.c_uint32(index),
        ctypes.c_uint64(start),
        ctypes.c_int64(stop - start),
        ctypes.c_int64(image.size),
    )
    return out
