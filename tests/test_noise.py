"""Keyed noise: standard normal, independent across everything that keys it, indifferent to how it is cut."""

import numpy as np
import pytest
from scipy import stats

from components.certification.noise import CHUNK, gaussian_noise

SHAPE = (1, 4, 4)


@pytest.fixture(scope="module")
def noise():
    return gaussian_noise(seed=1, image=2, start=0, stop=12_000, shape=SHAPE)


def test_noise_is_float32_in_the_shape_asked_for(noise):
    assert noise.dtype == np.float32
    assert noise.shape == (12_000, *SHAPE)


def test_noise_has_the_moments_and_the_distribution_of_a_standard_normal(noise):
    values = noise.astype(np.float64).ravel()
    n = len(values)
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(values)) < 5 * np.sqrt(24 / n)
    assert stats.kstest(values, "norm").pvalue > 1e-6


def test_the_tails_are_there(noise):
    beyond = (np.abs(noise) > 3.5).sum()
    assert stats.binomtest(int(beyond), noise.size, 2 * stats.norm.sf(3.5)).pvalue > 1e-6


def test_pixels_and_samples_are_uncorrelated(noise):
    pixels = noise.reshape(len(noise), -1).astype(np.float64)
    correlation = np.corrcoef(pixels.T) - np.eye(pixels.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(len(pixels))
    for lag in (1, 2, CHUNK - 1, CHUNK, CHUNK + 1):
        product = (pixels[lag:] * pixels[:-lag]).ravel()
        assert abs(product.mean()) < 5 / np.sqrt(len(product))


@pytest.mark.parametrize(
    ("seed", "image"), [(2, 2), (1, 3), (2, 1), (0, 2), (1, 0), (2**63 - 1, 2), (1 + 2**32, 2), (1, 2 + 2**32)]
)
def test_other_seeds_and_images_have_unrelated_noise(noise, seed, image):
    other = gaussian_noise(seed, image, 0, len(noise), SHAPE)
    product = (other * noise).ravel().astype(np.float64)
    assert abs(product.mean()) < 5 / np.sqrt(len(product))


def test_no_sample_is_met_twice(noise):
    assert len(np.unique(noise.reshape(len(noise), -1), axis=0)) == len(noise)


def test_a_sample_does_not_depend_on_the_range_it_is_asked_in(noise):
    rng = np.random.default_rng(0)
    ends = [(0, 1), (CHUNK - 1, CHUNK + 1), (CHUNK, 2 * CHUNK), (7, 7 + 3 * CHUNK)]
    ends += [tuple(sorted(rng.choice(500, 2, replace=False))) for _ in range(50)]
    for start, stop in ends:
        assert np.array_equal(gaussian_noise(1, 2, int(start), int(stop), SHAPE), noise[start:stop])
