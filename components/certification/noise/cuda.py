"""The noise of `reference.py` inside a GPU kernel: drawn, added to the image and converted in registers, written once.

Runs without a GPU in Triton's interpreter (TRITON_INTERPRET=1, set before this file is imported).
"""

import functools

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from components.certification.noise.discrete_normal import DiscreteNormal

QUADS = 256
"""Quads (four values each) of one kernel instance; changes no result."""
SIGN = 1 << 63
"""Turned, it makes the order of uint64 that of int64."""


@triton.jit
def uniform(seed, index, start, quads, QUADS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The 64 bits of this instance's values, their last bit turned for signed comparison, and which quads those are."""
    sample = start + tl.program_id(0).to(tl.int64)
    quad = tl.program_id(1) * QUADS + tl.arange(0, QUADS)
    zero = quad.to(tl.uint32) * 0
    low = zero + (sample & 0xFFFFFFFF).to(tl.uint32)
    high = zero + (sample >> 32).to(tl.uint32)
    image = zero + index.to(tl.uint32)
    a, b, c, d = tl.philox(seed, quad.to(tl.uint32), low, image, high)
    e, f, g, h = tl.philox(seed, quad.to(tl.uint32), low, image, high | 0x80000000)
    return joined(a, e), joined(b, f), joined(c, g), joined(d, h), quad


@triton.jit
def joined(upper, lower):  # type: ignore[no-untyped-def]
    return ((upper ^ 0x80000000).to(tl.int32, bitcast=True).to(tl.int64) << 32) | lower.to(tl.int64)


@triton.jit(do_not_specialize=["seed", "index", "start"])
def noisy_kernel(  # type: ignore[no-untyped-def]
    out, lost, image, edges, step, seed, index, start, values, quads, reach, DEPTH: tl.constexpr, QUADS: tl.constexpr
):
    a, b, c, d, quad = uniform(seed, index, start, quads, QUADS)
    row, lost = out + tl.program_id(0).to(tl.int64) * values, lost + tl.program_id(0)
    inside = quad < quads
    add_noise(row, lost, image, edges, step, a, quad, inside, reach, DEPTH)
    add_noise(row, lost, image, edges, step, b, quad + quads, inside & (quad + quads < values), reach, DEPTH)
    add_noise(row, lost, image, edges, step, c, quad + 2 * quads, inside & (quad + 2 * quads < values), reach, DEPTH)
    add_noise(row, lost, image, edges, step, d, quad + 3 * quads, inside & (quad + 3 * quads < values), reach, DEPTH)


@triton.jit
def add_noise(row, lost, image, edges, step, bits, position, inside, reach, DEPTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Search the bits among the edges, from above the first one: how many are not above them."""
    below = position * 0
    for level in tl.static_range(DEPTH):
        further = below + (1 << (DEPTH - 1 - level))
        known = further <= 2 * reach + 1
        edge = tl.load(edges + further, inside & known, 0)
        below = tl.where(known & (edge <= bits), further, below)
    pixel = tl.load(image + position, inside)
    tl.store(row + position, (pixel + below - reach).to(tl.float32) * step, inside)
    tl.store(lost + position * 0, 1, inside & (below > 2 * reach))


@functools.cache
def edges_on(device: torch.device, normal: DiscreteNormal) -> Tensor:
    return torch.from_numpy((normal.edges ^ np.uint64(SIGN)).view(np.int64)).to(device)


def noisy_copies_cuda(
    image: Tensor, normal: DiscreteNormal, *, seed: int, index: int, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """See `noise.noisy_copies`.

    Raises:
        OSError: Triton cannot keep the compiled kernel on disk.
    """
    values, samples = image.numel(), stop - start
    quads = -(-values // 4)
    out = torch.empty((samples, *image.shape), device=image.device)
    lost = torch.zeros(samples, dtype=torch.int8, device=image.device)
    step, depth = float(np.float32(1) / np.float32(normal.grid)), (2 * normal.reach + 1).bit_length()
    keys = seed, index, start, values, quads
    grid = (samples, triton.cdiv(quads, QUADS))
    # Triton launches on the thread's current device, whatever device the tensors are on, and a new thread's is GPU 0.
    with torch.cuda.device_of(image):  # type: ignore[no-untyped-call]
        try:
            edges = edges_on(image.device, normal)
            noisy_kernel[grid](out, lost, image.contiguous(), edges, step, *keys, normal.reach, depth, QUADS)
        except OSError as error:
            raise OSError(
                f"Triton cannot keep its compiled kernel ({error}): set TRITON_CACHE_DIR to a folder where this user "
                "may write"
            ) from None
    return out, lost.bool()
