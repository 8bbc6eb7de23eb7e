"""All images in one picture, and images moved by a radius."""

import math

import numpy as np

from components.tools.page.pictures import as_image, png

SHEET_BYTES = 1_500_000
"""A sheet of all images may be that large."""


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
    url = png(as_image(whole))
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
