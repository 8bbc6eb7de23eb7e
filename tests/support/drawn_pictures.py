"""Small pictures to classify, drawn with random colours, sizes, places and grain: like a folder of own images."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("bar", "cross", "disc", "ring", "square", "triangle")


def draw_folder(folder: Path, each: int = 40) -> Path:
    """`each` JPEGs per class in `folder`/<class>/; the same ones at every call."""
    rng = np.random.default_rng(0)
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture(name, rng).save(folder / name / f"{number:03d}.jpg", quality=90)
    return folder


def picture(shape: str, rng: np.random.Generator) -> Image.Image:
    """One shape on a background, both of random colours that differ in brightness."""
    width, height = (int(side) for side in rng.integers(40, 80, 2))
    dark, bright = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    back, front = (dark, bright) if rng.random() < 0.5 else (bright, dark)
    image = Image.new("RGB", (width, height), tuple(map(int, back)))
    pen, colour = ImageDraw.Draw(image), tuple(map(int, front))
    side = min(width, height)
    r = side * rng.uniform(0.25, 0.38)
    x, y = width / 2 + side * rng.uniform(-0.1, 0.1), height / 2 + side * rng.uniform(-0.1, 0.1)
    box = (x - r, y - r, x + r, y + r)
    if shape == "bar":
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)
    elif shape == "cross":
        pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=colour)
        pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=colour)
    elif shape == "disc":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=max(2, round(r / 2.5)))
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    grain = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
