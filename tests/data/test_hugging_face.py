"""A data set of Hugging Face's library as a source. The library is an extra, so most of these need it installed."""

import io
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from components import params
from components.data.picture_forms import Form
from components.data.prepared import prepare
from components.data.sources import SOURCES
from components.data.sources.hugging_face import huggingface
from tests.support.image_folders import read

OPTIONS = {"test_share": None, "form": Form(3, 16, 16)}


def saved(folder, pets, splits=("train", "test")):
    """The pets as a saved data set: the first three of each class in each split but test, the last one in test."""
    datasets = pytest.importorskip("datasets")
    source = read(pets)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=source.classes), "id": datasets.Value("string")}
    )
    parts = {}
    for split in splits:
        chosen = [i for i in range(12) if (i % 4 == 3) == (split == "test")]
        rows = {
            "image": [Image.open(pets / source.paths[i]) for i in chosen],
            "label": source.labels[chosen].tolist(),
            "id": [source.paths[i] for i in chosen],
        }
        parts[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return folder


def test_without_the_library_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="the library datasets is not installed: uv pip install datasets"):
        huggingface(None, tmp_path, download=False, **OPTIONS)


def test_a_saved_data_set_gives_the_pictures_of_its_files(pets, tmp_path):
    source = huggingface(None, saved(tmp_path / "saved", pets), download=False, **OPTIONS)
    folder = read(pets)
    is_test = np.arange(12) % 4 == 3
    assert source.classes == folder.classes
    assert source.labels.tolist() == folder.labels[~is_test].tolist()
    assert source.paths[3] == "train image 3 of the source"
    assert np.abs(source.test[0].astype(int) - folder.images[is_test]).mean() < 3, "the library writes JPEGs anew"


def test_the_splits_go_by_their_usual_names_and_one_data_set_is_split(pets, tmp_path):
    three = saved(tmp_path / "saved", pets, ("train", "validation", "test"))
    source = huggingface(None, three, download=False, **OPTIONS)
    assert [len(source.images), len(source.val[0]), len(source.test[0])] == [9, 9, 3]
    settings = params.Prepare(
        source="huggingface", root=str(three / "train"), test_share=0.34, image_size=16, channels=1
    )
    source = SOURCES["huggingface"](settings, three / "train")
    _, test, description = prepare(source, "huggingface", test_share=0.34, enlarge=None, seed=0)
    assert (description.image_shape, description.train_images, len(test)) == ([1, 16, 16], 6, 3)
    assert test.paths[0].startswith("train image ")
    assert test.paths[0].endswith(" of the source")


def test_pictures_of_16_bits_are_kept_at_16_and_others_widened(tmp_path):
    datasets = pytest.importorskip("datasets")
    deep, flat = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16), np.full((16, 16), 7, dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    parts = {}
    for split, pictures in {"train": [flat, deep], "test": [flat]}.items():
        cells = [{"bytes": png(picture), "path": None} for picture in pictures]
        labels = list(range(len(cells)))
        parts[split] = datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    options = OPTIONS | {"form": Form(1, 16, 16)}
    source = huggingface(None, tmp_path / "saved", download=False, **options)
    assert source.max_value == 65535
    assert source.images.dtype == np.uint16
    assert np.array_equal(source.images[1][0], deep)
    assert np.array_equal(source.test[0][0][0], flat * np.uint16(257))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_an_archive_of_it_is_as_good(pets, tmp_path):
    folder = saved(tmp_path / "saved", pets)
    with zipfile.ZipFile(tmp_path / "saved.zip", "w") as packed:
        for path in folder.rglob("*"):
            packed.write(path, path.relative_to(folder.parent))
    found, expected = (huggingface(None, root, download=False, **OPTIONS) for root in (tmp_path / "saved.zip", folder))
    assert np.array_equal(found.images, expected.images)


def test_what_is_no_saved_data_set_is_refused(pets, tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="there is no such folder or archive"):
        huggingface(None, tmp_path / "nowhere", download=False, **OPTIONS)
    with pytest.raises(ValueError, match="no folder of save_to_disk"):
        huggingface(None, pets, download=False, **OPTIONS)
    folder = saved(tmp_path / "saved", pets)
    for path in folder.rglob("*.arrow"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"saved cannot be read \(.*\): save the data set again") as refusal:
        huggingface(None, folder, download=False, **OPTIONS)
    assert "\n" not in str(refusal.value)


def test_a_name_that_cannot_be_fetched_is_refused_in_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def offline(name):
        raise ConnectionError(f"Couldn't reach\n{name}")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"'no/such': could not be fetched \(Couldn't reach no/such\): save it") as no:
        huggingface("no/such", None, download=True, **OPTIONS)
    assert "\n" not in str(no.value)


def test_rows_and_columns_that_cannot_be_used_are_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    pixels = [Image.fromarray(np.full((9, 9, 3), i, np.uint8)) for i in range(4)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    good = datasets.Dataset.from_dict({"img": pixels, "label": [0, 1, 0, 1]}, features=features)

    def message(found):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        found.save_to_disk(str(tmp_path / "saved"))
        with pytest.raises(ValueError) as refusal:  # noqa: PT011
            huggingface(None, tmp_path / "saved", download=False, **OPTIONS | {"test_share": 0.5})
        return str(refusal.value)

    hidden = datasets.Dataset.from_dict({"img": [*pixels[:3], None], "label": [0, 1, 0, -1]}, features=features)
    said = message(hidden)
    assert "train image 3 (label -1, outside the classes 0 to 1)" in said
    assert "train image 3 of the source (no image)" in said
    assert (
        "has 0 columns of ClassLabel: it needs one, or one called label: it has img (Image), label (Value)"
        in message(good.cast_column("label", datasets.Value("int64")))
    )
    assert "has 0 columns of Image" in message(good.remove_columns("img"))
    broken = datasets.Dataset.from_dict(
        {"img": [{"bytes": b"no", "path": None}] * 2, "label": [0, 1]}, features=features
    )
    assert "train image 0 of the source (not an image of a known format" in message(broken)
    assert "has the splits a, b: none of them is train" in message(datasets.DatasetDict({"a": good, "b": good}))
    assert json.loads((tmp_path / "saved/dataset_dict.json").read_text())["splits"] == ["a", "b"]
