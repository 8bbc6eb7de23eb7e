"""Folders of images, one folder per class, as a source reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

from components.data.sources import image_folder

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


def read(folder, **options):
    return image_folder(folder, **({"test_share": 0.25, "image_size": 16, "channels": 3} | options))
