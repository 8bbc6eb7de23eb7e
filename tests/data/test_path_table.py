"""A CSV or Parquet of paths and labels as a source: what it gives, and what is refused by row and file."""

import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from components import params
from components.data.picture_forms import Form
from components.data.sources.path_table import table
from pipelines.operation.worktree import source_state
from tests.support.image_folders import read
from tests.support.workspace import ROOT

OPTIONS = {"test_share": 0.25, "form": Form(3, 16, 16)}


def rows_of(folder):
    """The rows that say what the folders of classes say."""
    return [[path, path.split("/")[0]] for path in read(folder).paths]


def write(folder, rows, columns=("path", "label"), name="pets.csv"):
    frame = pd.DataFrame(rows, columns=list(columns))
    path = folder / name
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["pets.csv", "pets.parquet"])
def test_a_table_is_as_good_as_its_folders(pets, name):
    folder = read(pets)
    source = table(write(pets, [[*row, 7] for row in rows_of(pets)], ("path", "label", "weight"), name), **OPTIONS)
    assert np.array_equal(source.images, folder.images)
    assert (source.classes, source.paths) == (folder.classes, folder.paths)
    assert source.labels.tolist() == folder.labels.tolist()


def test_splits_of_a_table_and_labels_that_are_numbers(pets):
    numbers = {"cat": 10, "dog": 9, "Äffin": 100}
    splits = ["Train", "Train", "dev", "test"] * 3
    rows = [[path, numbers[label], split] for (path, label), split in zip(rows_of(pets), splits, strict=True)]
    for name in ("pets.csv", "pets.parquet"):
        source = table(write(pets, rows, ("path", "label", "split"), name), **OPTIONS | {"test_share": None})
        assert source.classes == ["9", "10", "100"], "by value"
        assert (len(source.images), len(source.val[0]), len(source.test[0])) == (6, 3, 3)
        assert source.val_paths == ["cat/2.jpg", "dog/2.jpg", "Äffin/2.jpg"]
        assert source.test[1].tolist() == [1, 0, 2]


def test_a_table_in_a_folder_and_in_an_archive_is_found(pets, tmp_path):
    expected = table(write(pets, rows_of(pets)), **OPTIONS)
    assert np.array_equal(table(pets, **OPTIONS).images, expected.images)
    shutil.move(pets, tmp_path / "top/pets")
    rows = [[f"pets/{path}", label] for path, label in rows_of_paths(expected)]
    (tmp_path / "top/pets/pets.csv").unlink()
    write(tmp_path / "top", rows)  # beside the only folder
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as packed:
        for path in (tmp_path / "top").rglob("*"):
            packed.write(path, path.relative_to(tmp_path / "top"))
    assert np.array_equal(table(tmp_path / "pets.zip", **OPTIONS).images, expected.images)
    write(tmp_path / "top", rows, name="more.csv")
    with pytest.raises(ValueError, match=r"must be or hold one table, .* it has more.csv, pets.csv"):
        table(tmp_path / "top", **OPTIONS)
    with pytest.raises(ValueError, match="there is no such folder or archive"):
        table(tmp_path / "nowhere.csv", **OPTIONS)


def rows_of_paths(source):
    return [[path, path.split("/")[0]] for path in source.paths]


BAD = {
    "a file that is not there": (["cat/9.jpg", "cat"], r"cat/9.jpg \(no such file\): mend or remove"),
    "a file twice": (["cat/0.jpg", "cat"], r"cat/0.jpg \(stands in the rows 2 and 14, with the label cat\)"),
    "two labels": (["./cat/0.jpg", "dog"], r"cat/0.jpg \(stands in the rows 2 and 14, with the labels cat and dog\)"),
    "upwards": (["cat/../../x.jpg", "cat"], r"x.jpg of row 14 \(leads out of the table's folder"),
    "absolute": (["/etc/hostname", "cat"], r"/etc/hostname of row 14 \(leads out of the table's folder"),
    "no label": (["cat/9.jpg", ""], "label in row 14 is empty: must be a text or a whole number"),
    "no path": ([None, "cat"], "path in row 14 is empty"),
    "two lines": (["cat/a\nb.jpg", "cat"], r"'cat/a\\nb.jpg' of row 14 \(a name with a line break"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", ["pets.csv", "pets.parquet"])
def test_a_bad_row_is_named(pets, row, message, name):
    path = write(pets, [*rows_of(pets), row], name=name)
    with pytest.raises(ValueError, match=message) as refusal:
        table(path, **OPTIONS)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_table_without_what_it_needs_is_refused(pets):
    rows = rows_of(pets)
    with pytest.raises(ValueError, match=r"has no column path nor label: it has file, class: name the columns"):
        table(write(pets, rows, ("file", "class")), **OPTIONS)
    with pytest.raises(ValueError, match="has no rows"):
        table(write(pets, []), **OPTIONS)
    with pytest.raises(ValueError, match="at least two classes: it has cat"):
        table(write(pets, [row for row in rows if row[1] == "cat"]), **OPTIONS)
    split = [[*row, "holdout" if row[1] == "dog" else "train"] for row in rows]
    with pytest.raises(ValueError, match="split in row 6 is 'holdout': must be train, val or test"):
        table(write(pets, split, ("path", "label", "split")), **OPTIONS)
    split = [[*row, "test" if row[1] == "dog" else "train"] for row in rows]
    with pytest.raises(ValueError, match="no train image has the label dog, but others do"):
        table(write(pets, split, ("path", "label", "split")), **OPTIONS | {"test_share": None})
    split = [[*row, name] for row, name in zip(rows, ["train", "Train", "test", "val"] * 3, strict=True)]
    with pytest.raises(ValueError, match="Train and train are both the split train"):
        table(write(pets, split, ("path", "label", "split")), **OPTIONS | {"test_share": None})
    with pytest.raises(ValueError, match=r"label in row 2 is 1.5: must be a text or a whole number"):
        table(write(pets, [[row[0], 1.5] for row in rows], name="pets.parquet"), **OPTIONS)


@pytest.mark.parametrize("name", ["pets.csv", "pets.parquet"])
def test_a_file_that_is_no_table_is_refused(pets, name):
    (pets / name).write_bytes(b"\xff\xfe\x00path,label" * 9)
    with pytest.raises(ValueError, match=f"{name} (cannot be read|has no column)"):
        table(pets / name, **OPTIONS)


def test_a_scheduled_run_notices_a_file_of_the_table(pets):
    recipe = params.load(ROOT / "recipes/image_folder.yaml")
    settings = params.replace(recipe.prepare, source="table", root=str(write(pets, rows_of(pets))))
    recipe = params.replace(recipe, prepare=settings)
    before = source_state(recipe)
    assert source_state(recipe) == before
    (pets / "cat/0.jpg").write_bytes(b"other")
    assert source_state(recipe) != before
