"""Certification on a GPU: the reference's noise, and the counts of a CPU, from any thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from tests.support.half_spaces import GRID, HalfSpaces, random_images, sampler_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 31)])
def test_noise_is_that_of_the_cpu_bit_for_bit(shape):
    image, key = random_images(*shape), {"seed": 2**62 + 1, "index": 2**31, "start": 2**32 - 9, "stop": 2**32 + 9}
    normal = discrete_normal(0.25, GRID)
    both = noisy_copies(image.cuda(), normal, **key), noisy_copies(image, normal, **key)
    for found, expected in zip(*both, strict=True):
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("block", [None, 100])
def test_counts_are_those_of_the_cpu_bit_for_bit_from_any_thread(block):
    """Of a network that does not round: the sums of a few steps of the grid are exact."""
    image, weights = random_images(1, 4, 4), [1.0, -2.0, 3.0, 0.5] * 4
    on_cpu = sampler_of(HalfSpaces(weights, -4.0), image).stream(image, seed=1, index=2).count(12_000)
    on_gpu = sampler_of(HalfSpaces(weights, -4.0).cuda(), image, block=block).stream(image, seed=1, index=2)
    with ThreadPoolExecutor(1) as pool:
        assert np.array_equal(pool.submit(on_gpu.count, 12_000).result(), on_cpu)
    assert (on_cpu > 0).all()
