"""Folders of images, one folder per class, as a source reads them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.sources import SOURCES
from components.prepare import Prepare

RNG = np.random.default_rng(0)


def gradient(width: int, height: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([red, green, np.full_like(red, 7)], axis=-1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str = "RGB", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if image.mode != mode else image).save(path, **options)
    return path


def read(folder, *, test_share=0.25, image_size=16, channels=3, background=None):
    settings = Prepare("image_folder", image_size=image_size, channels=channels, background=background)
    return SOURCES["image_folder"](replace(settings, test_share=test_share), folder)
