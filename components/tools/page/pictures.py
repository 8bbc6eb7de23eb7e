"""Images as data URLs, noisy copies among them."""

import base64
import io
from typing import Any

import numpy as np

LARGEST_SIDE = 64
"""Pictures up to here are stored pixel by pixel as PNG; larger ones are shrunk, and stored as WebP."""
SHRUNK_SIDE = 112
SMALLER_SIDES = (SHRUNK_SIDE, 80, 56, 40)


def data_url(pixels: np.ndarray) -> str:
    """An image, float (C, H, W) on the scale of [0, 1]; what lies beyond is cut off, as on every screen."""
    image = as_image(pixels)
    return png(image) if max(image.size) <= LARGEST_SIDE else shrunk(image, SHRUNK_SIDE)


def thumbnail(pixels: np.ndarray, most: int) -> str:
    """As `data_url`, but smaller where the URL would have more than `most` characters; 1,500 are always enough."""
    image = as_image(pixels)
    if max(image.size) <= LARGEST_SIDE and len(url := png(image)) <= most:
        return url
    for side in dict.fromkeys(min(side, max(image.size)) for side in SMALLER_SIDES):
        if len(url := shrunk(image, side)) <= most:
            return url
    return shrunk(image, SMALLER_SIDES[-1], quality=10)


def as_image(pixels: np.ndarray) -> Any:
    """An image as `data_url` takes it, as a PIL image of 8 bits; of more than three channels, the first three."""
    return image_of(np.round(np.clip(pixels[:3], 0, 1) * 255).astype(np.uint8))


def image_of(pixels: np.ndarray) -> Any:
    """uint8 (C, H, W) as a PIL image: grey or RGB, with or without opacity."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def png(image: Any) -> str:
    """A PIL image pixel by pixel."""
    return encoded(image, "PNG", optimize=True)


def shrunk(image: Any, most_side: int, quality: int = 70) -> str:
    from PIL import Image

    factor = min(1, most_side / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return encoded(image.resize(size, Image.Resampling.BILINEAR), "WEBP", quality=quality, alpha_quality=quality)


def encoded(image: Any, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def noisy(pixels: np.ndarray, sigma: float, index: int, copies: int) -> list[np.ndarray]:
    """Copies of an image with Gaussian noise, always the same ones for the same image."""
    rng = np.random.default_rng([index, round(sigma * 1e6)])
    return [pixels + sigma * rng.standard_normal(pixels.shape) for _ in range(copies)]
