"""Made noise levels and images for the report page, and the page that they give."""

from dataclasses import replace

import numpy as np
import pandas as pd

from components.certification import bounds
from components.certification.table import ABSTAIN
from components.data.prepared import Description
from components.evaluation.metrics import summarize
from components.evaluation.page.level import Level
from components.params import level_key

HOSTILE = "<script>alert(1)</script>"
CLASSES = ["cat", HOSTILE, 'dog "&" fox']
SHAPE = [3, 8, 8]
N, FAILURE_PROB = 1000, 0.001
RADII = [0.0, 0.25, 0.5, 1.0]


def description(images: int = 30) -> Description:
    sizes = {"image_shape": SHAPE, "max_value": 255, "mean": None, "std": None, "train_images": 90}
    return Description("image_folder", HOSTILE, CLASSES, **sizes, test_images=images, train_sha256="a", test_sha256="b")


def image(index: int) -> np.ndarray:
    """A test image."""
    return np.random.default_rng(index).random(SHAPE)


def reference_level(sigma: float, images: int = 30, **more: object) -> Level:
    """A level with answers of every kind: right, wrong and withheld, where there are images enough.

    Args:
        more: of the identity; None leaves an entry out.
    """
    facts = {"mode": "reference", "sigma": sigma, "n0": 100, "n": N, "failure_prob": FAILURE_PROB, "seed": 1}
    facts |= {"bound": "two_class", "arithmetic": "exact", "images_sha256": "b", "weights_sha256": "c" * 64} | more
    identity = {name: value for name, value in facts.items() if value is not None}
    rows = [row(index, identity) for index in range(images)]
    table = pd.DataFrame(rows)
    history = pd.DataFrame({"epoch": range(4), "loss": [2.0, 1, 0.5, 0.4], "noisy_accuracy": [0.2, 0.5, 0.6, 0.7]})
    return Level(
        key=level_key(sigma),
        table=table,
        identity=identity,
        summary=summarize(table, RADII, identity),
        training={"method": "smoothmix", "network": "lenet", "epochs": 4, "seed": 0},
        history=history.assign(learning_rate=0.1, seconds=1.5),
        provenance={"git_commit": "d" * 40, "python": "3.11", "processor": "a processor", "gpu": "none"},
    )


def row(index: int, identity: dict) -> dict:
    label = index % len(CLASSES)
    hits = [N, N - 40, N - 300, N // 2 + 5][index // len(CLASSES) % 4]
    selected = (label + 1) % len(CLASSES) if index % 7 == 6 else label
    counts = [0] * len(CLASSES)
    counts[selected], counts[(selected + 1) % len(CLASSES)] = hits, N - hits
    p_lower, p_upper = bounds.probability_bounds(identity.get("bound", "one_class"), counts, selected, N, FAILURE_PROB)
    certified = p_lower > p_upper
    radius = bounds.certified_radius(p_lower, identity["sigma"], p_upper) if certified else 0.0
    predict = selected if certified else ABSTAIN
    return {
        "idx": index,
        "label": label,
        "predict": predict,
        "radius": radius,
        "correct": int(predict == label),
        "selected": selected,
        "counts": " ".join(map(str, counts)),
        "n0": 100,
        "n": N,
        "p_lower": p_lower,
        "p_upper": p_upper,
    }


def preset_level(sigma: float) -> Level:
    """A level of preset radii."""
    level = reference_level(sigma)
    identity = level.identity | {"mode": "sequential", "radii": [0.25, 0.5], "reject_prob": 1e-4}
    decided = [f"{'accept' if r >= 0.25 else 'reject'} undecided" for r in level.table["radius"]]
    steps = level.table["radius"].where(level.table["radius"] < 0.25, 0.25) // 0.25 * 0.25
    table = level.table.assign(decisions=decided, looks="900/50/1000 900/50/1000", radius=steps)
    return replace(level, table=table, identity=identity, summary=summarize(table, [], identity))


def attacked(level: Level) -> Level:
    """The level with attacks on some of its images."""
    rows = level.table[level.table["radius"] > 0].head(8)[["idx", "label", "predict", "radius"]]
    return replace(level, attacks=rows.assign(attacked=rows["radius"] * 1.4 + 0.01))
