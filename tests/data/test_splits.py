"""A source's own splits: their spellings, what is done without a test split, and what is refused."""

import shutil

import numpy as np
import pytest

from components import params
from components.data.expectations import check_expectations
from components.data.prepared import load_split, prepare
from components.data.sources.splits import find_splits
from components.data.validation_split import validation_split
from pipelines import artifacts
from pipelines import prepare as prepare_stage
from pipelines import validate as validate_stage
from tests.support.image_folders import gradient, read, save
from tests.support.workspace import ROOT


@pytest.fixture
def own(pets, tmp_path):
    """A function that copies the pets into folders of these names, each image a little different in each."""

    def make(*names):
        for number, name in enumerate(names):
            for label in ("cat", "dog"):
                for i in range(4):
                    pixels = gradient(20, 30)
                    pixels[..., 2] = 60 * (label == "dog") + 10 * i + number
                    save(tmp_path / "own" / name / label / f"{i}.png", pixels)
        return tmp_path / "own"

    return make


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "Valid", "TEST"), ("TRAIN", "dev", "test")])
def test_three_splits_of_any_spelling_are_read_and_val_is_for_neither_training_nor_certificates(own, names):
    source = read(own(*names), test_share=None)
    assert [len(source.images), len(source.val[0]), len(source.test[0])] == [8, 8, 8]
    assert source.val_paths[0] == f"{names[1]}/cat/0.png"
    assert source.test_paths[0] == f"{names[2]}/cat/0.png"
    train, test, description = prepare(source, "image_folder", test_share=None, enlarge=None, seed=0)
    val = validation_split(source, description)
    assert (len(train), len(val), len(test)) == (8, 8, 8)
    assert len({train.sha256, val.sha256, test.sha256}) == 3
    assert val.labels.tolist() == [0] * 4 + [1] * 4


def test_without_a_test_split_it_is_drawn_from_train_or_the_remedy_is_said(own):
    folder = own("train", "val")
    with pytest.raises(ValueError, match=r"has train and val but no test, and nothing is certified on val") as refusal:
        read(folder, test_share=None)
    assert "give the share of train to hold out as test, or rename val to test" in str(refusal.value)
    source = read(folder, test_share=0.25)
    _, test, description = prepare(source, "image_folder", test_share=0.25, enlarge=None, seed=0)
    assert all(path.startswith("train/") for path in test.paths)
    assert (description.train_images, description.test_images) == (6, 2)
    assert len(validation_split(source, description)) == 8


def test_a_split_twice_or_no_train_is_refused(own, tmp_path):
    with pytest.raises(ValueError, match="Train and train are both the split train: merge or rename one"):
        read(own("Train", "train", "test"), test_share=None)
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(ValueError, match="dev and val are both the split val"):
        read(own("train", "val", "dev"))
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(ValueError, match="has test and val but no train: add it, or rename"):
        read(own("val", "test"), test_share=None)
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(ValueError, match=r"prepare.test_share is 0.25: .* has a test split of its own"):
        read(own("train", "val", "test"))
    shutil.rmtree(tmp_path / "own/val/dog")
    with pytest.raises(ValueError, match="class folders in train or val but not in both: dog"):
        read(tmp_path / "own", test_share=None)


def test_other_names_are_no_splits(tmp_path):
    assert find_splits(["holdout", "cat"], tmp_path) == {}


@pytest.mark.medium
def test_the_stages_store_and_check_a_validation_split_by_name(own, tmp_path, monkeypatch, capsys):
    """An image of val in test, and one of train in val with another label."""
    folder = own("train", "val", "test")
    monkeypatch.chdir(tmp_path)
    recipe = params.load(ROOT / "recipes/image_folder.yaml")
    settings = params.replace(recipe.prepare, root=str(folder), test_share=None, image_size=16)
    recipe = params.replace(recipe, prepare=settings)
    prepare_stage.run(recipe)
    assert "prepared 8 training, 8 validation and 8 test images from image folder" in capsys.readouterr().out
    assert len(load_split(artifacts.VAL_SPLIT)) == 8
    validate_stage.run(recipe)
    assert "13 expectations hold on 24 images" in capsys.readouterr().out
    shutil.copy(folder / "val/cat/1.png", folder / "test/cat/1.png")
    shutil.copy(folder / "train/cat/2.png", folder / "val/dog/2.png")
    prepare_stage.run(recipe)
    with pytest.raises(ValueError, match="not fit for training") as refusal:
        validate_stage.run(recipe)
    said = str(refusal.value)
    assert "test image that is also in val: test image 1 (test/cat/1.png) = val image 1 (val/cat/1.png);" in said
    assert "val image that is also in train: val image 6 (val/dog/2.png) = train image 2 (train/cat/2.png);" in said
    assert (
        "also occurs with another label: val image 6 (val/dog/2.png) of class dog = train image 2 (train/cat/2.png) "
        "of class cat" in said
    )


def test_a_validation_split_changes_no_identity(own):
    source = read(own("train", "val", "test"), test_share=None)
    without = params.replace(source, val=None, val_paths=None)
    descriptions = [prepare(s, "image_folder", test_share=None, enlarge=None, seed=0)[2] for s in (source, without)]
    assert descriptions[0].sha256 == descriptions[1].sha256
    empty = validation_split(without, descriptions[1])
    assert empty.images.shape == (0, 3, 16, 16)
    assert empty.images.dtype == np.uint8


def test_a_class_that_val_lacks_is_named_with_its_count(own):
    source = read(own("train", "val", "test"), test_share=None)
    train, test, description = prepare(source, "image_folder", test_share=None, enlarge=None, seed=0)
    val = validation_split(source, description)
    few = params.replace(val, labels=np.array([0] * 7 + [1]))
    broken, _ = check_expectations({"train": train, "val": few, "test": test}, description, min_class_share=0.5)
    assert [str(item) for item in broken] == ["class with less than 0.5 of a balanced share: val class dog (1 image)"]
