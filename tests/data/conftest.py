"""Folders of images that several files of tests read."""

import shutil

import numpy as np
import pytest

from tests.support.image_folders import gradient, save

RNG = np.random.default_rng(0)


@pytest.fixture
def pets(tmp_path):
    """Three classes of four JPEGs of different sizes and shapes."""
    folder = tmp_path / "pets"
    for number, name in enumerate(("cat", "Äffin", "dog")):
        for i in range(4):
            pixels = gradient(20 + 3 * i, 30 - 2 * i)
            pixels[..., 2] = 40 * number + 10 * i
            save(folder / name / f"{i}.jpg", pixels)
    return folder


@pytest.fixture
def imagenet_root(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "imagenet/train")
    shutil.copytree(pets, tmp_path / "imagenet/val")
    return tmp_path / "imagenet"
