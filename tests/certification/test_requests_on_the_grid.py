"""Images that come as floats: what lies on the grid keeps its radius, what is rounded loses what rounding costs."""

import math

import numpy as np
import pytest
import torch

from components.certification.classifier import on_grid

SHAPE = (4, 1, 5, 5)


def eight_bit():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8))


however = pytest.mark.parametrize(
    "as_float",
    [
        lambda pixels, most: pixels.float() / most,
        lambda pixels, most: pixels.float() * (1 / most),
        lambda pixels, most: (pixels.double() / most).float(),
        lambda pixels, most: torch.from_numpy(pixels.numpy() * np.float32(1 / most)),
        lambda pixels, most: torch.from_numpy(np.array(np.round(pixels.numpy() / most, 8), dtype=np.float32)),
    ],
    ids=["divided", "multiplied", "from float64", "by numpy", "eight decimals of JSON"],
)


@however
def test_eight_bit_images_lie_on_the_grid_however_they_became_floats(as_float):
    for grid in (255, 4080):
        steps, losses = on_grid(as_float(eight_bit(), 255), grid)
        assert torch.equal(steps, eight_bit().int() * (grid // 255))
        assert steps.dtype == torch.int32
        assert losses == [0.0] * 4


@however
def test_every_16_bit_value_lies_on_the_grid_however_it_became_a_float(as_float):
    pixels = torch.arange(65536, dtype=torch.int32).view(1, 1, 256, 256)
    steps, losses = on_grid(as_float(pixels, 65535), 65535)
    assert torch.equal(steps, pixels)
    assert losses == [0.0]


def test_the_digits_pixels_lie_on_their_grid():
    pixels = torch.arange(17).view(1, 1, 1, 17)
    steps, losses = on_grid(pixels.float() / 16, 256)
    assert torch.equal(steps, pixels.int() * 16)
    assert losses == [0.0]


def test_an_image_off_the_grid_loses_the_distance_to_it_and_the_most_that_another_is_rounded_by():
    """Whatever an image within R - loss of x is rounded to lies within R of what x is rounded to."""
    rng, grid, radius = np.random.default_rng(0), 255, 0.5
    images = torch.from_numpy(rng.uniform(0, 1, SHAPE).astype(np.float32))
    steps, losses = on_grid(images, grid)
    for image, rounded, loss in zip(images.double(), steps.double() / grid, losses, strict=True):
        assert loss >= float((image - rounded).norm()) + math.sqrt(25) / (2 * grid)
        assert loss <= 2 * math.sqrt(25) / (2 * grid) * (1 + 1e-6)
        for direction in (rounded - image, torch.from_numpy(rng.normal(size=SHAPE[1:]))):
            other = image - direction / direction.norm() * (radius - loss)
            assert float(((other * grid).round() / grid - rounded).norm()) <= radius


def test_one_value_off_the_grid_is_enough():
    images = eight_bit().float() / 255
    images[2, 0, 3, 3] = (100.25) / 255
    _, losses = on_grid(images, 255)
    assert [loss > 0 for loss in losses] == [False, False, True, False]


def test_half_the_radius_would_be_wrong_for_a_rounded_image():
    """Two images as near as floats can be may be rounded to different ones."""
    image = torch.full((1, 1, 1, 1), 100.5 / 255)
    above, below = (on_grid(torch.nextafter(image, torch.tensor(to)), 255)[0] for to in (1.0, 0.0))
    assert int(above) - int(below) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -1e-7, 1.0001, 255.0])
def test_values_that_are_not_in_the_unit_interval_are_refused(bad):
    images = eight_bit().float() / 255
    images[3, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"image 3 has values that are not finite or outside \[0, 1\]: scale it"):
        on_grid(images, 255)
