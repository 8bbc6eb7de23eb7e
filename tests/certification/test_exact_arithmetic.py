"""Certificates hold for the program that runs: attacks that float noise fails, and exact arithmetic beside the draw."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from benchmarks import float_noise
from components.certification.bounds import certified_radius, round_down, upper_bound
from components.certification.classifier import on_grid
from components.certification.cohen import certifying
from components.certification.noise.discrete_normal import discrete_normal
from components.certification.noise.reference import on_unit_scale
from components.certification.sampling import Sampler, answered
from tests.support.half_spaces import GRID
from tests.support.procedures import certify_image
from tests.support.reads_bits import ByPredicate, lowest_bit_network

CONSTANTS = {"n0": 100, "n": 5000, "failure_prob": 0.001}
ATTACKS = [(0.25, 3), (0.5, 5), (1.0, 11)]
"""Sigma, and how many pixels."""


def by_float_noise(network, image, sigma, *, bound="two_class"):
    """The certificate that the procedure gives when it is sent the counts of float noise."""
    position = 0

    @torch.inference_mode()
    def count(num):
        nonlocal position
        counts = np.zeros(2, dtype=np.int64)
        for start in range(position, position + num, 1000):
            stop = min(start + 1000, position + num)
            copies = float_noise.noisy_copies(image, sigma, seed=0, index=0, start=start, stop=stop)
            counts += np.bincount(network(copies).argmax(1).numpy(), minlength=2)
        position += num
        return counts

    return answered(certifying(sigma, **CONSTANTS, bound=bound), count)


def by_sampler(network, steps, sigma, grid=GRID):
    sampler = Sampler(network, sigma, grid=grid, image_shape=tuple(steps.shape), num_classes=2)
    return certify_image(sampler, steps, seed=0, index=0, **CONSTANTS, bound="two_class")


def contradict(first, second, distance):
    """Whether two certificates cannot both be true: of different classes, and one reaches the other's image."""
    answers = {first.predict, second.predict}
    return len(answers - {-1}) == 2 and distance < max(first.radius, second.radius)


# --- granularity ---------------------------------------------------------------------------------------------------


def on_fine_lattice(values):
    """Whether 2**26 v is an integer."""
    return torch.frac(values.double() * 2**26) == 0


@pytest.mark.parametrize(("sigma", "pixels"), ATTACKS)
@pytest.mark.parametrize("bound", ["one_class", "two_class"])
def test_float_noise_certifies_what_is_not_so(sigma, pixels, bound):
    """Noise of float32 is coarser beside larger pixels, by which the network knows x."""
    network = ByPredicate(on_fine_lattice)
    image, other = torch.full((1, 1, pixels), 0.25), torch.zeros(1, 1, pixels)
    distance = float((image - other).norm())
    here, there = (by_float_noise(network, x, sigma, bound=bound) for x in (image, other))
    assert here.predict == 1
    claimed = ndtr((here.radius - distance) / sigma)
    assert claimed > 0.5, "class 1 has at least so much at the other image, it says (all of the theorem)"
    assert upper_bound(there.counts[1], there.n, 0.001) < claimed - 0.3, "and it has far less"


PREDICATES = {
    "lattice": on_fine_lattice,
    "even mantissa": lambda v: v.contiguous().view(torch.int32) % 2 == 0,
    "three last bits": lambda v: v.contiguous().view(torch.int32) % 8 < 6,
    "even step": lambda v: torch.round(v.double() * GRID) % 2 == 0,
    "small": lambda v: v.abs() < 0.125,
    "above": lambda v: v > 0.0,
}


@pytest.mark.parametrize("predicate", PREDICATES.values(), ids=PREDICATES)
@pytest.mark.parametrize(("sigma", "pixels"), ATTACKS)
@pytest.mark.parametrize("grid", [255, 256])
def test_certificates_of_grid_noise_do_not_contradict_each_other(predicate, sigma, pixels, grid):
    network = ByPredicate(predicate)
    images = [torch.full((1, 1, pixels), k, dtype=torch.int32) for k in (0, 1, 64, 65, 128)]
    certificates = [by_sampler(network, image, sigma, grid) for image in images]
    for (x, first), (y, second) in itertools.combinations(zip(images, certificates, strict=True), 2):
        assert not contradict(first, second, float((x - y).double().norm()) / grid)


@pytest.mark.parametrize("predicate", PREDICATES.values(), ids=PREDICATES)
@pytest.mark.parametrize(("sigma", "pixels"), [(0.05, 1), *ATTACKS])
@pytest.mark.parametrize("grid", [255, 256])
def test_the_smoothed_probability_obeys_the_theorem_whatever_the_network_reads(predicate, sigma, pixels, grid):
    """Summed over all that can be drawn: Phi^-1(p) changes by at most the distance / sigma."""
    normal = discrete_normal(sigma, grid)
    shares = np.diff(normal.edges) / 2.0**64
    noise = np.arange(-normal.reach, normal.reach + 1)
    images = [0, 1, 2, 63, 64, 128, 200]
    seen = [torch.from_numpy(on_unit_scale(k + noise, grid)) for k in images]
    p = np.array([float(shares @ predicate(v).double().numpy()) for v in seen]) ** pixels
    quantiles = ndtri(np.clip(p, 1e-12, 1 - 1e-12))
    for i, j in itertools.combinations(range(len(images)), 2):
        distance = abs(images[i] - images[j]) / grid * math.sqrt(pixels)
        assert abs(quantiles[i] - quantiles[j]) <= distance / sigma + 1e-6


# --- the lowest bit, by an ordinary network --------------------------------------------------------------------------


SHAPE = (1, 28, 28)
EVEN, ODD = 0.5 - 2.0**-24, 0.5 - 2.0**-25
LEAST = 50


@pytest.mark.medium
def test_convolutions_and_relu_certify_two_classes_at_one_place_under_float_noise():
    network = lowest_bit_network(LEAST)
    even, odd = torch.full(SHAPE, EVEN), torch.full(SHAPE, ODD)
    distance = float((even.double() - odd.double()).norm())
    here, there = (by_float_noise(network, image, 0.5) for image in (even, odd))
    assert distance < 1e-6
    assert (here.predict, there.predict) == (0, 1)
    assert min(here.radius, there.radius) > 1.4
    assert contradict(here, there, distance)


def test_images_off_the_grid_do_not_reach_the_sampler():
    sampler = Sampler(lowest_bit_network(LEAST), 0.5, grid=GRID, image_shape=SHAPE, num_classes=2)
    for value in (EVEN, ODD):
        with pytest.raises(ValueError, match=r"image 0 is torch\.float32: int32, in steps of the grid, is needed"):
            sampler.stream(torch.full(SHAPE, value), seed=0, index=0)
    steps, losses = on_grid(torch.stack([torch.full(SHAPE, EVEN), torch.full(SHAPE, ODD)]), GRID)
    assert torch.equal(steps[0], steps[1]), "one image, and one certificate"
    assert losses == [0.0, 0.0]


@pytest.mark.parametrize("grid", [255, *(pytest.param(grid, marks=pytest.mark.medium) for grid in (256, 65535))])
def test_the_same_network_gets_honest_certificates_on_the_grid(grid):
    network = lowest_bit_network(LEAST)
    images = [torch.full(SHAPE, k, dtype=torch.int32) for k in (grid // 2, grid // 2 + 1)]
    first, second = (by_sampler(network, image, 0.5, grid) for image in images)
    assert not contradict(first, second, 28 / grid)


# --- linear classifiers, in exact arithmetic ------------------------------------------------------------------------


COARSE = 16
LINEAR = [((1, 0), 0), ((1, 1), 3), ((3, -2), 5), ((-7, 4), -40), ((5, 12), 100), ((1, 100), 700)]
"""Class 1 where w.x > b, of two values in steps of the grid: integers."""


def exact_share(weights, b, image, normal):
    """The probability of class 1 under the noise, lost samples being of class 0: a rational number."""
    widths = [int(width) for width in np.diff(normal.edges)]
    noise = range(-normal.reach, normal.reach + 1)
    (w, v), (x, y) = weights, image
    if v == 0:
        return Fraction(sum(width for i, width in zip(noise, widths, strict=True) if w * (x + i) > b), 2**64)
    below = [0, *itertools.accumulate(widths)]
    hits = 0
    for i, width in zip(noise, widths, strict=True):
        border = Fraction(b - w * (x + i), v) - y  # the second value's noise must be beyond, on the side of v's sign
        if v > 0:
            hits += width * (below[-1] - below[min(max(math.floor(border) + 1 + normal.reach, 0), len(widths))])
        else:
            hits += width * below[min(max(math.ceil(border) + normal.reach, 0), len(widths))]
    return Fraction(hits, 2**128)


def squared_distance(weights, b, image):
    """To the nearest image of steps, in [0, 1] or not, that the classifier gives class 0, squared."""
    (w, v), (x, y) = weights, image
    span = range(-80, 81)
    return min(i * i + j * j for i, j in itertools.product(span, span) if w * (x + i) + v * (y + j) <= b)


@pytest.mark.parametrize(("weights", "b"), LINEAR)
@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5])
def test_no_radius_exceeds_the_true_distance(weights, b, sigma):
    normal = discrete_normal(sigma, COARSE)
    certified = 0
    for image in itertools.product((0, 3, 4, 9, 16), (0, 5, 10, 16)):
        p = exact_share(weights, b, image, normal)
        if p <= Fraction(1, 2) + Fraction(1, 10**6) or p > 1 - Fraction(1, 10**8):
            continue
        radius, distance = certified_radius(round_down(float(p)), sigma), squared_distance(weights, b, image)
        assert Fraction(radius) ** 2 * COARSE**2 <= distance
        assert (radius * COARSE + 1.5) ** 2 > distance, "and it is not far below it"
        certified += 1
    assert certified or sigma == 0.1


def test_a_radius_a_step_larger_would_be_noticed():
    sigma, image = 0.5, (9, 10)
    p = exact_share((1, 1), 3, image, discrete_normal(sigma, COARSE))
    radius = Fraction(certified_radius(round_down(float(p)), sigma))
    assert (radius + Fraction(1, COARSE)) ** 2 * COARSE**2 > squared_distance((1, 1), 3, image)


def neighbours(value, ulps):
    """float32 numbers around a value."""
    found = np.float32(value)
    for _ in range(abs(ulps)):
        found = np.nextafter(found, np.float32(ulps * np.inf))
    return float(np.clip(found, 0, 1))


@pytest.mark.parametrize("grid", [16, 255, 256, 4080, 65535])
def test_neighbouring_floats_are_one_image_of_the_grid(grid):
    for k in (0, 1, grid // 3, grid // 2, grid - 1, grid):
        around = [neighbours(k / grid, ulps) for ulps in (-1, 0, 1)] + [float(np.float32(k) * np.float32(1 / grid))]
        steps, losses = on_grid(torch.tensor(around, dtype=torch.float32).clamp(0, 1).view(-1, 1, 1, 1), grid)
        assert steps.flatten().tolist() == [k] * 4
        assert losses == [0.0] * 4


@pytest.mark.parametrize("offset", [0.0, 2.0**-20, 0.01, 0.03])
@pytest.mark.parametrize(("weights", "b"), [((1, 0), 0), ((1, 1), 3), ((3, -2), 5)])
def test_an_image_off_the_grid_loses_enough_of_its_radius(weights, b, offset):
    """Whatever lies within what is left of it, in the worst direction, is rounded to an image of the same class."""
    sigma, d = 0.5, 2
    image = torch.tensor([9.0, 4.0]) / COARSE + offset
    (steps,), (loss,) = on_grid(image.view(1, 1, 1, d), COARSE)
    assert (loss > 0) == (offset > 0)
    p = exact_share(weights, b, tuple(steps.flatten().tolist()), discrete_normal(sigma, COARSE))
    left = max(0.0, certified_radius(round_down(float(p)), sigma) - loss)
    w = np.array(weights, dtype=float)
    towards = -w / np.linalg.norm(w)
    for turn in np.linspace(-0.3, 0.3, 25):
        turned = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ towards
        reached = image.numpy().astype(np.float64) + left * (1 - 1e-9) * turned
        x, y = np.rint(reached * COARSE) if loss else np.rint(image.numpy() * COARSE) + left * COARSE * turned
        assert weights[0] * x + weights[1] * y > b - 1e-9
