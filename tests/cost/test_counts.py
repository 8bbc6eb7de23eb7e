"""How many images there are, before any is read."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.cost.counts import Counts, count
from components.data.sources.published import digits
from components.prepare import Prepare

OWN = Prepare("image_folder", root="pictures", image_size=16, channels=3)


def fill(folder, **numbers):
    for name, number in numbers.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            (folder / name / f"{i}.png").touch()
        (folder / name / ".DS_Store").touch()
    return folder


def test_a_folder_is_counted_and_split_by_the_share(tmp_path):
    fill(tmp_path, cat=30, dog=20)
    assert count(replace(OWN, test_share=0.2), tmp_path) == Counts(40, 10, 2)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "VAL")])
def test_a_folder_with_a_test_split_keeps_it(tmp_path, names):
    fill(tmp_path / names[0], cat=7, dog=5)
    fill(tmp_path / names[1], cat=2, dog=1)
    assert count(OWN, tmp_path) == Counts(12, 3, 2)


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, train=6, bus=4)
    assert count(replace(OWN, test_share=0.5), tmp_path) == Counts(5, 5, 2)


def test_the_sizes_of_built_in_sets_are_known():
    images = len(digits().images)
    found = count(Prepare("digits", test_share=0.25, enlarge=2), Path())
    assert found.train + found.test == images
    assert found.test == pytest.approx(images / 4, abs=1)
    assert count(Prepare("mnist", download=True), Path()) == Counts(60_000, 10_000, 10)


def test_what_cannot_be_counted_says_so(tmp_path):
    (archive := tmp_path / "pictures.tar.gz").touch()
    (empty := tmp_path / "empty").mkdir()
    for root, words in (
        (tmp_path / "none", "no such folder"),
        (archive, "dvc repro prepare"),
        (empty, "one per class"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            count(replace(OWN, test_share=0.2), root)
        assert f"prepare.root is {root}" in str(raised.value)
