"""The noise of `reference.py` inside a GPU kernel: drawn, scaled and added to the image in registers, written once.

Runs without a GPU in Triton's interpreter (TRITON_INTERPRET=1, set before this file is imported).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

QUADS = 256
"""Quads (four normals each) of one kernel instance; changes no result."""


@triton.jit
def minus_two_log(word):  # type: ignore[no-untyped-def]
    u = (word.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    bits = u.to(tl.uint32, bitcast=True) - 0x3F3504F3
    e = (bits.to(tl.int32, bitcast=True) >> 23).to(tl.float32)
    m = ((bits & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    y = 7.0376836292e-2 * m - 1.1514610310e-1
    y = y * m + 1.1676998740e-1
    y = y * m - 1.2420140846e-1
    y = y * m + 1.4249322787e-1
    y = y * m - 1.6668057665e-1
    y = y * m + 2.0000714765e-1
    y = y * m - 2.4999993993e-1
    y = y * m + 3.3333331174e-1
    square = m * m
    y = y * m * square - 0.5 * square
    return -2.0 * ((m + y) + e * 0.693147180559945)


@triton.jit
def normal_pair(for_radius, for_angle):  # type: ignore[no-untyped-def]
    radius = tl.sqrt(minus_two_log(for_radius))
    angle = (for_angle << 2).to(tl.int32, bitcast=True).to(tl.float32) * 3.65729529994141e-10
    square = angle * angle
    tail = -1.6666654611e-1 + square * (8.3321608736e-3 + square * -1.9515295891e-4)
    sine = angle + angle * square * tail
    tail = 4.166664568298827e-2 + square * (-1.388731625493765e-3 + square * 2.443315711809948e-5)
    cosine = 1.0 - 0.5 * square + square * square * tail
    quadrant = for_angle >> 30
    swapped = (quadrant & 1) == 1
    first = tl.where(swapped, sine, cosine)
    second = tl.where(swapped, cosine, sine)
    first = tl.where(((quadrant + 1) & 2) == 2, -first, first)
    second = tl.where((quadrant & 2) == 2, -second, second)
    return radius * first, radius * second


@triton.jit
def words(seed, index, start, quads, QUADS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The four Philox words of this instance's quads, and which quads they are."""
    sample = start + tl.program_id(0).to(tl.int64)
    quad = tl.program_id(1) * QUADS + tl.arange(0, QUADS)
    zero = quad.to(tl.uint32) * 0
    low = zero + (sample & 0xFFFFFFFF).to(tl.uint32)
    high = zero + (sample >> 32).to(tl.uint32)
    return tl.philox(seed, quad.to(tl.uint32), low, zero + index.to(tl.uint32), high), quad


@triton.jit(do_not_specialize=["seed", "index", "start"])
def noisy_kernel(out, image, sigma, seed, index, start, values, quads, QUADS: tl.constexpr):  # type: ignore[no-untyped-def]
    (a, b, c, d), quad = words(seed, index, start, quads, QUADS)
    row = out + tl.program_id(0).to(tl.int64) * values
    z0, z1 = normal_pair(a, b)
    z2, z3 = normal_pair(c, d)
    inside = quad < quads
    add_noise(row, image, sigma, z0, quad, inside)
    add_noise(row, image, sigma, z1, quad + quads, inside & (quad + quads < values))
    add_noise(row, image, sigma, z2, quad + 2 * quads, inside & (quad + 2 * quads < values))
    add_noise(row, image, sigma, z3, quad + 3 * quads, inside & (quad + 3 * quads < values))


@triton.jit
def add_noise(row, image, sigma, normal, position, inside):  # type: ignore[no-untyped-def]
    tl.store(row + position, tl.load(image + position, inside) + sigma * normal, inside)


def noisy_copies_cuda(image: Tensor, sigma: float, *, seed: int, index: int, start: int, stop: int) -> Tensor:
    """See `noise.noisy_copies`.

    Raises:
        OSError: Triton cannot keep the compiled kernel on disk.
    """
    values, samples = image.numel(), stop - start
    quads = -(-values // 4)
    out = torch.empty((samples, *image.shape), device=image.device)
    grid = (samples, triton.cdiv(quads, QUADS))
    # Triton launches on the thread's current device, whatever device the tensors are on, and a new thread's is GPU 0.
    with torch.cuda.device_of(image):  # type: ignore[no-untyped-call]
        try:
            noisy_kernel[grid](out, image.contiguous(), sigma, seed, index, start, values, quads, QUADS)
        except OSError as error:
            raise OSError(
                f"Triton cannot keep its compiled kernel ({error}): set TRITON_CACHE_DIR to a folder where this user "
                "may write"
            ) from None
    return out
