"""The page's sentences and tables, as plain values for the template."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from components.certification.table import ABSTAIN, display_radius
from components.data.prepared import Description
from components.evaluation.metrics import CONFIDENCE, certified_radii, is_certified, is_correct
from components.evaluation.page.level import Level, class_name
from components.evaluation.report import BOUND_NAMES, answers
from components.tools.wording import counted

MATRIX_CLASSES = 12
"""Up to so many classes, confusions are shown as a matrix."""
LISTED_CLASSES = 40
"""Of more classes, those with the lowest certified accuracy are listed."""
SHOWN_HASH = 16


def percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def finding(levels: list[Level]) -> dict[str, Any]:
    """The one sentence: the largest reported radius at which at least half of the images are certified, or else the
    radius with most. With the level that it is at."""
    offers = [
        (level, float(radius), accuracy)
        for level in levels
        for radius, accuracy in level.summary["certified_accuracy"].items()
        if answers(level.summary, float(radius))
    ]
    offers = [offer for offer in offers if offer[1] > 0] or offers
    if not offers:
        return {"said": "No reported radius can be certified with so few samples.", "level": levels[0]}
    half = [offer for offer in offers if offer[2]["value"] >= 0.5]
    if half:
        level, radius, accuracy = max(half, key=lambda offer: (offer[1], offer[2]["value"]))
    else:
        level, radius, accuracy = max(offers, key=lambda offer: (offer[2]["value"], offer[1]))
    images = counted(len(level.table), "test images", form=",")
    share, low, high = (100 * accuracy[name] for name in ("value", "low", "high"))
    said = (
        f"{share:.1f}\u00a0% of {images} are classified right, and provably stay so under every perturbation up to L2 "
    )
    said += f"length {radius:g}"
    interval = f"σ\u00a0{level.key}; {100 * CONFIDENCE:g}\u00a0% interval {low:.1f} to {high:.1f}\u00a0%"
    return {"said": f"{said} ({interval}).", "level": level, "radius": radius}


def headline_figures(level: Level) -> list[dict[str, str]]:
    """Large figures of one level, with what they mean."""
    values = level.summary
    figures = [{"value": f"{len(level.table):,}", "what": "test images"}]
    if "acr" in values:
        figures += [
            {"value": percent(values["clean_accuracy"]), "what": "answered right, without a perturbation"},
            {"value": display_radius(values["acr"]), "what": "average certified radius (L2)"},
            {"value": percent(values["abstention"]), "what": "without an answer"},
        ]
    else:
        worst = max(values["undecided"].values())
        figures += [
            {"value": f"{values['mean_n']:,.0f}", "what": "samples per image, on average"},
            {"value": percent(worst), "what": "undecided at the hardest radius"},
        ]
    return figures


def accuracy_rows(levels: list[Level]) -> list[dict[str, Any]]:
    """Certified accuracy with its interval, per level and radius."""
    return [
        {"sigma": level.key, "radius": radius, "value": percent(one["value"]), "low": one["low"], "high": one["high"]}
        for level in levels
        for radius, one in level.summary["certified_accuracy"].items()
        if answers(level.summary, float(radius))
    ]


def per_class(level: Level, classes: Sequence[str], radius: float) -> dict[str, Any]:
    """Per class of one level: accuracy, certified accuracy at `radius`, mean radius, and what it is taken for.

    Returns:
        rows; left_out, the number of classes that are not listed; matrix, None beyond `MATRIX_CLASSES` classes.
    """
    table = level.table
    own = table.assign(
        right=is_correct(table), certified=is_certified(table, radius), score=certified_radii(table)
    ).groupby("label")
    rows: list[dict[str, Any]] = []
    for name, images in own:
        label: Any = name
        wrong = Counter(int(answer) for answer in images.loc[~images["right"], "predict"])
        taken = [f"{class_name(classes, answer)} ({count})" for answer, count in wrong.most_common(3)]
        rows.append(
            {
                "name": class_name(classes, int(label)),
                "images": len(images),
                "clean": percent(images["right"].mean()),
                "certified": percent(images["certified"].mean()),
                "share": float(images["certified"].mean()),
                "radius": display_radius(float(images["score"].mean())),
                "taken_for": ", ".join(taken) or "–",
            }
        )
    listed = rows
    if len(rows) > LISTED_CLASSES:
        listed = sorted(rows, key=lambda row: row["share"])[:LISTED_CLASSES]
    return {"rows": listed, "left_out": len(rows) - len(listed), "matrix": confusions(table, classes)}


def confusions(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any] | None:
    """Answers by true class, as counts; the last column is of those that were withheld."""
    labels = sorted(set(table["label"].astype(int)))
    answered = sorted({int(answer) for answer in table["predict"] if answer != ABSTAIN} | set(labels))
    if len(answered) > MATRIX_CLASSES:
        return None
    columns = [*answered, ABSTAIN]
    counts = pd.crosstab(table["label"], table["predict"])
    rows = []
    for label in labels:
        cells = [int(counts.get(answer, pd.Series(dtype=int)).get(label, 0)) for answer in columns]
        shares = [count / max(sum(cells), 1) for count in cells]
        shown = [
            {"count": count, "share": round(share, 3), "right": answer == label}
            for count, share, answer in zip(cells, shares, columns, strict=True)
        ]
        rows.append({"name": class_name(classes, label), "cells": shown})
    return {"columns": [class_name(classes, answer) for answer in columns], "rows": rows}


def cost(levels: list[Level]) -> list[dict[str, str]]:
    """What the run took, per level."""
    return [
        {
            "sigma": level.key,
            "training": duration(float(level.epochs["seconds"].sum())) if len(level.epochs) else "–",
            "epochs": f"{len(level.epochs):,}" if len(level.epochs) else "–",
            "samples": f"{samples(level):,}",
            "per_image": f"{samples(level) / len(level.table):,.0f}",
            "machine": machine(level),
        }
        for level in levels
    ]


def samples(level: Level) -> int:
    """How many noisy copies were classified to make the table."""
    table, identity = level.table, level.identity
    estimation = int(table["n"].sum()) if "n" in table else len(table) * identity["n"]
    selection = int(table["n0"].sum()) if "n0" in table else len(table) * identity.get("n0", 0)
    return estimation + selection


def machine(level: Level) -> str:
    """What the training ran on."""
    gpu, processor = (level.provenance.get(name, "none") for name in ("gpu", "processor"))
    found = gpu if gpu != "none" else processor
    return "not recorded" if found == "none" else str(found)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def provenance(levels: list[Level], description: Description) -> list[dict[str, Any]]:
    """Facts with their value per level, where they differ, or one for all; hashes last, and shortened."""
    facts: dict[str, list[str]] = {
        "data": [f"{description.source}: {description.origin}" if description.origin else description.source],
        "images for training": [f"{description.train_images:,}"],
        "shape of an image": [" × ".join(map(str, description.image_shape))],
    }
    shown = {"method": "training method", "network": "network", "epochs": "epochs", "seed": "seed of the training"}
    for name, title in shown.items():
        facts[title] = [str(level.training.get(name, "")) for level in levels]
    for name in ("git_commit", "git_state", "python", "torch", "processor", "gpu"):
        title = {"git_commit": "commit of the training", "git_state": "its working tree"}.get(name, name)
        facts[title] = [str(level.provenance.get(name, "")) for level in levels]
    names = list(dict.fromkeys(name for level in levels for name in level.identity))
    names.sort(key=lambda name: name.endswith("sha256"))
    for name in names:
        if name not in ("sigma", "torch"):
            facts[f"certification: {name}"] = [str(level.identity.get(name, "")) for level in levels]
    rows = []
    for title, values in facts.items():
        shortened = [
            value[:SHOWN_HASH] if title.endswith(("sha256", "commit of the training")) else value for value in values
        ]
        if any(shortened):
            rows.append({"name": title, "values": shortened[:1] if len(set(shortened)) == 1 else shortened})
    return rows


def assumptions(levels: list[Level]) -> list[str]:
    """What the certificates rest on, a sentence each."""
    first = levels[0].summary
    answered = sum(int((level.table["predict"] != ABSTAIN).sum()) for level in levels)
    images = sum(len(level.table) for level in levels)  # also those without an answer: the bound is on being wrong
    probability = first["failure_prob"]
    bounds = " and ".join(dict.fromkeys(BOUND_NAMES[level.summary["bound"]] for level in levels))
    said = [
        f"Each certificate holds with probability at least {1 - probability:g} over its own sampling. Of the "
        f"{answered:,} answers here, at most {images * probability:.1f} are expected to be wrong.",
        f"Probabilities are bounded by the {bounds} bound, chosen before any sample was seen.",
        "The certified classifier is the smoothed one: the network, asked about many noisy copies. The network alone "
        "may change its answer under tiny perturbations.",
        "A perturbation is measured in L2 on images in [0, 1]. A shift, a rotation, another crop or another camera is "
        "usually far beyond any radius here.",
        "The pseudo-random words of the noise behave like independent uniform ones, and the network is a function: the "
        "same input gives the same class.",
    ]
    if "exact" in {level.summary["arithmetic"] for level in levels}:
        said.append(
            "Exact arithmetic: images and noise are integers on a grid, so a certificate holds for the program "
            "that runs, not only for real numbers."
        )
    if "float" in {level.summary["arithmetic"] for level in levels}:
        said.append(
            "Float arithmetic: how adding the noise rounds is left out of the proof; the network is assumed "
            "not to read rounding errors."
        )
    return said
