"""Images as data URLs, noisy and moved copies among them."""

import base64
import io
import math
from typing import Any

import numpy as np

LARGEST_SIDE = 64
"""Pictures up to here are stored pixel by pixel as PNG; larger ones are shrunk, and stored as WebP."""
SHRUNK_SIDE = 112
SHEET_BYTES = 1_500_000
"""A sheet of all images may be that large."""


def data_url(pixels: np.ndarray) -> str:
    """An image, float (C, H, W) on the scale of [0, 1]; what lies beyond is cut off, as on every screen."""
    from PIL import Image

    image = as_image(pixels)
    if max(image.size) <= LARGEST_SIDE:
        return encoded(image, "PNG", optimize=True)
    factor = SHRUNK_SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return encoded(image.resize(size, Image.Resampling.BILINEAR), "WEBP", quality=70)


def as_image(pixels: np.ndarray) -> Any:
    """The same as a PIL image."""
    from PIL import Image

    values = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(values[:3].transpose(1, 2, 0)))


def encoded(image: Any, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def noisy(pixels: np.ndarray, sigma: float, index: int, copies: int) -> list[np.ndarray]:
    """Copies of an image with Gaussian noise, always the same ones for the same image."""
    rng = np.random.default_rng([index, round(sigma * 1e6)])
    return [pixels + sigma * rng.standard_normal(pixels.shape) for _ in range(copies)]


def sheet(images: list[np.ndarray]) -> tuple[str, int] | None:
    """All images in one picture, row by row, and the number of its columns; None if it would be too large."""
    columns = math.ceil(math.sqrt(len(images)))
    channels, height, width = images[0].shape
    rows = math.ceil(len(images) / columns)
    if max(rows * height, columns * width) > 8192 or channels * height * width * len(images) > 20 * SHEET_BYTES:
        return None
    whole = np.zeros((channels, rows * height, columns * width))
    for i, pixels in enumerate(images):
        row, column = divmod(i, columns)
        whole[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = pixels
    url = encoded(as_image(whole), "PNG", optimize=True)
    return (url, columns) if len(url) <= SHEET_BYTES else None


# --- what lies within a radius ---------------------------------------------------------------------------------------


def spread(pixels: np.ndarray, radius: float, index: int) -> np.ndarray:
    """The image moved by `radius` in L2 in a random direction: every pixel a little."""
    direction = np.random.default_rng([index, 0]).standard_normal(pixels.shape)
    return pixels + radius * direction / np.linalg.norm(direction)


def gathered(pixels: np.ndarray, radius: float) -> tuple[np.ndarray, int]:
    """The image moved by `radius` in L2 in one square in its middle, whose pixels turn dark where they are light and
    light where they are dark; and the side of the square, the smallest that stays near [0, 1]."""
    channels, height, width = pixels.shape
    side = next((s for s in range(1, min(height, width) + 1) if radius / (s * math.sqrt(channels)) <= 0.5), 1)
    side = min(height, width) if radius / (side * math.sqrt(channels)) > 0.5 else side
    top, left = (height - side) // 2, (width - side) // 2
    moved = pixels.copy()
    patch = moved[:, top : top + side, left : left + side]
    patch += np.where(patch > 0.5, -1, 1) * radius / (side * math.sqrt(channels))
    return moved, side


def towards(pixels: np.ndarray, other: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """The image moved by `radius` in L2 towards another one, at most onto it; and how far away that one is."""
    distance = float(np.linalg.norm(other - pixels))
    return pixels + (other - pixels) * min(1.0, radius / max(distance, 1e-12)), distance
