"""The normal distribution rounded to a grid, in integers: why a certificate holds for the program that runs.

Cohen's theorem is about real numbers and a true normal; floating point has neither, and an image can show through in
the last bits of image + noise. So images lie on the grid of k / grid, and the base classifier of the theorem is
H(z) = F(q(z)): q rounds each value to the grid, F is the network with all of its floating point. H is a function on
real vectors, so the theorem holds for it at the full radius. Since q(x + noise) = x + q(noise) for x on the grid, it
suffices to draw the integer i = grid * q(noise), of probability

    P(i) = Phi((i + 1/2) / (grid sigma)) - Phi((i - 1/2) / (grid sigma)),

to add it to the integer image, and to convert the sum once (Voracek and Hein 2023). Nothing else about x reaches F.

Any grid will do whose sums float32 holds: that of 16-bit images, 65535, up to a sigma of 29. A table has some 16 bins
per step of grid * sigma: there, 8 MiB and 3 seconds per unit of sigma.

Drawn is a uniform integer U below 2**64, and the bin that it falls into is i: bin i has floor(P(i) 2**64) of the 2**64
integers, never more than its true share. What all bins leave over, some 1e-15 of a value, is "lost": such a sample
counts for nobody where hits are bounded from below, and for the rival where they are bounded from above. That is sound:
a sample of the true distribution may be lost with the probability that its bin was cut short by, and then counts as if
it had gone wrong.
"""

import functools
import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

WORD = 64
"""Bits of the uniform integer."""
FRACTION = 256
"""Binary digits behind the point of all that is computed here: errors only shorten bins."""
ONE = 1 << FRACTION
PI = 3141592653589793238462643383279502884197169399375105820974944592307816406286208999, 10**81
"""Numerator and denominator; above pi, by less than 1 / denominator."""
FARTHEST = 10
"""Standard deviations beyond which no bin has one of the 2**64 integers."""
LARGEST_SUM = 1 << 24
"""Integers up to here are exact in float32."""
LARGEST_RESOLUTION = 16
"""Of a guide: its 8 bytes a cell then take 32 MiB, of which few are ever read. Each bin of 16-bit images has a cell of
its own up to a sigma of 1; beyond it, more and more draws are searched for, which takes ten times as long."""


@dataclass(frozen=True, eq=False)
class DiscreteNormal:
    """The distribution of grid * q(noise) at one sigma.

    Attributes:
        edges: uint64 (2 reach + 2,), increasing from 0, the last one with an upper word of only ones: U gives j - reach
            where edges[j] <= U < edges[j + 1], and is lost from the last edge on.
        tops, lows: the upper and lower words of edges[1:].
        resolution: of the guide's cells, see `cells_of`.
        guide: uint64 (cells,): in the lower half, how many of the tops lie below the cell, with the last bit set where
            several lie in it; in the upper half, the first top that does not lie below it.
    """

    sigma: float
    grid: int
    edges: np.ndarray

    def __post_init__(self) -> None:
        edges = self.edges
        assert edges.dtype == np.uint64, "of 64-bit integers"
        assert len(edges) % 2 == 0, "of an odd number of bins: one for 0, and as many on each side"
        if edges[0] != 0 or (edges[1:] < edges[:-1]).any() or edges[-1] >> np.uint64(32) != 0xFFFFFFFF:
            raise ValueError("edges must increase from 0 to an upper word of only ones: more than that is never lost")

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
        return (self.edges[1:] >> np.uint64(32)).astype(np.uint32)

    @functools.cached_property
    def lows(self) -> np.ndarray:
        return (self.edges[1:] & np.uint64(0xFFFFFFFF)).astype(np.uint32)

    @functools.cached_property
    def resolution(self) -> int:
        """The smallest at which no cell has several different tops, where there is one: hardly a draw then meets a cell
        with several, as tops are equal only at the ends."""
        tops = np.unique(self.tops)
        enough = (len(tops) // 64).bit_length() - 1  # cells for all of them, or nearly
        fine = (r for r in range(max(0, enough), LARGEST_RESOLUTION) if len(np.unique(cells_of(tops, r))) == len(tops))
        return next(fine, LARGEST_RESOLUTION)

    @functools.cached_property
    def guide(self) -> np.ndarray:
        held = np.bincount(cells_of(self.tops, self.resolution), minlength=64 << self.resolution)
        below = upwards(np.cumsum(upwards(held))) - held
        first = self.tops[np.minimum(below, len(self.tops) - 1)]
        many = (held > 1).astype(np.uint64) << np.uint64(31)
        return below.astype(np.uint64) | many | first.astype(np.uint64) << np.uint64(32)


def cells_of(words: np.ndarray, resolution: int) -> np.ndarray:
    """The cell of the guide that each upper word of U lies in: fine in both tails, where bins are narrow.

    The distance of the word to the nearer end of its range, plus one, is taken in float32; the cell is its exponent and
    the first `resolution` digits of its mantissa. Cells below the middle come first, then those above, from the end.
    """
    upper = words >> np.uint32(31)
    distance = np.where(upper, ~words, words).astype(np.float32) + np.float32(1)
    mantissa = 23 - resolution
    cell = (distance.view(np.uint32) >> np.uint32(mantissa)) - np.uint32(127 << resolution)
    return cell + (upper << np.uint32(5 + resolution))


def upwards(by_cell: np.ndarray) -> np.ndarray:
    """What is given by cell, in the order of the words instead, and the other way round."""
    below, above = np.split(by_cell, 2)
    return np.concatenate([below, above[::-1]])


@functools.cache
def discrete_normal(sigma: float, grid: int) -> DiscreteNormal:
    """The distribution for N(0, sigma**2) on the grid of k / grid; of exactly this float64 sigma.

    With h = 1 / (grid sigma), t = exp(-h**2 / 8), x = (i h)**2 and y = (i h**2 / 2)**2,

        P(i) = 1 / sqrt(2 pi) * integral from (i - 1/2) h to (i + 1/2) h of exp(-s**2 / 2)
             = 2 / sqrt(2 pi) * exp(-x / 2) * integral from 0 to h / 2 of cosh(i h s) exp(-s**2 / 2)
             = 2 / sqrt(2 pi) * exp(-x / 2) * t * sum over j of c_j y**j,

    c_j as in `_coefficients`. There are positive factors and positive terms alone, so that rounding each one down and
    leaving terms out gives a bound from below. So does exp(-x / 2) from one i to the next: it is multiplied by
    t**(4 (2 i + 1)), and that factor by t**8.

    Raises:
        ValueError: sigma is so large that float32 does not hold the sums, or smaller than a sixteenth of a step.
    """
    h = 1 / (grid * Fraction(sigma))
    if h > 16:
        raise ValueError(f"sigma is {sigma:g}: too small for images on a grid of {grid} steps")
    t = ONE * ONE // _exp_above(h * h / 8)
    coefficients, y_of_1 = _coefficients(h), _floor(h**4 / 4)
    front = 2 * ONE * ONE // (math.isqrt(2 * PI[0] * ONE * ONE // PI[1] + 1) + 1) * t >> FRACTION
    ratio = _power(t, 4)
    ratio_of_ratios = _power(ratio, 2)
    outward: list[int] = []  # widths of the bins 0, 1, 2, ...
    while width := front * _horner(coefficients, len(outward) ** 2 * y_of_1) >> 2 * FRACTION - WORD:
        outward.append(width)
        if len(outward) + grid > LARGEST_SUM:
            raise ValueError(f"sigma is {sigma:g}: too large for images on a grid of {grid} steps")
        front, ratio = front * ratio >> FRACTION, ratio * ratio_of_ratios >> FRACTION
    widths = np.array(outward[:0:-1] + outward, dtype=np.uint64)
    edges = np.concatenate([[np.uint64(0)], np.cumsum(widths, dtype=np.uint64)])
    edges.setflags(write=False)
    return DiscreteNormal(sigma, grid, edges)


def _coefficients(h: Fraction) -> list[int]:
    """c_0, c_1, ..., times ONE and rounded down, as many as matter.

    By parts, integral from 0 to a of s**(2 j) exp(-s**2 / 2) = t a**(2 j) M_j at a = h / 2 and t = exp(-a**2 / 2),
    where M_j = (a + a**2 M_(j+1)) / (2 j + 1); so cosh's series gives c_j = M_j / (2 j)!.
    """
    a = h / 2
    a_squared, largest_y = a * a, ((FARTHEST + h) * a) ** 2
    size, bound = 1, Fraction(1)
    while bound > Fraction(1, ONE):
        bound *= largest_y / (2 * size * (2 * size - 1))
        size += 1
    moment, coefficients = Fraction(0), []
    for j in reversed(range(size)):
        moment = Fraction(_floor((a + a_squared * moment) / (2 * j + 1)), ONE)
        coefficients.append(_floor(moment / math.factorial(2 * j)))
    return coefficients[::-1]


def _horner(coefficients: list[int], y: int) -> int:
    total = 0
    for coefficient in reversed(coefficients):
        total = coefficient + (total * y >> FRACTION)
    return total


def _exp_above(x: Fraction) -> int:
    """A bound from above on exp(x) * ONE, x >= 0: the series, each term rounded up. The last one counts twice, for all
    that follow: they halve from there on."""
    total = term = ONE
    k = 0
    while term > 1 or 2 * x > k:
        k += 1
        term = math.ceil(term * x / k)
        total += term
    return total + term


def _floor(x: Fraction) -> int:
    return x.numerator * ONE // x.denominator


def _power(x: int, exponent: int) -> int:
    return x**exponent >> FRACTION * (exponent - 1)
