"""Images take disk, not memory: preparing, describing and reading them needs a small share of what they are."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.expectations import describe_images
from components.data.prepared import load_split, prepare, save_split
from components.data.sources.source import Source
from components.data.streaming import as_tensor, open_split
from components.training.checks import check_data
from components.training.views import training_views
from tests.support.image_folders import read

SIDE, COUNT = 512, 160
BYTES = COUNT * 3 * SIDE**2
"""Of the images, 120 MiB."""
ROWS = torch.randperm(120, generator=torch.Generator().manual_seed(0)).split(8)


class Peak:
    """The most that Python and numpy held while the block ran, beyond what they held before; files that are mapped are
    no part of it."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.grown = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for i in range(COUNT):
        path = folder / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(exist_ok=True)
        pixels[:2] = i
        Image.fromarray(pixels).save(path)
    return folder


def test_the_measure_notices_images_in_memory():
    with Peak() as peak:
        held = np.ones(BYTES, dtype=np.uint8)
    assert peak.grown > 0.9 * held.nbytes


@pytest.mark.medium
def test_a_folder_is_prepared_checked_and_read_in_a_fraction_of_its_size(pictures, tmp_path):
    read(pictures, image_size=8)  # imports
    with Peak() as peak:
        train, test, description = prepare(
            read(pictures, image_size=SIDE), "image_folder", test_share=0.25, enlarge=None, seed=0
        )
        save_split(train, tmp_path / "train")
        save_split(test, tmp_path / "test")
        del train, test
        splits = {name: load_split(tmp_path / name) for name in ("train", "test")}
        assert len(describe_images(splits, description)) == COUNT
        opened = open_split(tmp_path / "train")
        pixels, labels = as_tensor(opened.images), torch.from_numpy(opened.labels)
        check_data(pixels, labels, classes=["a", "b"], max_value=255)
        assert sum(len(batch) for batch in training_views(pixels, ROWS, seed=0, epoch=0)) == 120
    assert (tmp_path / "train/images.npy").stat().st_size > 0.7 * BYTES
    assert peak.grown < 0.5 * BYTES


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_checked_split_and_enlarged_a_piece_at_a_time(dtype):
    small = np.random.default_rng(0).integers(0, 17, (COUNT, 3, SIDE // 4, SIDE // 4)).astype(dtype)
    source = Source(small, np.arange(COUNT) % 2, ["a", "b"], 16, "arrays")
    prepare(replace(source, images=small[:8], labels=source.labels[:8]), "a", test_share=0.5, enlarge=4, seed=0)
    with Peak() as peak:
        train, test, _ = prepare(source, "arrays", test_share=0.25, enlarge=4, seed=0)
    assert train.images.nbytes + test.images.nbytes == BYTES
    assert peak.grown < 0.5 * BYTES
