"""Checks of the prepared data before training, with Great Expectations.

Three frames describe the data: one row per image, one per class and split, one per split. Each rule is an expectation
on one column, so a broken rule names its rows. The pixels of files behind a manifest are not checked here: the prepare
stage has decoded every file, and every reader checks the file's hash.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from components.data.manifest import Manifest
from components.data.prepared import Description, Split
from components.tools.wording import counted

NAMED_ROWS = 10
TWIN_OF_ANOTHER_LABEL = "twin_of_another_label"
"""The column that names, for an image, the row of an equal one with another label."""
APART = (("val", "train"), ("test", "train"), ("test", "val"))
"""Splits that share no image, whatever its label."""
PUBLISHED = ("mnist", "cifar10", "imagenet")
"""Sources that everybody uses unchanged: contradicting labels in them are reported, but do not stop the pipeline."""


@dataclass(frozen=True)
class Rule:
    """One expectation on one column, and the sentence that people read."""

    says: str
    expectation: str
    column: str
    arguments: dict[str, Any]
    stops: bool = True
    """True: data that breaks the rule stops the pipeline. False: its rows are only reported."""


class Place(NamedTuple):
    """Where an image stands."""

    split: str
    number: int


@dataclass(frozen=True)
class Broken:
    says: str
    rows: list[str]
    """Every offending row, such as 'train image 17', or 'train image 17 (cats/3.jpg)' where it is a file's."""
    stops: bool = True
    images: list[list[Place]] = field(default_factory=list)
    """Of each row, itself and its twin if it has one; nothing where rows are classes or splits."""

    def __str__(self) -> str:
        more = f", ... ({len(self.rows)} in all)" if len(self.rows) > NAMED_ROWS else ""
        return f"{self.says}: {', '.join(self.rows[:NAMED_ROWS])}{more}"


def twin_column(one: str, other: str) -> str:
    """The column that names, for an image of one split, the row of an equal one in another."""
    return f"{one}_twin_in_{other}"


def label_rules(splits: Collection[str], description: Description) -> list[Rule]:
    labels = list(range(len(description.classes)))
    return [
        Rule("image without a label", "ExpectColumnValuesToNotBeNull", "label", {}),
        Rule(
            f"label outside the classes 0 to {labels[-1]}",
            "ExpectColumnValuesToBeInSet",
            "label",
            {"value_set": labels},
        ),
        *(
            Rule(f"{one} image that is also in {other}", "ExpectColumnValuesToBeNull", twin_column(one, other), {})
            for one, other in APART
            if one in splits and other in splits
        ),
        Rule(
            "image that also occurs with another label",
            "ExpectColumnValuesToBeNull",
            TWIN_OF_ANOTHER_LABEL,
            {},
            stops=description.source not in PUBLISHED,
        ),
    ]


def pixel_rules(description: Description) -> list[Rule]:
    same: dict[str, list[Any]] = {"value_set": [True]}
    pixel_type = description.pixel_type
    return [
        Rule("label without an image", "ExpectColumnValuesToBeInSet", "has_image", same),
        Rule(f"image shape is not {description.image_shape}", "ExpectColumnValuesToBeInSet", "shape_agrees", same),
        Rule(f"pixels are not {pixel_type}", "ExpectColumnValuesToBeInSet", "type_agrees", same),
        Rule(
            f"pixel above {description.max_value}",
            "ExpectColumnValuesToBeBetween",
            "max",
            {"min_value": 0, "max_value": description.max_value},
        ),
        Rule("constant image", "ExpectColumnValuesToBeBetween", "spread", {"min_value": 1}),
    ]


def class_rules(min_class_share: float) -> list[Rule]:
    return [
        Rule(
            f"class with less than {min_class_share:g} of a balanced share",
            "ExpectColumnValuesToBeBetween",
            "relative_share",
            {"min_value": min_class_share},
        )
    ]


def split_rules() -> list[Rule]:
    agrees = {"value_set": [True]}
    return [Rule("split size differs from the description", "ExpectColumnValuesToBeInSet", "count_agrees", agrees)]


def describe_images(splits: dict[str, Split | Manifest], description: Description) -> pd.DataFrame:
    """One row per image or label, whichever are more; its index is a name like 'train image 17 (cats/3.jpg)'.

    If equal images have several labels, those whose label differs from the first one's contradict it.
    """
    frames = [
        _describe_manifest(name, split)
        if isinstance(split, Manifest)
        else pd.DataFrame(_describe_split(name, split, description))
        for name, split in splits.items()
    ]
    frame = pd.concat([frame for frame in frames if len(frame)]).set_index("row", drop=False)
    for one, other in APART:
        there = frame[(frame["split"] == other) & frame["has_image"]]
        first_there = there.drop_duplicates("digest").set_index("digest")["row"]
        frame[twin_column(one, other)] = frame["digest"].map(first_there).where(frame["split"] == one)
    first = frame.dropna(subset=["digest", "label"]).drop_duplicates("digest").set_index("digest")
    contradicts = frame["label"].notna() & (frame["label"] != frame["digest"].map(first["label"]))
    frame[TWIN_OF_ANOTHER_LABEL] = frame["digest"].map(first["row"]).where(contradicts)
    return frame


def _describe_manifest(name: str, manifest: Manifest) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": [f"{name} image {i} ({path})" for i, path in enumerate(manifest.paths)],
            "split": name,
            "number": range(len(manifest)),
            "label": manifest.labels.astype(float),
            "has_image": True,
            "digest": manifest.hashes,
        }
    )


def _describe_split(name: str, split: Split, description: Description) -> Iterator[dict[str, Any]]:
    for i in range(max(len(split.images), len(split.labels))):
        image = split.images[i] if i < len(split.images) else None
        label = split.labels[i] if i < len(split.labels) else None
        yield {
            "row": f"{name} image {i}" + (f" ({split.paths[i]})" if split.paths and i < len(split.paths) else ""),
            "split": name,
            "number": i,
            "label": None if label is None else float(label),
            "has_image": image is not None,
            "shape_agrees": image is None or list(image.shape) == description.image_shape,
            "type_agrees": image is None or image.dtype == description.pixel_type,
            "max": None if image is None else float(image.max()),
            "spread": None if image is None else float(image.max()) - float(image.min()),
            "digest": None if image is None else hashlib.sha256(np.ascontiguousarray(image).data).hexdigest(),
        }


def describe_splits(splits: dict[str, Split | Manifest], description: Description) -> pd.DataFrame:
    """One row per split that is described: whether it has as many labels as were prepared."""
    prepared = {"train": description.train_images, "test": description.test_images}
    rows = [{"row": name, "count_agrees": len(splits[name].labels) == count} for name, count in prepared.items()]
    return pd.DataFrame(rows).set_index("row", drop=False)


def describe_classes(splits: dict[str, Split | Manifest], description: Description) -> pd.DataFrame:
    """One row per split and class, with its share relative to a perfectly balanced split."""
    rows = []
    for name, split in splits.items():
        for label, title in enumerate(description.classes):
            count = int(np.sum(split.labels == label))
            share = count / len(split.labels) * len(description.classes) if len(split.labels) else 0.0
            rows.append({"row": f"{name} class {title} ({counted(count, 'images')})", "relative_share": share})
    return pd.DataFrame(rows).set_index("row", drop=False)


def check_expectations(
    splits: dict[str, Split | Manifest], description: Description, *, min_class_share: float
) -> tuple[list[Broken], dict[str, Any]]:
    """Run every rule.

    Returns:
        The broken rules, and a report on all rules as plain values. Its `success` is false if a broken rule stops the
        pipeline.
    """
    files = any(isinstance(split, Manifest) for split in splits.values())
    image_rules = label_rules(splits, description) + ([] if files else pixel_rules(description))
    frames = [
        (describe_images(splits, description), image_rules),
        (describe_classes(splits, description), class_rules(min_class_share)),
        (describe_splits(splits, description), split_rules()),
    ]
    broken, report = [], []
    for frame, rules in frames:
        for rule, rows in zip(rules, _run_rules(frame, rules), strict=True):
            images = [_images_of(frame, row, rule.column) for row in rows] if "number" in frame else []
            if "twin" in rule.column:
                rows = [_beside_twin(frame, row, rule.column, description.classes) for row in rows]
            if rows:
                broken.append(Broken(rule.says, rows, rule.stops, images))
            report.append({"rule": rule.says, "column": rule.column, "checked": len(frame), "broken": rows})
    fit = not any(item.stops for item in broken)
    return broken, {"success": fit, "data_sha256": description.sha256, "rules": report}


def _images_of(frame: Any, row: str, column: str) -> list[Place]:
    """The image of a row and, where it breaks a rule on twins, its twin."""
    rows = [row, frame.at[row, column]] if "twin" in column else [row]
    return [Place(frame.at[name, "split"], int(frame.at[name, "number"])) for name in rows]


def _beside_twin(frame: Any, row: str, column: str, classes: list[str]) -> str:
    """An image's name with its twin's, and with both classes where the twin is of another."""
    rows = [row, frame.at[row, column]]
    if column == TWIN_OF_ANOTHER_LABEL:
        rows = [f"{name} of class {class_of(frame.at[name, 'label'], classes)}" for name in rows]
    return " = ".join(rows)


def class_of(label: float, classes: list[str]) -> str:
    """The class that a label stands for; of one that stands for none, the label itself."""
    return classes[int(label)] if label in range(len(classes)) else f"{label:g}"


def _run_rules(frame: pd.DataFrame, rules: list[Rule]) -> list[list[str]]:
    """The names of the rows that break each rule."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations import expectations
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("prepared").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame.reset_index(drop=True)})
    suite = gx.ExpectationSuite(
        name="prepared",
        expectations=[getattr(expectations, rule.expectation)(column=rule.column, **rule.arguments) for rule in rules],
    )
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]}
    validation = batch.validate(suite, result_format=result_format)
    names: list[list[str]] = []
    for rule, result in zip(rules, validation.results, strict=True):
        if result.exception_info and result.exception_info.get("raised_exception"):
            raise RuntimeError(f"the rule '{rule.says}' could not be checked: {result.exception_info}")
        names.append([entry["row"] for entry in result.result.get("unexpected_index_list") or []])
        assert bool(names[-1]) != bool(result.success), f"'{rule.says}' failed without naming a row"
    return names
