"""Arrays of images and labels as a source: MedMNIST's form and plain ones, and what is refused."""

import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from components.data.prepared import prepare
from components.data.sources import array_files as module
from components.data.sources.array_files import arrays, shape_of_arrays
from tests.support.image_folders import read, save

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (12, 9, 8, 3), dtype=np.uint8), np.arange(12) % 3
MEDMNIST = {
    f"{split}_{kind}": array
    for split, rows in (("train", slice(0, 6)), ("val", slice(6, 9)), ("test", slice(9, 12)))
    for kind, array in (("images", IMAGES[rows]), ("labels", LABELS[rows, None].astype(np.uint8)))
}


@pytest.fixture
def npz(tmp_path):
    """Saves arrays under one path."""

    def save(**found):
        np.savez(tmp_path / "own.npz", **found)
        return tmp_path / "own.npz"

    return save


def test_medmnist_s_form_is_read_with_its_splits(npz):
    path = npz(**MEDMNIST)
    source = arrays(path, test_share=None)
    assert np.array_equal(source.images, IMAGES[:6].transpose(0, 3, 1, 2))
    assert [part[1].tolist() for part in (source.val, source.test)] == [[0, 1, 2], [0, 1, 2]]
    assert source.classes == ["0", "1", "2"]
    assert source.paths is None, "train image 7 is the source's too"
    assert shape_of_arrays(path) == (3, 9, 8)


def test_plain_arrays_are_split_and_images_keep_the_source_s_number(npz):
    path = npz(images=IMAGES[..., 0].astype(float), labels=LABELS, classes=np.array(["a", "ä", "c"]))
    source = arrays(path, test_share=0.25)
    _, test, description = prepare(source, "arrays", test_share=0.25, enlarge=None, seed=0)
    assert (description.classes, description.image_shape) == (["a", "ä", "c"], [1, 9, 8])
    numbers = [int(path.removeprefix("image ").removesuffix(" of the source")) for path in test.paths]
    assert np.array_equal(test.images[:, 0], IMAGES[numbers, ..., 0])


def test_a_folder_of_npy_files_and_archives_are_as_good(npz, tmp_path):
    expected = arrays(npz(**MEDMNIST), test_share=None)
    (tmp_path / "loose").mkdir()
    for name, array in MEDMNIST.items():
        np.save(tmp_path / "loose" / f"{name}.npy", array)
    with zipfile.ZipFile(tmp_path / "loose.zip", "w") as packed:
        for path in (tmp_path / "loose").iterdir():
            packed.write(path, path.name)
    with tarfile.open(tmp_path / "own.tgz", "w:gz") as packed:
        packed.add(tmp_path / "own.npz", "own.npz")
    for root in ("loose", "loose.zip", "own.tgz"):
        assert np.array_equal(arrays(tmp_path / root, test_share=None).test[0], expected.test[0])
    np.savez(tmp_path / "loose/more.npz", **MEDMNIST)
    with pytest.raises(ValueError, match=r"must hold one .npz, or .npy files: it has 1 and 6"):
        arrays(tmp_path / "loose", test_share=None)


DEEP = RNG.integers(0, 65536, (12, 16, 16), dtype=np.uint16)


def test_arrays_of_16_bits_are_prepared_as_pictures_of_16_bits_are(npz, tmp_path):
    """Beside them, a test split of 8 bits is widened, as pictures are."""
    shallow = IMAGES[:, :8, :8, 0].repeat(2, axis=1).repeat(2, axis=2)
    for split, images in {"train": DEEP, "test": shallow}.items():
        for i, image in enumerate(images):
            save(tmp_path / "files" / split / str(LABELS[i]) / f"{i:02d}.png", image, mode=Image.fromarray(image).mode)
    order = np.argsort(LABELS, kind="stable")  # the files come by class
    found = {"train_images": DEEP[order], "test_images": shallow[order]}
    labels = {"train_labels": LABELS[order], "test_labels": LABELS[order]}
    sources = [arrays(npz(**found, **labels), test_share=None), read(tmp_path / "files", test_share=None, channels=1)]
    ours, theirs = (prepare(source, "own", test_share=None, enlarge=None, seed=0) for source in sources)
    assert ours[2].max_value == 65535
    assert (ours[0].images.dtype, ours[1].images.dtype) == (np.uint16, np.uint16)
    assert [split.sha256 for split in ours[:2]] == [split.sha256 for split in theirs[:2]]
    assert replace(ours[2], origin="image folder").sha256 == theirs[2].sha256


def test_the_order_of_the_bytes_of_16_bits_does_not_matter(npz):
    sources = [arrays(npz(images=DEEP.astype(kind), labels=LABELS), test_share=0.25) for kind in ("<u2", ">u2")]
    one, other = (prepare(source, "own", test_share=0.25, enlarge=None, seed=0)[2] for source in sources)
    assert one == other
    assert one.pixel_type == "uint16"


GOOD = {"images": IMAGES, "labels": LABELS}
SPLIT = {name: array for name, array in MEDMNIST.items() if not name.startswith("val")}
BAD = {
    "no images": ({"x": IMAGES}, "has no images nor train_images: it has x: rename the arrays"),
    "no labels": ({"images": IMAGES}, "has no labels: it has images: add or rename the array"),
    "no test labels": ({**SPLIT, "test_labels": None}, "has no test_labels: it has train_images"),
    "fewer labels": (GOOD | {"labels": LABELS[:-1]}, "labels has 11 labels for 12 images: give one for each"),
    "one-hot labels": (GOOD | {"labels": np.eye(3)[LABELS]}, r"labels has the shape \(12, 3\): must be \(N,\) or"),
    "a label below": (GOOD | {"labels": LABELS - 1}, "4 labels are outside the classes 0 to 1: image 0 \\(-1\\)"),
    "a label above": (
        GOOD | {"classes": np.array(["a", "b"])},
        r"4 labels are outside the classes 0 to 1: image 2 \(2\), image 5 \(2\), .*: mend the labels",
    ),
    "a test label above": (
        SPLIT | {"test_labels": np.array([0, 1, 9])},
        r"1 label is outside the classes 0 to 2: test image 2 \(9\)",
    ),
    "half a label": (GOOD | {"labels": LABELS + 0.5}, "labels 0 is 0.5: must be a whole number"),
    "labels of text": (GOOD | {"labels": LABELS.astype(str)}, "labels is of <U21: must be whole numbers"),
    "one class": (GOOD | {"labels": 0 * LABELS}, "the largest label of train is 0: must be from 1 to 9999"),
    "an empty class": (GOOD | {"labels": 2 * LABELS}, "no image of train is of class 1, 3: add some, or number"),
    "pictures in a row": (GOOD | {"images": IMAGES.reshape(12, -1)}, r"images has the shape \(12, 216\): must be"),
    "channels first": (GOOD | {"images": IMAGES.transpose(0, 3, 1, 2)}, "channels go last, as"),
    "no image": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"images has the shape \(0, 9, 8, 3\): must be"),
    "a unit scale": (GOOD | {"images": IMAGES / 255}, "has no value above 1: multiply by 255, round and save as uint8"),
    "a dark uint16": (
        GOOD | {"images": IMAGES.astype(np.uint16)},
        "images is of uint16, whose white is 65535, and has no value above 255: save it as uint8",
    ),
    "types that do not go together": (
        SPLIT
        | {"test_images": MEDMNIST["test_images"].astype(np.uint16) * 257, "train_images": IMAGES[:6].astype(int)},
        "train_images is of int64 beside images of uint16: save it as uint16 or uint8",
    ),
    "no numbers": (GOOD | {"images": IMAGES > 9}, "images is of bool: must be numbers from 0 to 255, or uint16"),
    "other sizes": (SPLIT | {"test_images": MEDMNIST["test_images"][:, 1:]}, "images of test are .* bring them to one"),
    "two forms": (SPLIT | GOOD, "has images beside train_images: keep one form"),
    "objects": (GOOD | {"labels": LABELS.astype(object)}, "labels holds Python objects, which are pickles and never"),
}


@pytest.mark.parametrize(("found", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_named(npz, found, message):
    path = npz(**{name: array for name, array in found.items() if array is not None})
    with pytest.raises(ValueError, match=message) as refusal:
        arrays(path, test_share=None if "train_images" in found else 0.25)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


def test_pixels_out_of_range_are_named_by_the_prepare_stage(npz):
    images = IMAGES.astype(float)
    images[4, 0, 0, 0] = 300
    source = arrays(npz(images=images, labels=LABELS), test_share=0.25)
    with pytest.raises(ValueError, match=r"whole numbers in \[0, 255\] in 1 image\(s\), rows 4"):
        prepare(source, "arrays", test_share=0.25, enlarge=None, seed=0)


@pytest.mark.parametrize("keep", [0, 0.3, 0.7, 0.99])
def test_a_torn_npz_is_refused(npz, keep):
    path = npz(**GOOD)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"own.npz cannot be read \(.*\): save it again"):
        arrays(path, test_share=0.25)


def test_an_npz_with_a_turned_bit_is_refused(npz):
    path = npz(**GOOD)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"own.npz cannot be read \(Bad CRC-32"):
        arrays(path, test_share=0.25)


@pytest.mark.parametrize("keep", [0, 50, 1000])
def test_a_torn_npy_is_refused(tmp_path, keep):
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "images.npy").write_bytes((tmp_path / "images.npy").read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"images(.npy of .* cannot be read| is torn).*: save it again"):
        arrays(tmp_path, test_share=0.25)
    with pytest.raises(ValueError, match="one array is no data set: give the folder"):
        arrays(tmp_path / "images.npy", test_share=0.25)


def test_an_array_that_unpacks_to_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((4000, 64, 64), np.uint8), labels=np.arange(4000) % 2)
    assert path.stat().st_size < 2**17
    monkeypatch.setattr(module, "usable_memory", lambda: 2**24)
    with pytest.raises(ValueError, match="images of 15 MiB are more than a third of the 16 MiB of memory"):
        arrays(path, test_share=0.25)
