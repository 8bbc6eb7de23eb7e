"""The page's pictures: broken rows, samples of each class, and what noise does. Their number and size are bounded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.data.expectations import Broken, Place, class_of
from components.data.manifest import Manifest
from components.data.prepared import Split
from components.tools.page.pictures import LARGEST_SIDE, as_image, encoded, noisy, png, thumbnail

Images = Callable[[Place], np.ndarray]
"""Reads an image: float (C, H, W) on the scale of [0, 1]; raises ValueError that says why it cannot."""
BROKEN = 200
"""Rows, of all rules together, that are shown as pictures."""
NAMED = 2000
"""Rows, of all rules together, that are named without a picture."""
PER_CLASS, SAMPLES, SAMPLED_CLASSES = 8, 400, 1000
"""Samples of a class, of all classes unless each has one only, and classes that have any."""
CHARACTERS = 1_500_000
"""Of all samples, and of all broken rows."""
LARGEST = 20_000
"""Characters of one of them."""
NOISY = 24
"""Pictures that show noise."""
NOISE_SIDE = 224
"""Noise is shown pixel by pixel, as shrinking averages it away; of larger images, the centre."""


@dataclass(frozen=True)
class Data:
    """The splits as the page reads them."""

    splits: dict[str, Split | Manifest]
    classes: list[str]
    image: Images

    def tile(self, place: Place, most: int) -> dict[str, Any]:
        """An image with its names, and as a URL of about `most` characters or with the reason why it has none."""
        split, number = self.splits[place.split], place.number
        try:
            shown = {"url": thumbnail(self.image(place), most), "why": ""}
        except ValueError as error:
            shown = {"url": "", "why": f"{error}"}
        named = split.paths is not None and number < len(split.paths)
        return shown | {
            "name": f"{place.split} image {number}",
            "file": split.paths[number] if split.paths and named else "",
            "class": class_of(split.labels[number], self.classes) if number < len(split.labels) else "none",
        }

    def members(self, name: str) -> list[np.ndarray]:
        """Per class the numbers of a split's images, in order."""
        labels = self.splits[name].labels
        order = np.argsort(labels, kind="stable")
        ends = np.arange(len(self.classes))
        starts, stops = (np.searchsorted(labels[order], ends, side) for side in ("left", "right"))  # type: ignore[call-overload]
        return [order[start:stop] for start, stop in zip(starts, stops, strict=True)]


def broken_groups(broken: list[Broken], data: Data) -> list[dict[str, Any]]:
    """Per broken rule its rows: the first ones as pictures, others by name, more than those by number."""
    pictured = [rule for rule in broken if rule.images]
    each, named = BROKEN // max(1, len(pictured)), NAMED // max(1, len(broken))
    pictures = sum(len(images) for rule in pictured for images in rule.images[:each])
    most = min(LARGEST, CHARACTERS // max(1, pictures))
    return [
        {
            "says": rule.says,
            "stops": rule.stops,
            "count": len(rule.rows),
            "cards": [[data.tile(place, most) for place in images] for images in rule.images[:each]],
            "others": (others := rule.rows[each if rule.images else 0 :])[:named],
            "left_out": len(others[named:]),
        }
        for rule in broken
    ]


def samples(data: Data, members: list[np.ndarray], split: str) -> list[dict[str, Any]]:
    """Images of each class, evenly spread over its rows in a split."""
    shown = list(enumerate(members))[:SAMPLED_CLASSES]
    each = min(PER_CLASS, max(1, SAMPLES // len(shown)))
    most = min(LARGEST, CHARACTERS // (each * len(shown)))
    return [
        {
            "class": data.classes[label],
            "count": len(numbers),
            "tiles": [data.tile(Place(split, int(number)), most) for number in evenly(numbers, each)],
        }
        for label, numbers in shown
    ]


def evenly(numbers: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the numbers: the middles of as many equal parts."""
    count = min(count, len(numbers))
    return numbers[((np.arange(count) + 0.5) * len(numbers) / max(1, count)).astype(int)]


def noise(data: Data, members: list[np.ndarray], split: str, sigmas: dict[str, float]) -> list[dict[str, Any]]:
    """Images of a few classes, each without noise and with that of each sigma; unreadable ones are left out."""
    filled = np.array([label for label, numbers in enumerate(members) if len(numbers)], dtype=int)
    rows = []
    for label in evenly(filled, max(1, min(4, NOISY // (1 + len(sigmas))))):
        place = Place(split, int(evenly(members[label], 1)[0]))
        try:
            pixels = centre(data.image(place))
        except ValueError:
            continue
        steps = [("as prepared", pixels)]
        steps += [(f"σ {key}", noisy(pixels, sigma, place.number, 1)[0]) for key, sigma in sigmas.items()]
        shown = [{"what": what, "url": exactly(changed)} for what, changed in steps]
        rows.append({"name": f"{split} image {place.number}", "class": data.classes[label], "steps": shown})
    return rows


def centre(pixels: np.ndarray) -> np.ndarray:
    """The middle of a large image."""
    top, left = (max(0, (side - NOISE_SIDE) // 2) for side in pixels.shape[1:])
    return pixels[:, top : top + NOISE_SIDE, left : left + NOISE_SIDE]


def exactly(pixels: np.ndarray) -> str:
    """As a data URL that is not shrunk."""
    image = as_image(pixels)
    return png(image) if max(image.size) <= LARGEST_SIDE else encoded(image, "WEBP", quality=60)
