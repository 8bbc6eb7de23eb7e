"""Keyed noise on the grid: (seed, image, sample) determine it, whatever the batch, the order, the shard or the restart.

Philox4x32-10 (Salmon et al. 2011) under the key `seed` turns a counter into four words. The counter (quad, sample,
image, sample >> 32) gives the upper words of values j, j + Q, j + 2 Q and j + 3 Q of a sample, flattened, where j is
the quad and Q a quarter of the values, rounded up; the same counter with the last bit of its last word set gives the
lower words. Different counters never share noise: Philox permutes them. Each value's 64 bits then fall into a bin of
`DiscreteNormal`.

This file is the reference. `native.cpp` on a CPU with a C++ compiler and `cuda.py` on a GPU give the same integers.
"""

import numpy as np

from components.certification.noise.discrete_normal import DiscreteNormal

PIECE = 1 << 14
"""Quads of the reference computed at once: few enough for the cache."""
LOWER_WORDS = 1 << 31
"""Set in the last word of a counter, whose other bits are those of a sample's number below 2**63."""


def integer_noise(
    normal: DiscreteNormal, seed: int, index: int, start: int, stop: int, values: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples `start` to `stop` of an image's noise in steps of the grid: int32 (stop - start, values), and which of
    the samples are lost: bool (stop - start,)."""
    noise = np.empty((stop - start, values), dtype=np.int32)
    lost = np.zeros(stop - start, dtype=bool)
    step = max(1, 4 * PIECE // values)
    for begin in range(start, stop, step):
        end = min(begin + step, stop)
        piece = uniform(seed, index, begin, end, values)
        bins = np.searchsorted(normal.edges[1:], piece, side="right")
        noise[begin - start : end - start] = bins - normal.reach
        lost[begin - start : end - start] = (piece >= normal.edges[-1]).any(axis=1)
    return noise, lost


def on_unit_scale(sums: np.ndarray, grid: int) -> np.ndarray:
    """What the network sees of image + noise, integers below 2**24: float32, one multiplication, a function of the sum
    alone."""
    return sums.astype(np.float32) * (np.float32(1) / np.float32(grid))


def uniform(seed: int, index: int, start: int, stop: int, values: int) -> np.ndarray:
    """64 uniform bits for each value: uint64 (stop - start, values)."""
    quads = -(-values // 4)
    sample = np.arange(start, stop, dtype=np.uint64)[:, None]
    quad, last = np.arange(quads, dtype=np.uint64)[None], sample >> np.uint64(32)
    upper, lower = (
        np.concatenate(philox((quad, sample & MASK, np.uint64(index), last | np.uint64(flag)), seed), axis=1)
        for flag in (0, LOWER_WORDS)
    )
    return (upper.astype(np.uint64) << np.uint64(32) | lower)[:, :values]


MASK = np.uint64(0xFFFFFFFF)


def philox(counter: tuple[np.ndarray | np.uint64, ...], seed: int) -> tuple[np.ndarray, ...]:
    """Philox4x32 with ten rounds: four counter words (uint64 arrays below 2**32) to four words (uint32)."""
    a, b, c, d = counter
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> 32) ^ b ^ np.uint64(key0), q & MASK, (p >> 32) ^ d ^ np.uint64(key1), p & MASK
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return tuple(np.asarray(word).astype(np.uint32) for word in (a, b, c, d))
