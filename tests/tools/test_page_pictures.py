"""Images as the pages carry them."""

import numpy as np
import pytest

from components.tools.page.pictures import data_url, noisy, thumbnail

RNG = np.random.default_rng(0)


def test_noise_has_its_sigma_and_is_the_same_each_time():
    first, second = (noisy(np.zeros((3, 64, 64)), 0.5, 7, 2) for _ in range(2))
    assert np.std(first[0]) == pytest.approx(0.5, rel=0.05)
    assert (first[0] == second[0]).all()
    assert (first[0] != first[1]).any()


def test_large_images_are_shrunk_and_small_ones_kept():
    small, large = (
        data_url(np.zeros((1, 28, 28))),
        data_url(RNG.random((3, 224, 224))),
    )
    assert small.startswith("data:image/png;base64,")
    assert large.startswith("data:image/webp;base64,")
    assert len(large) < 20_000


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 64, 64), (3, 64, 64), (3, 224, 224), (4, 90, 40), (3, 6400, 64)])
def test_a_thumbnail_is_as_small_as_asked_for_whatever_the_image(shape):
    pixels = RNG.random(shape)
    sizes = [len(thumbnail(pixels, most)) for most in (20_000, 4000, 1500)]
    assert all(size <= most for size, most in zip(sizes, (20_000, 4000, 1500), strict=True)), sizes


def test_a_small_image_with_room_keeps_every_pixel():
    assert thumbnail(np.zeros((1, 28, 28)), 1500) == data_url(np.zeros((1, 28, 28)))
