"""Keyed Gaussian noise: (seed, image, sample) determine it, whatever the batch, the order, the shard or the restart.

Philox4x32-10 (Salmon et al. 2011) under the key `seed` turns the counter (quad, sample, image, sample >> 32) into four
words, and Box-Muller those into four normals: values j, j + Q, j + 2Q and j + 3Q of a sample, flattened, where j is the
quad and Q a quarter of the values, rounded up. Different counters never share noise: Philox permutes them.

This file is the reference. On a CPU with a C++ compiler `native.cpp` gives the same bits: every operation is a float32
operation of its own, in the order written here.
"""

import numpy as np

from components.certification.noise.reference import MASK, philox

PIECE = 1 << 14
"""Quads of the reference computed at once: few enough for the cache."""


def gaussian_noise(seed: int, index: int, start: int, stop: int, values: int) -> np.ndarray:
    """Samples `start` to `stop` of an image's noise: float32 N(0, 1) of shape (stop - start, values)."""
    quads = -(-values // 4)
    normals = np.empty((stop - start, 4, quads), dtype=np.float32)
    step = max(1, PIECE // quads)
    for begin in range(start, stop, step):
        samples = np.arange(begin, min(begin + step, stop), dtype=np.uint64)[:, None]
        counter = (np.arange(quads, dtype=np.uint64)[None], samples & MASK, np.uint64(index), samples >> 32)
        a, b, c, d = philox(counter, seed)
        piece = normals[begin - start : begin - start + step]
        piece[:, 0], piece[:, 1] = normal_pair(a, b)
        piece[:, 2], piece[:, 3] = normal_pair(c, d)
    return normals.reshape(stop - start, 4 * quads)[:, :values]


def minus_two_log(words: np.ndarray) -> np.ndarray:
    """-2 log(u) at u = (word + 1/2) / 2**32, in float32: at most 45.8, so that no normal exceeds 6.77.

    log(2**e (1 + m)) = e log 2 + m - m**2 / 2 + m**3 P(m), 1 + m in [sqrt(1/2), sqrt(2)), P as in Moshier's Cephes.
    """
    f = np.float32
    u = (words.astype(f) + f(0.5)) * f(2**-32)
    bits = u.view(np.uint32) - np.uint32(0x3F3504F3)
    e = (bits.view(np.int32) >> 23).astype(f)
    m = ((bits & np.uint32(0x7FFFFF)) + np.uint32(0x3F3504F3)).view(f) - f(1)
    y = np.full_like(m, 7.0376836292e-2)
    for coefficient in LOG:
        y = y * m + f(coefficient)
    square = m * m
    y = y * m * square - f(0.5) * square
    return f(-2) * ((m + y) + e * f(0.693147180559945))


LOG = (
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)


def normal_pair(for_radius: np.ndarray, for_angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two normals by Box-Muller; the angle's upper two bits are the quadrant, the others the angle within it."""
    f = np.float32
    radius = np.sqrt(minus_two_log(for_radius))
    angle = (for_angle << np.uint32(2)).view(np.int32).astype(f) * (f(np.pi / 2) * f(2**-32))
    square = angle * angle
    tail = f(-1.6666654611e-1) + square * (f(8.3321608736e-3) + square * f(-1.9515295891e-4))
    sine = angle + angle * square * tail
    tail = f(4.166664568298827e-2) + square * (f(-1.388731625493765e-3) + square * f(2.443315711809948e-5))
    cosine = f(1) - f(0.5) * square + square * square * tail
    quadrant = for_angle >> np.uint32(30)
    swapped = (quadrant & np.uint32(1)).astype(bool)
    first, second = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    first_sign = np.where((quadrant == 1) | (quadrant == 2), f(-1), f(1))
    second_sign = np.where(quadrant >= 2, f(-1), f(1))
    return radius * (first * first_sign), radius * (second * second_sign)
