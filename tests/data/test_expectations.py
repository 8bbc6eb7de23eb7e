"""Broken data is found and its rows are named. Several kinds of damage share one check: each check takes a while."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import params
from components.data.expectations import Broken, check_expectations
from components.data.prepared import Split, prepare
from components.data.sources import Source, digits
from pipelines import artifacts
from pipelines import prepare as prepare_stage
from pipelines import validate as validate_stage
from tests.support.image_folders import gradient, save
from tests.support.parsed_page import Parsed

ROOT = Path(__file__).parents[2]


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
    broken, report = check_expectations(splits, prepared[2], min_class_share=0.5)
    assert report["success"] == (not broken)
    return {item.says: item.rows for item in broken}


@pytest.mark.medium
def test_clean_digits_pass_and_the_report_lists_every_rule(prepared):
    train, test, description = prepared
    broken, report = check_expectations({"train": train, "test": test}, description, min_class_share=0.5)
    assert broken == []
    assert report["success"] is True
    assert report["data_sha256"] == description.sha256
    assert len(report["rules"]) == 11
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
        "pixel above 16": ["train image 3"],
        "constant image": ["train image 5"],
        "image without a label": ["train image 7"],
        "label outside the classes 0 to 9": ["train image 11", "train image 15", "train image 19"],
        "test image that is also in train": ["test image 4 = train image 30"],
        "image that also occurs with another label": ["test image 4 of class 2 = train image 30 of class 7"],
        "class with less than 0.5 of a balanced share": ["test class 6 (0 images)"],
    }


def test_images_that_come_from_files_are_named_by_file_and_so_are_their_twins(prepared):
    train, test, _ = prepared
    names = [[f"{part}/{label}/{i}.png" for i, label in enumerate(s.labels)] for part, s in (("a", train), ("b", test))]
    images, test_images = train.images.copy(), test.images.copy()
    images[6] = 3
    images[[9, 13]] = images[8]  # 8 and 9 of class 2, 13 of class 3
    test_images[5] = images[8]  # of class 2 again
    test_images[19] = images[8]  # of class 9
    found = broken_rows(prepared, Split(images, train.labels, names[0]), Split(test_images, test.labels, names[1]))
    assert found == {
        "constant image": ["train image 6 (a/1/6.png)"],
        "test image that is also in train": [
            "test image 5 (b/2/5.png) = train image 8 (a/2/8.png)",
            "test image 19 (b/9/19.png) = train image 8 (a/2/8.png)",
        ],
        "image that also occurs with another label": [
            "train image 13 (a/3/13.png) of class 3 = train image 8 (a/2/8.png) of class 2",
            "test image 19 (b/9/19.png) of class 9 = train image 8 (a/2/8.png) of class 2",
        ],
    }


def test_labels_that_contradict_each_other_in_a_published_set_are_named_and_stop_nothing(prepared):
    train, test, description = prepared
    images = train.images.copy()
    images[39] = images[0]
    splits = {"train": Split(images, train.labels), "test": test}
    broken, report = check_expectations(splits, replace(description, source="cifar10"), min_class_share=0.5)
    assert [str(item) for item in broken] == [
        "image that also occurs with another label: train image 39 of class 9 = train image 0 of class 0"
    ]
    assert report["success"]


def test_arrays_of_the_wrong_form_are_named(prepared):
    train, test, _ = prepared
    cut = Split(test.images[:, :, 1:].astype(np.float32), test.labels)
    short = Split(train.images, train.labels[:-2])
    every = [f"test image {i}" for i in range(20)]
    assert broken_rows(prepared, short, cut) == {
        "image without a label": ["train image 38", "train image 39"],
        "image shape is not [1, 8, 8]": every,
        "pixels are not uint8": every,
        "split size differs from the description": ["train"],
    }


def test_labels_without_images_are_named(prepared):
    train, test, _ = prepared
    found = broken_rows(prepared, Split(train.images[:-1], train.labels), Split(test.images[:-1], test.labels))
    assert found == {"label without an image": ["train image 39", "test image 19"]}


def test_a_long_list_of_rows_is_cut_short():
    rows = [f"train {i}" for i in range(12)]
    assert str(Broken("constant image", rows[:2])) == "constant image: train 0, train 1"
    assert str(Broken("constant image", rows)).endswith("train 8, train 9, ... (12 in all)")


def test_the_stage_names_the_files_of_own_images(tmp_path, monkeypatch):
    """A copy of a file under another name, and a white image."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for part in ("train", "test"):
            (tmp_path / "own" / part / label).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "own" / part / label / f"{i}.png")
    shutil.copy(tmp_path / "own/train/cat/0.png", tmp_path / "own/test/cat/0 (1).png")
    Image.new("RGB", (9, 9), "white").save(tmp_path / "own/test/dog/white.png")
    monkeypatch.chdir(tmp_path)
    recipe = params.load(ROOT / "recipes/image_folder.yaml")
    settings = params.replace(recipe.prepare, root=str(tmp_path / "own"), test_share=None, image_size=8)
    recipe = params.replace(recipe, prepare=settings)
    prepare_stage.run(recipe)
    with pytest.raises(
        ValueError,
        match=r"not fit for training: .*: look at outputs/data/data.html, mend the source, then run dvc repro",
    ) as refusal:
        validate_stage.run(recipe)
    said = str(refusal.value)
    assert (
        "test image that is also in train: test image 0 (test/cat/0 (1).png) = train image 0 (train/cat/0.png);" in said
    )
    assert "constant image: test image 7 (test/dog/white.png):" in said
    assert not (tmp_path / artifacts.VALIDATION).exists()
    page = Parsed((tmp_path / artifacts.DATA_PAGE).read_text(encoding="utf-8"))
    for named in (
        "test image 0, of class cat, test/cat/0 (1).png",
        "train image 0, of class cat, train/cat/0.png",
        "test image 7, of class dog, test/dog/white.png",
    ):
        assert named in page.alts


@pytest.fixture
def in_files(imagenet_root, tmp_path, monkeypatch):
    """The recipe of prepared image files, of which those of the test split are alike in all classes."""
    monkeypatch.chdir(tmp_path)
    for path in imagenet_root.glob("val/*/*"):
        save(path, 255 - gradient(40, 30 + int(path.stem)))
    recipe = params.load(ROOT / "recipes/imagenet.yaml")
    recipe = params.replace(recipe, prepare=params.replace(recipe.prepare, root=str(imagenet_root)))
    prepare_stage.run(recipe)
    return recipe


def test_images_that_stay_in_files_are_shown_and_one_that_has_gone_is_named(in_files, imagenet_root):
    (imagenet_root / "train/cat/0.jpg").unlink()
    validate_stage.run(in_files)
    page = Parsed(artifacts.DATA_PAGE.read_text(encoding="utf-8"))
    assert "test image 4, of class dog, val/dog/0.jpg" in page.alts
    assert f"{imagenet_root / 'train/cat/0.jpg'}: no such file" in page.text["samples"]


@pytest.mark.medium
def test_other_sigmas_change_the_page_and_not_what_the_training_depends_on(in_files):
    validate_stage.run(in_files)
    report, page = artifacts.VALIDATION.read_bytes(), artifacts.DATA_PAGE.read_text(encoding="utf-8")
    validate_stage.run(params.replace(in_files, noise_levels={"0.125": {}}))
    assert artifacts.VALIDATION.read_bytes() == report
    assert "σ 0.125" in artifacts.DATA_PAGE.read_text(encoding="utf-8")
    assert "σ 0.125" not in page
