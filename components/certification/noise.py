"""Keyed Gaussian noise: (seed, image, sample) determine the noise, whatever the batch, the order or the restart."""

import numpy as np

CHUNK = 50
"""Samples that share one counter range of the generator. Another value is another noise everywhere."""


def gaussian_noise(seed: int, image: int, start: int, stop: int, shape: tuple[int, ...]) -> np.ndarray:
    """Samples `start` to `stop` of an image's noise: float32 N(0, 1) of shape (stop - start, *shape).

    Philox, keyed by (seed, image), with a counter range of 2**128 per chunk of samples: streams of different images
    and chunks never meet.

    Args:
        seed, image: each in [0, 2**64).
    """
    key = np.array([seed, image], dtype=np.uint64)
    first = start // CHUNK
    chunks = []
    for chunk in range(first, -(-stop // CHUNK)):
        counter = np.array([0, 0, chunk, 0], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        chunks.append(generator.standard_normal((CHUNK, *shape), dtype=np.float32))
    return np.concatenate(chunks)[start - first * CHUNK : stop - first * CHUNK]
