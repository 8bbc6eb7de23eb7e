"""The bins of the noise against 60-digit arithmetic, and the draws against the bins."""

from functools import cache

import mpmath
import numpy as np
import pytest
from scipy import stats

from components.certification.noise import discrete_normal as module
from components.certification.noise import native
from components.certification.noise.discrete_normal import DiscreteNormal, cells_of, discrete_normal, upwards
from components.certification.noise.reference import integer_noise

CASES = [(0.12, 255), (0.25, 255), (0.5, 4080), (1.0, 256), (1.4, 255), (0.1, 16), (0.125, 16)]
CASES += [(0.25, 65535), (1.0, 65535)]  # 16-bit images
LARGEST_APART = [*CASES[:-1], pytest.param(*CASES[-1], marks=pytest.mark.medium)]
ALL = 2**64


def widths(normal):
    return [int(width) for width in np.diff(normal.edges)]


@cache
def true_width(sigma, grid, i):
    """P(i) 2**64, rounded down, from 60 digits and more."""
    with mpmath.workdps(60 + 30):  # differences of numbers that may be close
        scale = grid * mpmath.mpf(sigma) * mpmath.sqrt(2)
        below, above = (mpmath.erfc((abs(i) + half) / scale) / 2 for half in (mpmath.mpf(-0.5), mpmath.mpf(0.5)))
        return int(mpmath.floor(ALL * (below - above)))


def looked_at(normal):
    """Bins in the middle and at the end, and some of those between."""
    rng = np.random.default_rng(0)
    reach = normal.reach
    return sorted({0, 1, 2, reach - 1, reach, *map(int, rng.integers(0, reach + 1, 200))})


def test_the_true_widths_are_right():
    for sigma, grid in CASES:
        everything = sum(true_width(sigma, grid, i) for i in range(-20, 21)) if grid == 16 else ALL
        assert ALL - 41 <= everything <= ALL
    assert true_width(1.0, 1, 0) == 382924922548026207275409221216 * ALL // 10**30, "erf(1 / sqrt(8))"


@pytest.mark.parametrize(("sigma", "grid"), LARGEST_APART)
def test_no_bin_has_more_than_its_true_probability_and_none_lacks_much(sigma, grid):
    normal = discrete_normal(sigma, grid)
    found = widths(normal)
    for i in looked_at(normal):
        true = true_width(sigma, grid, i)
        assert true - 1 <= found[normal.reach + i] <= true
        assert true - 1 <= found[normal.reach - i] <= true


@pytest.mark.parametrize(("sigma", "grid"), LARGEST_APART)
def test_the_bins_and_what_is_lost_are_all_of_the_2_to_the_64_integers(sigma, grid):
    normal = discrete_normal(sigma, grid)
    found, lost = widths(normal), ALL - int(normal.edges[-1])
    assert len(found) == 2 * normal.reach + 1
    assert sum(found) + lost == ALL
    assert 0 < lost <= 2 * len(found)
    assert found == found[::-1], "symmetric"
    assert all(near >= far > 0 for near, far in zip(found[normal.reach :], found[normal.reach + 1 :], strict=False))
    assert true_width(sigma, grid, normal.reach + 1) == 0, "no further bin has an integer of its own"


@pytest.mark.parametrize(("sigma", "grid"), LARGEST_APART)
def test_the_noise_reaches_further_than_float_noise_did(sigma, grid):
    assert discrete_normal(sigma, grid).reach > 6.8 * sigma * grid


@pytest.mark.parametrize("sigma", [1.4, 0.1, 0.12])
def test_sigma_is_taken_as_float64_has_it(sigma):
    """float32 has another one; the bins of both differ, each right for its own."""
    rounded = float(np.float32(sigma))
    exact, of_rounded = discrete_normal(sigma, 255), discrete_normal(rounded, 255)
    assert rounded != sigma
    assert exact.sha256 != of_rounded.sha256
    i = exact.reach // 4
    found = widths(of_rounded)[of_rounded.reach + i]
    assert true_width(rounded, 255, i) - 1 <= found <= true_width(rounded, 255, i)
    assert abs(found - true_width(sigma, 255, i)) > 1e6


def test_a_sigma_that_the_arithmetic_does_not_hold_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="sigma is 1e-06: too small for images on a grid of 255 steps"):
        discrete_normal(1e-6, 255)
    monkeypatch.setattr(module, "LARGEST_SUM", 1 << 10)  # with the true one it takes a minute
    with pytest.raises(ValueError, match=r"sigma is 1e\+06: too large for images on a grid of 255 steps"):
        discrete_normal(1e6, 255)


@pytest.mark.medium
def test_16_bits_leave_room_for_every_sigma_in_use():
    """The noise of eight sigma on top of the largest pixel, in float32's whole numbers."""
    assert (discrete_normal(1.0, 65535).reach + 1) * 28 + 65535 < module.LARGEST_SUM


def test_the_largest_sum_is_exact_in_float32():
    sums = np.arange(module.LARGEST_SUM - 5, module.LARGEST_SUM + 2)
    assert (sums.astype(np.float32).astype(np.int64) == sums).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_exp_above", lambda x, right=module._exp_above: right(x) * 2**71 // (2**71 + 1)),
        ("PI", (3141592653589793238, 10**18)),
        ("_floor", lambda x, right=module._floor: right(x) * (2**56 + 1) // 2**56),
    ],
)
def test_a_constant_on_the_wrong_side_would_be_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(module, name, wrong)
    normal = discrete_normal.__wrapped__(0.5, 255)
    found = widths(normal)
    assert any(found[normal.reach + i] > true_width(0.5, 255, i) for i in range(300))


# --- the table -----------------------------------------------------------------------------------------------------


LAST = 0xFFFFFFFF << 32


@pytest.mark.parametrize(
    "edges",
    [
        [0, 5, 6, LAST - 1],
        [0, 5, 6, ALL // 2],
        [1, 5, 6, LAST],
        [0, 6, 5, LAST],
    ],
)
def test_edges_that_the_draws_do_not_go_by_are_refused(edges):
    with pytest.raises(ValueError, match="edges must increase from 0 to an upper word of only ones"):
        DiscreteNormal(1.0, 255, np.array(edges, dtype=np.uint64))


@pytest.mark.parametrize(("sigma", "grid"), LARGEST_APART)
def test_the_guide_leaves_one_edge_to_compare_with(sigma, grid):
    """At each word of a cell that is looked at: the first and the last ones, those of edges and beside them."""
    normal = discrete_normal(sigma, grid)
    rng = np.random.default_rng(0)
    beside = (normal.tops[:, None].astype(np.int64) + np.array([-1, 0, 1])).ravel().clip(0, 2**32 - 1)
    words = np.concatenate([beside, rng.integers(0, 2**32, 100_000), 2 ** np.arange(32), [0, 2**32 - 1]])
    words = words.astype(np.uint32)
    cell = normal.guide[cells_of(words, normal.resolution)]
    below, top = cell.astype(np.uint32), (cell >> np.uint64(32)).astype(np.uint32)
    many = below >> np.uint32(31) == 1
    right = np.searchsorted(normal.tops, words, side="left")
    assert np.array_equal((below + (top < words))[~many], right[~many])
    assert np.array_equal((top == words)[~many], np.isin(words, normal.tops)[~many])
    assert not many[len(beside) : len(beside) + 100_000].any(), "hardly a draw needs a search"


def test_cells_are_intervals():
    words = np.unique(np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32))
    for resolution in (0, 5, 13, 16):
        cells = cells_of(words, resolution)
        assert cells.max() < 64 << resolution
        place = upwards(np.arange(64 << resolution))[cells]
        assert (np.diff(place.astype(int)) >= 0).all()
    assert np.array_equal(upwards(upwards(np.arange(64))), np.arange(64))


# --- what is drawn ---------------------------------------------------------------------------------------------------


def chi_square(normal, samples, draw):
    """The p-value of the draws' counts; bins that expect fewer than 50 are taken together, on each side."""
    counts = np.zeros(2 * normal.reach + 1, dtype=np.int64)
    for start in range(0, samples, 1000):
        counts += np.bincount(draw(start, min(start + 1000, samples)).ravel(), minlength=len(counts))
    expected = np.array([float(width / ALL) for width in widths(normal)]) * counts.sum()
    inner = np.flatnonzero(expected >= 50)
    first, stop = inner[0], inner[-1] + 1
    together = [np.concatenate([[v[:first].sum()], v[first:stop], [v[stop:].sum()]]) for v in (counts, expected)]
    return stats.chisquare(together[0], together[1] * counts.sum() / together[1].sum()).pvalue


@pytest.mark.parametrize(("sigma", "grid"), [(0.25, 255), (0.1, 16)])
def test_a_million_draws_fall_into_the_bins_as_they_must(sigma, grid):
    normal = discrete_normal(sigma, grid)

    def draw(start, stop, shift=0):
        return integer_noise(normal, 5, 7, start, stop, 1000)[0] + normal.reach + shift

    assert chi_square(normal, 1000, draw) > 1e-6
    assert chi_square(normal, 1000, lambda start, stop: draw(start, stop).clip(1) - 1) < 1e-6, "it tells one step"


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "grid"), [(0.25, 255), (1.0, 256)])
def test_a_hundred_million_draws_fall_into_the_bins_as_they_must(sigma, grid):
    if (library := native.load()) is None:
        pytest.skip("no C++ compiler here: numpy would take minutes")
    normal = discrete_normal(sigma, grid)
    centre = np.full(1000, normal.reach, dtype=np.int32)

    def draw(start, stop):
        copies, _ = native.noisy_copies(library, centre, normal, 5, 7, start, stop)
        return np.rint(copies.astype(np.float64) * grid).astype(np.int64)

    assert chi_square(normal, 100_000, draw) > 1e-6
