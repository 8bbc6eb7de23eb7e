"""The float noise that exact arithmetic is compared with: Box-Muller's, compiled bit for bit as in numpy."""

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import float_noise
from benchmarks.float_noise.reference import gaussian_noise, minus_two_log, normal_pair
from tests.support.noise_tables import KEYS, SHAPES


def test_the_logarithm_is_right_to_float32_over_all_words():
    words = np.unique(np.append(np.linspace(0, 2**32 - 1, 200_001), [1, 2, 3, 2**31 - 1, 2**31, 2**32 - 2]))
    words = words.astype(np.uint64).astype(np.uint32)
    u = ((words.astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)).astype(np.float64)
    exact = -2 * np.log(u)
    assert np.abs(minus_two_log(words) - exact).max() <= 2e-6 * max(1, exact.max()) / 8
    assert np.abs(minus_two_log(words) - exact)[exact < 1].max() < 2e-7
    assert (minus_two_log(words) >= 0).all(), "whose square root is taken"
    assert np.sqrt(minus_two_log(np.zeros(1, dtype=np.uint32)))[0] < 6.77


@pytest.mark.medium
def test_a_normal_is_box_muller_s_of_its_two_words():
    rng = np.random.default_rng(0)
    radius, angle = rng.integers(0, 2**32, (2, 100_000), dtype=np.uint32)
    first, second = normal_pair(radius, angle)
    u = ((radius.astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)).astype(np.float64)
    length = np.sqrt(-2 * np.log(u))
    within = np.pi / 2 * (angle << np.uint32(2)).view(np.int32) / 2**32
    turned = within + np.pi / 2 * (angle >> np.uint32(30))
    assert first == pytest.approx(length * np.cos(turned), abs=4e-6)
    assert second == pytest.approx(length * np.sin(turned), abs=4e-6)


def test_it_is_standard_normal():
    values = gaussian_noise(seed=1, index=2, start=0, stop=5000, values=18).astype(np.float64).ravel()
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / len(values))


def test_the_library_is_compiled_here():
    """Else the next tests hold the reference against itself."""
    if float_noise.load() is None:
        pytest.skip("no C++ compiler here: the compiled noise stays untested")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("seed", "index", "start"), KEYS)
@pytest.mark.parametrize("sigma", [0.12, 1.0])
def test_noisy_copies_are_the_reference_s_bit_for_bit(shape, seed, index, start, sigma):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    copies = float_noise.noisy_copies(image, sigma, seed=seed, index=index, start=start, stop=start + 5)
    expected = gaussian_noise(seed, index, start, start + 5, image.numel())
    assert copies.dtype == torch.float32
    assert np.array_equal(copies.view(5, -1).numpy(), image.view(1, -1).numpy() + np.float32(sigma) * expected)


def test_without_a_compiler_numpy_gives_the_same(monkeypatch):
    image = torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0))
    key = {"seed": 1, "index": 2, "start": 3, "stop": 8}
    compiled = float_noise.noisy_copies(image, 0.5, **key)
    monkeypatch.setattr(float_noise, "load", lambda: None)
    assert torch.equal(float_noise.noisy_copies(image, 0.5, **key), compiled)
