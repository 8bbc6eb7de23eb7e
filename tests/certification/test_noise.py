"""Keyed noise: uniform bits that nothing but the key determines, and the steps of the grid that come of them."""

import numpy as np
import pytest
import torch
from scipy import stats

from components.certification.noise import noisy_copies
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.reference import PIECE, integer_noise, on_unit_scale, philox, uniform
from tests.support.noise_tables import LOST, LOST_LOW, LOST_VALUES, edges_at_draws, losing

VALUES = 18
SIGMA, GRID = 0.5, 255
NORMAL = discrete_normal(SIGMA, GRID)


def noise(seed, index, start, stop, values=VALUES):
    return integer_noise(NORMAL, seed, index, start, stop, values)[0]


@pytest.fixture(scope="module")
def normals():
    """In units of sigma; their variance is larger than 1 by that of the rounding to the grid."""
    return noise(1, 2, 0, 12_000) / (GRID * SIGMA)


ROUNDING = 1 / (12 * (GRID * SIGMA) ** 2)


# --- the generator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, words):
    low, high = (int(word, 16) for word in key.split())
    counters = tuple(np.array([int(word, 16)], dtype=np.uint64) for word in counter.split())
    assert [f"{int(word[0]):08x}" for word in philox(counters, low | high << 32)] == words.split()


def test_the_words_of_a_value_are_those_of_its_quad():
    """Value j + k Q has word k of quad j, the upper one by the counter itself, the lower one by that with a bit set."""
    seed, index, sample, values = 2**62 + 5, 2**31 + 7, 2**33 + 11, 11
    found = uniform(seed, index, sample, sample + 1, values)[0]
    for value, bits in enumerate(found.tolist()):
        k, quad = divmod(value, 3)
        counter = (quad, sample & 0xFFFFFFFF, index, sample >> 32)
        upper, lower = (
            philox(tuple(np.array([word], dtype=np.uint64) for word in (*counter[:3], counter[3] | flag)), seed)
            for flag in (0, 2**31)
        )
        assert bits == int(upper[k][0]) << 32 | int(lower[k][0])


def test_all_64_bits_are_even():
    bits = np.unpackbits(uniform(1, 2, 0, 800, VALUES).view(np.uint8).reshape(-1, 8), axis=1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(bits))
    assert np.abs(np.corrcoef(bits.T) - np.eye(64)).max() < 6 / np.sqrt(len(bits))


# --- the distribution --------------------------------------------------------------------------------------------


def test_noise_is_int32_in_the_shape_asked_for():
    drawn, lost = integer_noise(NORMAL, 1, 2, 3, 10, VALUES)
    assert (drawn.dtype, drawn.shape) == (np.int32, (7, VALUES))
    assert (lost.dtype, lost.tolist()) == (bool, [False] * 7)


def spread(values):
    """Values that may be anywhere in their step of the grid, which a test of a continuous distribution takes."""
    return values + (np.random.default_rng(0).random(values.shape) - 0.5) / (GRID * SIGMA)


def test_noise_has_the_moments_and_the_distribution_of_a_standard_normal(normals):
    values = normals.ravel()
    n = len(values)
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.var() - 1 - ROUNDING) < 5 * np.sqrt(2 / n)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(values)) < 5 * np.sqrt(24 / n)
    assert stats.kstest(spread(values), "norm").pvalue > 1e-6


def test_each_value_of_a_sample_is_standard_normal(normals):
    for value in normals.T:
        assert stats.kstest(spread(value), "norm").pvalue > 1e-6
        assert abs(value.var() - 1 - ROUNDING) < 6 * np.sqrt(2 / len(value))


def test_the_tails_are_there(normals):
    border = (int(3.5 * GRID * SIGMA) + 0.5) / (GRID * SIGMA)
    beyond = (np.abs(normals) > border).sum()
    assert stats.binomtest(int(beyond), normals.size, 2 * stats.norm.sf(border)).pvalue > 1e-6


def test_a_sum_of_values_is_normal_too(normals):
    """What a linear classifier sees: a bent joint distribution would show here."""
    weights = np.random.default_rng(0).normal(size=(5, VALUES))
    for row in weights / np.linalg.norm(weights, axis=1, keepdims=True):
        assert stats.kstest(normals @ row, "norm").pvalue > 1e-6


def test_values_and_samples_are_uncorrelated_also_in_their_squares(normals):
    for values in (normals, normals**2 - 1):
        correlation = np.corrcoef(values.T) - np.eye(VALUES)
        assert np.abs(correlation).max() < 6 / np.sqrt(len(values))
        for lag in (1, 2, 3, 250, 4 * PIECE // VALUES):
            product = (values[lag:] * values[:-lag]).ravel()
            assert abs(product.mean()) < 5 * product.std() / np.sqrt(len(product))


@pytest.mark.parametrize(
    ("seed", "index", "start"),
    [
        (2, 2, 0),
        (1, 3, 0),
        (2, 1, 0),
        (0, 2, 0),
        (1, 0, 0),
        (2**63 - 1, 2, 0),
        (1 + 2**32, 2, 0),
        (1, 2**32 - 1, 0),
        (1, 2, 12_000),
        (1, 2, 2**32),
        (1, 2, 2**40),
    ],
)
def test_other_seeds_images_and_samples_have_unrelated_noise(normals, seed, index, start):
    other = noise(seed, index, start, start + len(normals)) / (GRID * SIGMA)
    product = (other * normals).ravel()
    assert abs(product.mean()) < 5 / np.sqrt(len(product))
    rows = np.concatenate([other, normals])
    assert len(np.unique(rows, axis=0)) == len(rows), "no sample is met again"


def test_no_sample_is_met_twice(normals):
    assert len(np.unique(normals, axis=0)) == len(normals)


# --- how it is cut -----------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_the_range_it_is_asked_in(normals):
    rng, step = np.random.default_rng(0), 4 * PIECE // VALUES
    ends = [(0, 1), (step - 1, step + 1), (step, 2 * step), (7, 7 + 3 * step)]
    ends += [tuple(sorted(rng.choice(12_000, 2, replace=False))) for _ in range(30)]
    for start, stop in ends:
        assert np.array_equal(noise(1, 2, int(start), int(stop)) / (GRID * SIGMA), normals[start:stop])


# --- the tables' corners, and what the network sees ----------------------------------------------------------------


def bin_of(word, edges):
    """The number of edges, but for the first, that are not above the word, one by one."""
    return sum(edge <= word for edge in edges[1:])


def test_each_word_falls_between_its_edges_also_where_it_is_one_of_them():
    normal = edges_at_draws((1, 2, 17), 3, 50)
    words, edges = uniform(1, 2, 17, 20, 50), normal.edges.tolist()
    drawn, lost = integer_noise(normal, 1, 2, 17, 20, 50)
    assert np.isin(words, normal.edges).sum() == 40
    for word, integer in zip(words.ravel().tolist(), drawn.ravel().tolist(), strict=True):
        assert integer == bin_of(word, edges) - normal.reach
    assert not lost.any()


@pytest.mark.parametrize(("low", "lost"), [(LOST_LOW - 1, True), (LOST_LOW, True), (LOST_LOW + 1, False)])
def test_a_sample_is_lost_from_the_last_edge_on(low, lost):
    image = torch.zeros(1, 1, LOST_VALUES, dtype=torch.int32)
    for key, expected in ((LOST, lost), (LOST | {"index": 3}, False)):
        assert noisy_copies(image, losing(low), **key)[1].tolist() == [expected]
    four = noisy_copies(image, losing(low), **LOST | {"start": LOST["start"] - 2, "stop": LOST["stop"] + 1})[1]
    assert four.tolist() == [False, False, lost, False]


def test_the_network_sees_a_function_of_the_sum_alone():
    """Wherever x + i = x' + i', the floats have the same bits: image and noise leave no trace but in their sum."""
    image = np.arange(0, 256, 5, dtype=np.int32)
    drawn, _ = integer_noise(NORMAL, 1, 2, 0, 400, len(image))
    copies, _ = noisy_copies(torch.from_numpy(image).view(1, 1, -1), NORMAL, seed=1, index=2, start=0, stop=400)
    bits = {}
    for total, value in zip((image + drawn).ravel().tolist(), copies.numpy().ravel().view(np.int32), strict=True):
        assert bits.setdefault(total, value) == value
    assert len(bits) > 500
    moved = torch.from_numpy(image + 7).view(1, 1, -1)
    elsewhere, _ = noisy_copies(moved, NORMAL, seed=9, index=4, start=5, stop=405)
    drawn, _ = integer_noise(NORMAL, 9, 4, 5, 405, len(image))
    for total, value in zip(
        (image + 7 + drawn).ravel().tolist(), elsewhere.numpy().ravel().view(np.int32), strict=True
    ):
        assert bits.setdefault(total, value) == value


@pytest.mark.parametrize("grid", [16, 255, 256, 4080, 65535])
def test_sums_are_scaled_with_one_rounding_and_a_pixel_is_close_to_what_the_network_was_trained_on(grid):
    sums = np.arange(-10 * grid, 11 * grid)
    seen = on_unit_scale(sums, grid)
    assert seen.dtype == np.float32
    assert np.abs(seen - sums / grid).max() <= 10 * 2.0**-23
    assert (np.diff(seen) > 0).all(), "no two sums are taken for one another"
