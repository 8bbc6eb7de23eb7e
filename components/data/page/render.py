"""The page itself."""

from pathlib import Path
from typing import Any

import numpy as np

from components.data.expectations import Broken
from components.data.manifest import Manifest
from components.data.page import shown
from components.data.page.shown import Data, Images
from components.data.prepared import Description, Split
from components.tools.page.template import fill
from components.tools.wording import counted

FOLDER = Path(__file__).parent
AT_ONCE = 24
"""Broken rows of a rule that are shown without asking."""
MOST_CLASSES = 2000
"""Rows of the table of classes."""
FEW_CLASSES = 40
"""So many are all shown at once; of more, the rarest are, and the others on request."""
COLUMNS = 4
"""Of a class's samples."""


def render(
    description: Description,
    splits: dict[str, Split | Manifest],
    broken: list[Broken],
    report: dict[str, Any],
    *,
    sigmas: dict[str, float],
    min_class_share: float,
    image: Images,
) -> str:
    """The prepared data as one self-contained HTML page; the same data gives the same page.

    Args:
        broken, report: what `check_expectations` gave for the splits.
        sigmas: the noise levels, by their names.
    """
    data = Data(splits, description.classes, image)
    members = {name: data.members(name) for name in splits}
    classes = class_rows(description.classes, members, min_class_share)
    samples = shown.samples(data, members["train"], "train")
    total = sum(len(split) for split in splits.values())
    values = {
        "kind": "The images of",
        "name": description.source,
        "fit": report["success"],
        "finding": finding(broken, report, total),
        "figures": figures(description, splits, members["train"]),
        "rules": rule_rows(broken, report),
        "at_once": AT_ONCE,
        "broken": shown.broken_groups(broken, data),
        "splits": list(splits),
        "classes": classes[:MOST_CLASSES],
        "all_classes": len(classes),
        "few_classes": FEW_CLASSES,
        "class_sizes": {name: class_sizes(of_split) for name, of_split in members.items()},
        "min_class_share": f"{min_class_share:g}",
        "samples": samples,
        "columns": min(COLUMNS, max(1, *(len(one["tiles"]) for one in samples))),
        "noise": shown.noise(data, members["train"], "train", sigmas),
        "noise_side": shown.NOISE_SIDE if max(description.image_shape[1:]) > shown.NOISE_SIDE else 0,
        "lengths": lengths(description, sigmas),
        "facts": facts(description, splits),
    }
    return fill(FOLDER, values)


def finding(broken: list[Broken], report: dict[str, Any], images: int) -> str:
    """In one sentence whether the data is fit for training."""
    rules, on = len(report["rules"]), counted(images, "images", form=",")
    if not broken:
        return f"Fit for training: all {rules} expectations hold on {on}."
    if report["success"]:
        return f"Fit for training: {rules - len(broken)} of {rules} expectations hold on {on}; the rest is known."
    stopping = [rule for rule in broken if rule.stops]
    rows = counted(sum(len(rule.rows) for rule in stopping), "rows", form=",")
    are = "is" if len(stopping) == 1 else "are"
    return f"Not fit for training: {len(stopping)} of {rules} expectations {are} broken, by {rows}."


def figures(description: Description, splits: dict[str, Split | Manifest], train: list[np.ndarray]) -> list[dict]:
    """The numbers at the top."""
    sizes = [len(numbers) for numbers in train]
    channels, height, width = description.image_shape
    in_a_class = "–".join(f"{size:,}" for size in sorted({min(sizes), max(sizes)}))
    of_splits = [{"value": f"{len(split):,}", "what": f"{name} images"} for name, split in splits.items()]
    return [
        *of_splits,
        {"value": f"{len(sizes):,}", "what": "classes"},
        {"value": in_a_class, "what": "train images in a class"},
        {"value": f"{height}×{width}", "what": f"pixels, {counted(channels, 'channels')}"},
    ]


def rule_rows(broken: list[Broken], report: dict[str, Any]) -> list[dict[str, Any]]:
    """All expectations, with what was found."""
    stops = {rule.says: rule.stops for rule in broken}
    return [
        {
            "says": rule["rule"],
            "checked": f"{rule['checked']:,}",
            "found": f"{len(rule['broken']):,}",
            "outcome": ("stops" if stops[rule["rule"]] else "known") if rule["broken"] else "holds",
        }
        for rule in report["rules"]
    ]


def class_rows(
    classes: list[str], members: dict[str, list[np.ndarray]], min_class_share: float
) -> list[dict[str, Any]]:
    """Per class the number of its images in each split, as a share of the largest class there, and whether they are too
    few; the rarest in train first if there are many."""
    counts = {name: [len(numbers) for numbers in of_split] for name, of_split in members.items()}
    rows = [
        {
            "class": title,
            "cells": [
                {
                    "count": f"{of_split[label]:,}",
                    "share": of_split[label] / max(1, *of_split),
                    "few": of_split[label] * len(classes) < min_class_share * sum(of_split),
                }
                for of_split in counts.values()
            ],
        }
        for label, title in enumerate(classes)
    ]
    if len(classes) <= FEW_CLASSES:
        return rows
    return [rows[label] for label in np.argsort(counts["train"], kind="stable")]


def class_sizes(members: list[np.ndarray]) -> list[str]:
    """How many images the smallest class of a split has, those at 10, 50 and 90 % in order of size, and the largest."""
    sizes = np.quantile([len(numbers) for numbers in members], (0, 0.1, 0.5, 0.9, 1), method="lower")
    return [f"{size:,}" for size in sizes]


def lengths(description: Description, sigmas: dict[str, float]) -> list[dict[str, str]]:
    """What each sigma is in the image's own values, and over the whole image."""
    values = int(np.prod(description.image_shape))
    return [
        {"sigma": key, "step": f"{sigma * description.max_value:,.4g}", "length": f"{sigma * values**0.5:,.4g}"}
        for key, sigma in sigmas.items()
    ]


def facts(description: Description, splits: dict[str, Split | Manifest]) -> list[tuple[str, str]]:
    """What is known of the data besides its images."""
    stay = any(isinstance(split, Manifest) for split in splits.values())
    normalisation = "none"
    if description.mean and description.std:
        means, stds = (", ".join(f"{value:.4g}" for value in of) for of in (description.mean, description.std))
        normalisation = f"mean {means}; standard deviation {stds}"
    return [
        ("source", description.source),
        ("origin", description.origin),
        ("pixels", f"{description.pixel_type}, 0 to {description.max_value:,}, which is 1.0"),
        ("normalisation, inside the network", normalisation),
        ("images", "stay in their files; shown in the test view" if stay else "arrays in outputs/data/prepared"),
        ("hash of the data", description.sha256),
        ("hash of train, of test", f"{description.train_sha256}, {description.test_sha256}"),
    ]
