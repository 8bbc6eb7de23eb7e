"""Broken data is found and its rows are named. Several kinds of damage share one check: each check takes a while."""

import numpy as np
import pytest

from components.data.expectations import Broken, check
from components.data.prepared import Split, prepare
from components.data.sources import Source, digits


@pytest.fixture(scope="module")
def prepared():
    """Six images of each digit, of which two are for testing."""
    source = digits()
    rows = np.concatenate([np.flatnonzero(source.labels == label)[:6] for label in range(10)])
    few = Source(source.images[rows], source.labels[rows], source.classes, source.max_value, "digits, shortened")
    return prepare(few, "digits", test_share=1 / 3, enlarge=1, seed=0)


def broken_rows(prepared, train=None, test=None):
    """What is broken, by rule, and the report."""
    splits = {"train": train or prepared[0], "test": test or prepared[1]}
    broken, report = check(splits, prepared[2], min_class_share=0.5)
    assert report["success"] == (not broken)
    return {item.says: item.rows for item in broken}


def test_clean_digits_pass_and_the_report_lists_every_rule(prepared):
    train, test, description = prepared
    broken, report = check({"train": train, "test": test}, description, min_class_share=0.5)
    assert broken == []
    assert report["success"] is True
    assert report["data_sha256"] == description.sha256
    assert len(report["rules"]) == 10
    assert {rule["checked"] for rule in report["rules"]} == {60, 20, 2}


def test_damaged_images_and_labels_are_named(prepared):
    train, test, _ = prepared
    images, labels = train.images.copy(), train.labels.astype(float)
    images[3, 0, 2, 2] = 17
    images[5] = 8
    labels[[7, 11, 15, 19]] = [np.nan, 10, -1, 1.5]  # one of each class
    test_images, test_labels = test.images.copy(), test.labels.copy()
    test_images[4] = train.images[30]
    test_labels[test_labels == 6] = 5
    found = broken_rows(prepared, Split(images, labels), Split(test_images, test_labels))
    assert found == {
        "pixel above 16": ["train 3"],
        "constant image": ["train 5"],
        "image without a label": ["train 7"],
        "label outside the classes 0 to 9": ["train 11", "train 15", "train 19"],
        "test image that is also in train": ["test 4"],
        "class with less than 0.5 of a balanced share": ["test class 6"],
    }


def test_arrays_of_the_wrong_form_are_named(prepared):
    train, test, _ = prepared
    cut = Split(test.images[:, :, 1:].astype(np.float32), test.labels)
    short = Split(train.images, train.labels[:-2])
    every = [f"test {i}" for i in range(20)]
    assert broken_rows(prepared, short, cut) == {
        "image without a label": ["train 38", "train 39"],
        "image shape is not [1, 8, 8]": every,
        "pixels are not uint8": every,
        "split of another size than described": ["train"],
    }


def test_labels_without_images_are_named(prepared):
    train, test, _ = prepared
    found = broken_rows(prepared, Split(train.images[:-1], train.labels), Split(test.images[:-1], test.labels))
    assert found == {"label without an image": ["train 39", "test 19"]}


def test_a_long_list_of_rows_is_cut_short():
    rows = [f"train {i}" for i in range(12)]
    assert str(Broken("constant image", rows[:2])) == "constant image: train 0, train 1"
    assert str(Broken("constant image", rows)).endswith("train 8, train 9, ... (12 in all)")
