"""Prepared data: a fixed, stratified split of whole pixels, stored as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.data.prepared import (
    load_description,
    load_split,
    prepare,
    save_description,
    save_split,
)
from components.data.sources import digits
from components.data.streaming import to_unit_interval


@pytest.fixture(scope="module")
def source():
    return digits()


@pytest.fixture(scope="module")
def prepared(source):
    return prepare(source, "digits", test_share=0.25, enlarge=2, seed=0)


def spoilt(source, rows, value):
    images = source.images.astype(float)
    images[rows, 0, 3, 4] = value
    return replace(source, images=images)


def test_the_digits_are_what_they_say(source):
    assert source.images.shape == (1797, 1, 8, 8)
    assert (source.images.min(), source.images.max(), source.max_value) == (0, 16, 16)
    assert source.classes == list("0123456789")
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_is_stratified_by_class(source, prepared):
    train, test, _ = prepared
    counts = np.bincount(source.labels)
    assert np.bincount(test.labels).tolist() == [round(0.25 * count) for count in counts]
    assert (np.bincount(train.labels) + np.bincount(test.labels)).tolist() == counts.tolist()


def test_every_image_is_in_exactly_one_split_with_its_own_label_in_the_source_s_order(source):
    """The split knows no pixels: a source whose pixels say the image's number shows where each image goes."""
    numbers = np.arange(1797)
    images = np.stack([numbers // 256, numbers % 256], axis=-1).reshape(1797, 1, 1, 2)
    numbered = replace(source, images=images, max_value=255)
    train, test, _ = prepare(numbered, "numbered", test_share=0.25, enlarge=1, seed=0)
    where = [split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 0, 1] for split in (train, test)]
    assert sorted(np.concatenate(where)) == list(range(1797))
    for split, rows in zip((train, test), where, strict=True):
        assert (np.diff(rows) > 0).all()
        assert np.array_equal(split.labels, source.labels[rows])


def test_the_split_is_fixed_by_its_seed(source, prepared):
    again = prepare(source, "digits", test_share=0.25, enlarge=2, seed=0)
    other = prepare(source, "digits", test_share=0.25, enlarge=2, seed=1)
    assert again[2] == prepared[2]
    assert other[2].test_sha256 != prepared[2].test_sha256


def test_pixels_are_enlarged_by_replication(source, prepared):
    train, test, description = prepared
    small_train, small_test, _ = prepare(source, "digits", test_share=0.25, enlarge=1, seed=0)
    assert np.array_equal(train.images, np.kron(small_train.images, np.ones((2, 2), dtype=np.uint8)))
    assert np.array_equal(test.images, np.kron(small_test.images, np.ones((2, 2), dtype=np.uint8)))
    assert description.image_shape == [1, 16, 16]


def test_images_are_whole_sixteenths_in_the_unit_interval(prepared):
    train, _, description = prepared
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    images = to_unit_interval(torch.from_numpy(train.images), description.max_value)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal((images * 16).round(), images * 16)


def test_the_description_says_what_the_arrays_hold(prepared):
    train, test, description = prepared
    assert (description.train_images, description.test_images) == (len(train.images), len(test.images)) == (1347, 450)
    assert (description.train_sha256, description.test_sha256) == (train.sha256, test.sha256)
    assert description.classes == list("0123456789")
    assert (description.source, description.max_value, description.mean, description.std) == ("digits", 16, None, None)


def test_a_split_s_hash_is_of_pixels_labels_and_shape(prepared):
    _, test, _ = prepared
    images, labels = test.images.copy(), test.labels.copy()
    images[7, 0, 2, 2] ^= 1
    labels[7] += 1
    others = [replace(test, images=images), replace(test, labels=labels), replace(test, images=test.images[:, :, ::-1])]
    others.append(replace(test, images=test.images.reshape(-1, 1, 8, 32)))
    assert len({test.sha256, *(split.sha256 for split in others)}) == 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused_by_row(source, bad):
    with pytest.raises(ValueError, match=r"digits: pixels that are not finite in 2 image\(s\), rows 3, 1700:"):
        prepare(spoilt(source, [3, 1700], bad), "digits", test_share=0.25, enlarge=1, seed=0)


@pytest.mark.parametrize("bad", [0.5, -1, 17])
def test_pixels_that_are_no_whole_numbers_in_range_are_refused_by_row(source, bad):
    with pytest.raises(ValueError, match=r"not whole numbers in \[0, 16\] in 1 image\(s\), rows 42:"):
        prepare(spoilt(source, [42], bad), "digits", test_share=0.25, enlarge=1, seed=0)


def test_a_long_list_of_rows_is_cut_short(source):
    with pytest.raises(ValueError, match=r"in 30 image\(s\), rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\."):
        prepare(spoilt(source, range(30), 0.5), "digits", test_share=0.25, enlarge=1, seed=0)


def test_a_test_split_of_its_own_is_kept_and_checked(source):
    own = replace(source, test=(source.images[:5].astype(float), source.labels[:5]))
    train, test, description = prepare(own, "digits", test_share=None, enlarge=2, seed=0)
    assert (len(train), len(test)) == (description.train_images, description.test_images) == (1797, 5)
    assert np.array_equal(test.images, train.images[:5])
    assert np.array_equal(test.image(3), test.images[3])
    own.test[0][2, 0, 0, 0] = 0.5
    with pytest.raises(ValueError, match=r"digits \(test\): pixels that are not whole numbers .* rows 2:"):
        prepare(own, "digits", test_share=None, enlarge=None, seed=0)


def test_normalisation_passes_from_the_source_to_the_description(source):
    own = replace(source, mean=[0.3], std=[0.2])
    *_, description = prepare(own, "digits", test_share=0.25, enlarge=1, seed=0)
    assert (description.mean, description.std) == ([0.3], [0.2])


# --- files -------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path, prepared):
    _, test, description = prepared
    save_split(test, tmp_path / "test")
    save_description(description, tmp_path / "description.json")
    loaded = load_split(tmp_path / "test")
    assert np.array_equal(loaded.images, test.images)
    assert np.array_equal(loaded.labels, test.labels)
    assert loaded.sha256 == test.sha256
    assert load_description(tmp_path / "description.json") == description


def test_the_files_of_images_travel_with_them_and_change_no_identity(tmp_path, source, prepared):
    names = [f"{label}/{i} \u2028é.png" for i, label in enumerate(source.labels)]
    train, test, description = prepare(replace(source, paths=names), "digits", test_share=0.25, enlarge=2, seed=0)
    assert description == prepared[2]
    assert sorted([*train.paths, *test.paths]) == sorted(names)
    for split in (train, test):
        assert [int(path.split("/")[0]) for path in split.paths] == split.labels.tolist()
    save_split(test, tmp_path)
    assert load_split(tmp_path).paths == test.paths
    (tmp_path / "paths.txt").write_text("a.png\n")
    with pytest.raises(ValueError, match=r"paths.txt names 1 file for 450 images: run the prepare stage again"):
        load_split(tmp_path)


def test_images_without_files_are_saved_as_two_arrays_alone(tmp_path, prepared):
    save_split(prepared[1], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "labels.npy"]
    assert load_split(tmp_path).paths is None


def test_the_digits_are_those_of_earlier_results(prepared):
    assert prepared[2].train_sha256 == "3d3da29edd86ad71d17fa153d0f8e884926a3e37f27693081b00507de7e6d5d1"
    assert prepared[2].test_sha256 == "4ecbd983af77cd6d285845b436b9f5248ac782ea339242aacd9126412f000ef1"


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("keep", [0, 40, 1000])
def test_a_torn_array_is_refused_by_name(tmp_path, prepared, name, keep):
    save_split(prepared[1], tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} cannot be read .* run the prepare stage again"):
        load_split(tmp_path)


def test_missing_or_torn_files_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"images\.npy cannot be read"):
        load_split(tmp_path)
    (tmp_path / "description.json").write_text('{"source": "dig')
    with pytest.raises(ValueError, match=r"description\.json cannot be read .* run the prepare stage again"):
        load_description(tmp_path / "description.json")
