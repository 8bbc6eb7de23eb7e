"""The GPU noise's integers alone, for the test that holds them against the reference."""

import triton
import triton.language as tl

from components.certification.noise.cuda import words


@triton.jit(do_not_specialize=["seed", "index", "start"])
def words_kernel(out, seed, index, start, quads, QUADS: tl.constexpr):
    """(samples, 4, quads)."""
    (a, b, c, d), quad = words(seed, index, start, quads, QUADS)
    row = out + tl.program_id(0).to(tl.int64) * 4 * quads + quad
    inside = quad < quads
    tl.store(row, a.to(tl.int64), inside)
    tl.store(row + quads, b.to(tl.int64), inside)
    tl.store(row + 2 * quads, c.to(tl.int64), inside)
    tl.store(row + 3 * quads, d.to(tl.int64), inside)
