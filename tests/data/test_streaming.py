"""Images decoded on the fly: the usual views, a function of (seed, epoch, image), of the files that were prepared."""

import copy
from collections import Counter
from hashlib import sha256
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import CenterCrop, Compose, RandomResizedCrop, Resize

from components.data.expectations import check_expectations
from components.data.manifest import Manifest, load_manifest
from components.data.prepared import Split, prepare, save_split
from components.data.sources import imagenet
from components.data.streaming import FileSplit, TrainingView, draw_crop, open_split
from components.model import networks
from components.training.fit import fit
from components.training.optimizer import make_optimizer
from components.training.preparation import TrainingImages
from components.training.state import Training

SIZES = [(300, 260), (240, 500), (40, 30), (640, 200)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of four PNGs each in train and in val."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("imagenet")
    for part in ("train", "val"):
        for name in ("n01", "n02"):
            (root / part / name).mkdir(parents=True)
            for i, (width, height) in enumerate(SIZES):
                coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
                coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def prepared(root):
    return prepare(imagenet(root), "imagenet", test_share=None, enlarge=None, seed=0)


@pytest.fixture
def split(root, prepared, tmp_path):
    save_split(prepared[0], tmp_path / "split")
    return open_split(tmp_path / "split", root)


def test_both_forms_of_a_split_answer_the_same_questions(split, root, tmp_path):
    arrays = Split(np.stack([split.image(i) for i in range(8)]), split.labels)
    save_split(arrays, tmp_path / "arrays")
    for other in (split, open_split(tmp_path / "arrays")):
        assert len(other) == 8
        assert other.labels.tolist() == [0] * 4 + [1] * 4
        assert len(other.sha256) == 64
        assert (other.image(5).dtype, other.image(5).shape) == (np.uint8, (3, 224, 224))
        assert np.array_equal(other.image(5), split.image(5))
    with pytest.raises(ValueError, match=r"prepare\.root is null"):
        open_split(tmp_path / "split")


def test_the_test_view_is_torchvision_s(split, root):
    view = Compose([Resize(256), CenterCrop(224)])
    for i, path in enumerate(split.manifest.paths):
        expected = np.asarray(view(Image.open(root / path))).transpose(2, 0, 1)
        assert np.array_equal(split.image(i), expected)


def test_a_training_view_depends_on_seed_epoch_and_image_alone(split):
    view = split.training_image(1, seed=3, epoch=5)
    assert view.dtype == np.uint8
    assert view.shape == (3, 224, 224)
    split.training_image(2, seed=3, epoch=5)
    assert np.array_equal(split.training_image(1, seed=3, epoch=5), view)
    for seed, epoch in ((4, 5), (3, 6)):
        assert not np.array_equal(split.training_image(1, seed=seed, epoch=epoch), view)


def test_any_order_and_number_of_workers_gives_the_same_views(split):
    view = TrainingView(split, seed=0, epoch=2)
    order = [5, 0, 7, 2]
    images, labels = next(iter(DataLoader(view, batch_size=4, sampler=order, num_workers=2)))
    assert labels.tolist() == [1, 0, 1, 0]
    for i, image in zip(order, images, strict=True):
        assert torch.equal(image, view[i][0])


def test_half_of_the_training_views_are_mirrored(split, root, tmp_path):
    """An image that is black on the left and white on the right."""
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels[:, 50:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    manifest = Manifest(["half.png"], np.array([0]), [sha256((tmp_path / "half.png").read_bytes()).hexdigest()])
    views = [FileSplit(manifest, tmp_path).training_image(0, seed=0, epoch=epoch) for epoch in range(400)]
    steps = Counter(np.sign(int(view[0, 0, -1]) - int(view[0, 0, 0])) for view in views)
    assert abs(steps[1] - steps[-1]) < 4 * np.sqrt(steps[1] + steps[-1])
    assert steps[1] + steps[-1] > 200


@pytest.mark.medium
@pytest.mark.parametrize("size", [(300, 260), (1000, 20), (20, 1000), (1, 1)])
def test_random_crops_are_distributed_as_torchvision_s(size):
    """Means of area and aspect over 4000 crops of each, within four standard errors; every crop lies in the image."""
    width, height = size
    rng, image = np.random.default_rng(0), torch.zeros(1, height, width)
    torch.manual_seed(0)
    ours = np.array([draw_crop(rng, width, height) for _ in range(4000)], dtype=float)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(4000)], dtype=float
    )
    left, top, crop_width, crop_height = ours.T
    assert (np.minimum(left, top) >= 0).all()
    assert (left + crop_width <= width).all()
    assert (top + crop_height <= height).all()
    for mine, other in zip((left, top, crop_width, crop_height), theirs[:, [1, 0, 3, 2]].T, strict=True):
        error = np.hypot(mine.std(), other.std()) / np.sqrt(4000)
        assert abs(mine.mean() - other.mean()) <= 4 * error + 1e-9


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "not the file that was prepared"),
        (lambda path: path.write_bytes(b""), "empty file"),
    ],
    ids=["missing", "changed", "empty"],
)
def test_a_file_that_is_not_the_one_prepared_is_named(split, root, damage, message):
    path = root / split.manifest.paths[3]
    before = path.read_bytes()
    try:
        damage(path)
        for read in (lambda: split.image(3), lambda: split.training_image(3, seed=0, epoch=0)):
            with pytest.raises(ValueError, match=f"train/n01/3.png: {message}: put it back"):
                read()
    finally:
        path.write_bytes(before)


# --- manifests ---------------------------------------------------------------------------------------------------


def test_a_saved_manifest_is_loaded_and_hashed_the_same(prepared, tmp_path):
    prepared[0].save(tmp_path)
    loaded = load_manifest(tmp_path)
    assert loaded.paths == prepared[0].paths
    assert loaded.hashes == prepared[0].hashes
    assert loaded.labels.tolist() == prepared[0].labels.tolist()
    assert loaded.sha256 == prepared[0].sha256
    assert (tmp_path / "manifest.tsv").read_text().startswith("path\tlabel\tsha256\ntrain/n01/0.png\t0\t")


def test_a_manifest_s_hash_is_of_paths_labels_contents_and_order(prepared):
    train = prepared[0]
    changed = [
        Manifest(train.paths[::-1], train.labels, train.hashes),
        Manifest(train.paths, train.labels[::-1], train.hashes),
        Manifest(train.paths, train.labels, train.hashes[::-1]),
    ]
    assert len({manifest.sha256 for manifest in [train, *changed]}) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-1], "is torn"),
        (lambda text: text[:30], "is torn"),
        (lambda text: "", "is torn"),
        (lambda text: text.replace("\t1\t", "\tone\t"), "line 6 is 'train/n02/0.png"),
        (lambda text: text + "a\t1\n", "line 10 is"),
    ],
)
def test_a_spoilt_manifest_is_refused_by_file_and_line(prepared, tmp_path, damage, message):
    prepared[0].save(tmp_path)
    path = tmp_path / "manifest.tsv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message) as refusal:
        open_split(tmp_path, tmp_path)
    assert "manifest.tsv" in str(refusal.value)
    assert "run the prepare stage again" in str(refusal.value)


def test_labels_counts_and_twins_of_manifests_are_checked(prepared):
    train, test, description = prepared
    broken, report = check_expectations({"train": train, "test": test}, description, min_class_share=0.5)
    assert broken == []
    assert [rule["checked"] for rule in report["rules"]] == [16, 16, 16, 16, 4, 2]
    labels = test.labels.copy()
    labels[[1, 7]] = [2, 0]
    hashes = [*test.hashes[:3], train.hashes[6], *test.hashes[4:]]
    short = Manifest(train.paths[:-3], train.labels[:-3], train.hashes[:-3])
    broken, _ = check_expectations(
        {"train": short, "test": Manifest(test.paths, labels, hashes)}, description, min_class_share=0.5
    )
    assert {item.says: item.rows for item in broken} == {
        "label outside the classes 0 to 1": ["test image 1 (val/n01/1.png)"],
        "class with less than 0.5 of a balanced share": ["train class n02 (1 image)"],
        "split size differs from the description": ["train"],
    }
    complete = Manifest(test.paths, test.labels, [*test.hashes[:3], train.hashes[6], *test.hashes[4:]])
    broken, _ = check_expectations({"train": train, "test": complete}, description, min_class_share=0.5)
    assert [str(item) for item in broken] == [
        "test image that is also in train: test image 3 (val/n01/3.png) = train image 6 (train/n02/2.png)",
        "image that also occurs with another label: "
        "test image 3 (val/n01/3.png) of class n01 = train image 6 (train/n02/2.png) of class n02",
    ]
    assert [item.stops for item in broken] == [True, False], "ImageNet is published as it is"


@pytest.mark.medium
def test_a_training_on_files_resumed_within_an_epoch_equals_an_uninterrupted_one(split, settings):
    def begin():
        torch.manual_seed(0)
        network = networks.build("small_convnet", (3, 224, 224), 2)
        return Training(network, make_optimizer(network, settings))

    def steps(training):
        labels = torch.from_numpy(split.labels)
        return fit(training, split, labels, max_value=255, sigma=0.5, settings=settings, seed=0)

    whole = begin()
    sizes = list(steps(whole))
    assert sum(sizes) == settings.epochs * len(split)
    stopped, resumed = begin(), begin()
    list(islice(steps(stopped), len(sizes) - 1))
    resumed.load_state(copy.deepcopy(stopped.state()))
    list(steps(resumed))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_method_that_asks_for_noisy_copies_of_all_images_gets_those_of_training_views(split, settings):
    torch.manual_seed(0)
    network = networks.build("small_convnet", (3, 224, 224), 2)
    views = torch.stack([torch.from_numpy(split.training_image(i, seed=0, epoch=3)) for i in range(len(split))])
    rows, labels = torch.arange(len(split)), torch.from_numpy(split.labels)
    told = {"sigma": 0.5, "copies": 4, "use": "here"}
    from_files, from_views = (
        list(TrainingImages(pixels, labels, 255, settings, 0, 3).count_classes(network, rows, **told))
        for pixels in (split, views)
    )
    for (piece, counts, _), (same_piece, same_counts, _) in zip(from_files, from_views, strict=True):
        assert torch.equal(piece, same_piece)
        assert torch.equal(counts, same_counts)
