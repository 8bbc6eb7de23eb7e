"""The GPU noise's 64 bits alone, for the test that holds them against the reference."""

import triton
import triton.language as tl

from components.certification.noise.cuda import uniform


@triton.jit(do_not_specialize=["seed", "index", "start"])
def words_kernel(out, seed, index, start, quads, QUADS: tl.constexpr):
    """int64 (samples, 4, quads), of which the first bit is turned."""
    a, b, c, d, quad = uniform(seed, index, start, quads, QUADS)
    row = out + tl.program_id(0).to(tl.int64) * 4 * quads + quad
    inside = quad < quads
    tl.store(row, a, inside)
    tl.store(row + quads, b, inside)
    tl.store(row + 2 * quads, c, inside)
    tl.store(row + 3 * quads, d, inside)
