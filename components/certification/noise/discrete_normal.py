"""The normal distribution rounded to a grid, in integers: why a certificate holds for the program that runs.

Cohen's theorem is about real numbers and a true normal; floating point has neither, and an image can show through in
the last bits of image + noise. So images lie on the grid of k / grid, and the base classifier of the theorem is
H(z) = F(q(z)): q rounds each value to the grid, F is the network with all of its floating point. H is a function on
real vectors, so the theorem holds for it at the full radius. Since q(x + noise) = x + q(noise) for x on the grid, it
suffices to draw the integer i = grid * q(noise), of probability

    P(i) = Phi((i + 1/2) / (grid sigma)) - Phi((i - 1/2) / (grid sigma)),

to add it to the integer image, and to convert the sum once (Voracek and Hein 2023). Nothing else about x reaches F.

Drawn is a uniform integer U below 2**64, and the bin that it falls into is i: bin i has floor(P(i) 2**64) of the 2**64
integers, never more than its true share. What all bins leave over, some 1e-15 of a value, is "lost": such a sample
counts for nobody where hits are bounded from below, and for the rival where they are bounded from above. That is sound:
a sample of the true distribution may be lost with the probability that its bin was cut short by, and then counts as if
it had gone wrong.
"""

import functools
import hashlib
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np

WORD = 64
"""Bits of the uniform integer."""
FRACTION = 128
"""Binary digits behind the point of all that is computed here: errors only shorten bins."""
ONE = 1 << FRACTION
PI = 3141592653589793238462643383279502884197169399375105820974944592307816406286208998, 10**81
"""Numerator and denominator; below pi by less than 1 / denominator, far less than what an integer root is rounded by."""
LARGEST_SUM = 1 << 24
"""Integers up to here are exact in float32."""


@dataclass(frozen=True, eq=False)
class DiscreteNormal:
    """The distribution of grid * q(noise) at one sigma.

    Attributes:
        edges: uint64 (2 reach + 2,), increasing from 0: U gives j - reach where edges[j] <= U < edges[j + 1], and is
            lost from the last edge on.
        tops, lows: the upper and lower words of edges[1:], with a last top above which no word lies.
        guide: uint32 (cells + 1, 2), by the upper `32 - shift` bits of U: how many of the tops lie below this cell, with
            the last bit set where several lie in it; and the next top.
    """

    sigma: float
    grid: int
    edges: np.ndarray

    @property
    def reach(self) -> int:
        """The largest integer that is drawn."""
        return len(self.edges) // 2 - 1

    @property
    def sha256(self) -> str:
        """Of the edges, which say all about what is drawn."""
        return hashlib.sha256(self.edges.astype("<u8").tobytes()).hexdigest()

    @functools.cached_property
    def tops(self) -> np.ndarray:
        return np.append(self.edges[1:] >> np.uint64(32), np.uint64(0xFFFFFFFF)).astype(np.uint32)

    @functools.cached_property
    def lows(self) -> np.ndarray:
        return (self.edges[1:] & np.uint64(0xFFFFFFFF)).astype(np.uint32)

    @functools.cached_property
    def shift(self) -> int:
        """Several cells of the guide to a bin in the middle, where a bin has .4 / (sigma grid) of the draws."""
        return 32 - max(8, min(20, int(8 * self.sigma * self.grid).bit_length()))

    @functools.cached_property
    def guide(self) -> np.ndarray:
        cells = np.arange((1 << 32 >> self.shift) + 1, dtype=np.uint64) << np.uint64(self.shift)
        before = np.searchsorted(self.tops[:-1], cells.astype(np.uint64)).astype(np.uint32)
        many = np.append(np.diff(before) > 1, False)
        return np.stack([before | many.astype(np.uint32) << np.uint32(31), self.tops[before]], axis=1)


@functools.cache
def discrete_normal(sigma: float, grid: int) -> DiscreteNormal:
    """The distribution for N(0, sigma**2) on the grid of k / grid; of exactly this float64 sigma.

    Raises:
        ValueError: sigma is so large that float32 does not hold the sums.
    """
    widths = [2 * _phi_minus_half(Fraction(1, 2), sigma, grid)[0] >> FRACTION - WORD]  # of bin 0, then of 1, 2, ...
    _, above = _phi_minus_half(Fraction(1, 2), sigma, grid)
    while widths[-1]:
        if len(widths) + grid > LARGEST_SUM:
            raise ValueError(f"sigma is {sigma:g}: too large for images on a grid of {grid} steps")
        below, next_above = _phi_minus_half(len(widths) + Fraction(1, 2), sigma, grid)
        widths.append(max(0, below - above) >> FRACTION - WORD)
        above = next_above
    outward = np.array(widths[:-1], dtype=np.uint64)
    edges = np.concatenate([[np.uint64(0)], np.cumsum(np.concatenate([outward[:0:-1], outward]), dtype=np.uint64)])
    edges.setflags(write=False)
    return DiscreteNormal(sigma, grid, edges)


def _phi_minus_half(position: Fraction, sigma: float, grid: int) -> tuple[int, int]:
    """Bounds from below and above on (Phi(z) - 1/2) * ONE at z = position / (grid sigma) > 0.

    Phi(z) - 1/2 = S(z) / (sqrt(2 pi) exp(z**2 / 2)) with S(z) = z + z**3/3 + z**5/(3*5) + ..., whose terms are positive,
    as are those of exp's series: cut off and rounded down they are bounds from below, and a little added from above.
    """
    z = position / (grid * Fraction(sigma))
    first, square = (value.numerator * ONE // value.denominator for value in (z, z * z))
    root = isqrt(2 * PI[0] * ONE * ONE // PI[1])
    odd_low, odd_high = _series(first, square, 2, up=0), _series(first + 1, square + 1, 2, up=1)
    exp_low, exp_high = _series(ONE, square >> 1, 1, up=0), _series(ONE, (square >> 1) + 1, 1, up=1)
    low = odd_low * ONE * ONE // ((root + 2) * exp_high)
    high = odd_high * ONE * ONE // (root * exp_low) + 1
    return low, high


def _series(first: int, ratio: int, stride: int, *, up: int) -> int:
    """first + first ratio / d_1 + first ratio**2 / (d_1 d_2) + ..., with d_k = k at stride 1 and 2 k + 1 at stride 2;
    each term rounded down, and the rest left out, or at up = 1 each rounded up and the rest added."""
    total, term, k = 0, first, 0
    while term > 1:
        total += term
        k += 1
        divisor = (stride * k + stride - 1) << FRACTION
        term = term * ratio // divisor + up
    assert 2 * ratio <= divisor, "the terms left out halve, so that all of them together are at most twice the first"
    return total + 2 * up
