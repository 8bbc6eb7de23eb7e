"""The page's pictures: what a radius means, a gallery with noisy copies and votes, and what the search finds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.certification.table import ABSTAIN, display_radius
from components.evaluation.metrics import certified_radii
from components.evaluation.page import pictures
from components.evaluation.page.level import Level, class_name, groups_of, hits
from components.tools.page.pictures import data_url, noisy

Images = Callable[[int], np.ndarray]
"""Reads a test image by its number: float (C, H, W) on the scale of [0, 1]."""
COPIES = 3
PER_GROUP = 6
NEIGHBOURS = 1000
"""Images among which the nearest one of another class is looked for."""
SEARCHED = 12_000
"""Rows, of all levels together, that the search holds at most."""
GROUPS = {
    "strongest": ("Strongest", "right, with the largest radius"),
    "weakest": ("Weakest", "right, with the smallest radius above 0"),
    "abstained": ("Abstained", "no class is certain enough; the nearest to an answer first"),
    "wrong": ("Wrongly certified", "a wrong class, proven to be stable: the classifier is sure and mistaken"),
}


def gallery(level: Level, classes: Sequence[str], image: Images | None) -> list[dict[str, Any]]:
    """The groups of one level with their cards."""
    found = groups_of(level.table, PER_GROUP)
    return [
        {
            "title": title,
            "what": what,
            "cards": [card(row, level, classes, image) for row in found[name].to_dict("records")],
        }
        for name, (title, what) in GROUPS.items()
    ]


def card(row: dict[Any, Any], level: Level, classes: Sequence[str], image: Images | None) -> dict[str, Any]:
    """One image: true class, answer, radius, votes, and pictures if there are any."""
    index, votes = int(row["idx"]), hits(row)
    shown: dict[str, Any] = {
        "index": index,
        "label": class_name(classes, int(row["label"])),
        "answer": class_name(classes, int(row["predict"])),
        "withheld": row["predict"] == ABSTAIN,
        "right": row["predict"] == row["label"],
        "radius": display_radius(float(row["radius"])),
        "votes": None,
    }
    if votes:
        shown["votes"] = {
            "n": votes["n"],
            "own": votes["own"],
            "selected": class_name(classes, int(row["selected"])),
            "rival": class_name(classes, votes["rival"]) if votes["rivals"] else None,
            "rivals": votes["rivals"],
            "rest": votes["n"] - votes["own"] - votes["rivals"],
        }
    if image is not None:
        pixels = image(index)
        shown["picture"] = data_url(pixels)
        shown["copies"] = [data_url(copy) for copy in noisy(pixels, level.sigma, index, COPIES)]
    return shown


def meaning(level: Level, classes: Sequence[str], image: Images) -> dict[str, Any] | None:
    """One image with noise, and moved by its own radius in three ways; None where nothing is certified.

    It is the image with the median radius of those that are right.
    """
    radii = certified_radii(level.table)
    certified = level.table[radii > 0].sort_values("radius", kind="stable")
    if not len(certified):
        return None
    row = certified.iloc[len(certified) // 2]
    index, label, radius = int(row["idx"]), int(row["label"]), float(row["radius"])
    pixels = image(index)
    patch, side = pictures.gathered(pixels, radius)
    steps = [
        ("the image", pixels),
        (f"with noise of σ {level.key}", noisy(pixels, level.sigma, index, 1)[0]),
        (f"moved by {display_radius(radius)}, spread over all pixels", pictures.spread(pixels, radius, index)),
        (f"moved by {display_radius(radius)}, gathered in {side} × {side} pixels", patch),
    ]
    shown = {
        "sigma": level.key,
        "index": index,
        "label": class_name(classes, label),
        "radius": display_radius(radius),
        "per_value": f"{radius / np.sqrt(pixels.size):.3f}",
        "values": f"{pixels.size:,}",
        "flips": f"{radius**2 / len(pixels):.1f}",
    }
    if nearest := nearest_of_another_class(level.table, index, label, image):
        other, other_label = nearest
        moved, distance = pictures.towards(pixels, image(other), radius)
        name = class_name(classes, other_label)
        steps.append((f"moved by {display_radius(radius)} towards the nearest {name} among the test images", moved))
        steps.append((f"that {name}, {display_radius(distance)} away", image(other)))
        shown["distance"] = display_radius(distance)
    return shown | {"steps": [{"what": what, "picture": data_url(picture)} for what, picture in steps]}


def nearest_of_another_class(table: pd.DataFrame, index: int, label: int, image: Images) -> tuple[int, int] | None:
    """Number and label of the nearest image of another class among the first `NEIGHBOURS`."""
    others = table[table["label"] != label].head(NEIGHBOURS)
    if not len(others):
        return None
    pixels = image(index)
    distances = [float(np.linalg.norm(image(int(other)) - pixels)) for other in others["idx"]]
    nearest = others.iloc[int(np.argmin(distances))]
    return int(nearest["idx"]), int(nearest["label"])


def searchable(levels: list[Level], classes: Sequence[str], image: Images | None) -> dict[str, Any]:
    """What the search looks through: all images of the tables, or the first of them, as short rows.

    Returns:
        classes; levels; images, by index [index, label], and per level [answer, radius, n, hits, rival, rival's hits];
        sheet, a picture of them all where it is small enough, with its columns and the side lengths of an image.
    """
    indices = sorted({int(index) for level in levels for index in level.table["idx"]})
    kept = indices[: max(1, SEARCHED // len(levels))]
    by_level = [dict(zip(one.table["idx"].astype(int), one.table.to_dict("records"), strict=True)) for one in levels]
    rows = []
    for index in kept:
        own = [rows_of.get(index) for rows_of in by_level]
        label = next(int(row["label"]) for row in own if row is not None)
        rows.append([index, label, [None if row is None else short(row) for row in own]])
    found = {
        "classes": list(classes),
        "sigmas": [level.key for level in levels],
        "rows": rows,
        "left_out": len(indices) - len(kept),
        "sheet": None,
    }
    whole = pictures.sheet([image(index) for index in kept]) if image and fits(image, kept) else None
    if whole:
        _, height, width = image(kept[0]).shape if image else (0, 0, 0)
        found["sheet"] = {"url": whole[0], "columns": whole[1], "width": width, "height": height}
    return found


def fits(image: Images, kept: list[int]) -> bool:
    """Whether a sheet of these images may be small enough, so that it is worth reading them all."""
    return image(kept[0]).size * len(kept) <= 20 * pictures.SHEET_BYTES


def short(row: dict[Any, Any]) -> list[Any]:
    """A row for the search; see `searchable`."""
    votes = hits(row)
    counts = [votes[name] for name in ("n", "own", "rival", "rivals")] if votes else []
    return [int(row["predict"]), display_radius(float(row["radius"])), *counts]
