"""The training view of CIFAR-10 against a plain loop."""

import numpy as np
import pytest
import torch

from components.data.augment import PADDING, crop_and_flip


def looped(pixels, offsets, flips):
    views = np.zeros_like(pixels)
    for b in range(len(pixels)):
        padded = np.pad(pixels[b], ((0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        row, column = offsets[b]
        view = padded[:, row : row + pixels.shape[2], column : column + pixels.shape[3]]
        views[b] = view[:, :, ::-1] if flips[b] else view
    return views


@pytest.mark.parametrize("shape", [(81, 3, 32, 32), (81, 1, 5, 9)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_it_is_what_a_loop_over_every_offset_gives(shape, kind):
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, shape).astype(kind)
    offsets = np.stack(np.divmod(np.arange(81), 9), axis=-1)
    for flips in (np.zeros(81, bool), np.ones(81, bool), rng.random(81) < 0.5):
        views = crop_and_flip(torch.from_numpy(pixels), torch.from_numpy(offsets), torch.from_numpy(flips))
        assert views.dtype == torch.from_numpy(pixels).dtype
        assert np.array_equal(views.numpy(), looped(pixels, offsets, flips))


def test_the_middle_offset_unflipped_leaves_images_as_they_are():
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    middle, none = torch.full((4, 2), PADDING), torch.zeros(4, dtype=torch.bool)
    assert torch.equal(crop_and_flip(pixels, middle, none), pixels)
    assert torch.equal(crop_and_flip(pixels, middle, ~none), pixels.flip(3))


def test_channels_last_images_give_the_same_views():
    pixels = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    offsets, flips = torch.tensor([[0, 8], [8, 0], [3, 4], [5, 5]]), torch.tensor([True, False, True, False])
    other = pixels.to(memory_format=torch.channels_last)
    assert torch.equal(crop_and_flip(other, offsets, flips), crop_and_flip(pixels, offsets, flips))


def test_pixels_of_16_bits_are_cropped_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 2, 6, 9), dtype=np.uint16)
    offsets, flips = torch.full((5, 2), 1), torch.tensor([True, False] * 2 + [True])
    views = crop_and_flip(torch.from_numpy(pixels), offsets, flips)
    assert views.dtype == torch.int32
    assert np.array_equal(views.numpy(), looped(pixels, offsets.numpy(), flips.numpy()))
