"""Keys and shapes of noise, and distributions for what the true ones meet once in a million draws or less."""

import numpy as np

from components.certification.noise.discrete_normal import DiscreteNormal
from components.certification.noise.reference import uniform

SHAPES = [
    (1, 1, 1),
    (1, 1, 2),
    (1, 1, 3),
    (1, 2, 2),
    (1, 1, 5),
    (1, 5, 5),
    (3, 7, 11),
    (1, 28, 28),
    (3, 32, 32),
    (1, 1, 1030),
]
KEYS = [
    (0, 0, 0),
    (1, 2, 17),
    (2**63 - 1, 2**32 - 1, 2**32 - 2),
    (2**62 + 12345, 2**31 + 7, 2**33 + 5),
    (7, 2**31, 2**63),
]
"""Seed, image and first sample: every half of every word counts."""
LAST_TOP = 0xFFFFFFFF << 32
LOST = {"seed": 1, "index": 2, "start": 5148495, "stop": 5148496}
"""A sample of `LOST_VALUES` values, of which number 712 has the upper word 0xFFFFFFFF, and the lower word LOST_LOW."""
LOST_VALUES, LOST_LOW = 1003, 0x33447980


def edges_at_draws(key, samples, values):
    """A distribution whose edges are drawn words, the words before and after them, and others with their upper word.

    Several edges then share an upper word, some draws hit an edge exactly, and the guide has cells with many edges.
    """
    seed, index, start = key
    drawn = uniform(seed, index, start, start + samples, values).ravel()
    chosen = np.random.default_rng(0).choice(np.unique(drawn), min(len(drawn), 40), replace=False)
    one, low = np.uint64(1), np.uint64(0xFFFFFFFF)
    around = [chosen - one, chosen, chosen + one, chosen & ~low, chosen | low]
    crowd = chosen[:4, None] + (np.arange(64, dtype=np.uint64) << np.uint64(32))
    inner = np.unique(np.concatenate([*around, crowd.ravel()]))
    inner = inner[(inner > 0) & (inner < LAST_TOP)]
    inner = inner[len(inner) % 2 :]
    return DiscreteNormal(1.0, 16, np.array([0, *inner, LAST_TOP], dtype=np.uint64))


def losing(low):
    """A distribution of one bin; lost is who draws the upper word 0xFFFFFFFF and at least this lower word."""
    return DiscreteNormal(1.0, 16, np.array([0, LAST_TOP + low], dtype=np.uint64))
