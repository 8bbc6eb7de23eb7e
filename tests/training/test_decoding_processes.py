"""How many processes decode the images of a training."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.prepared import prepare, save_split
from components.data.sources import imagenet
from components.data.streaming import open_split
from components.training.views import training_views


@pytest.fixture
def split(tmp_path):
    """A training split of four image files."""
    for part in ("train", "val"):
        for number, name in enumerate(["n01", "n01", "n02", "n02"]):
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / part / name / f"{part}{number}.png")
    train, *_ = prepare(imagenet(tmp_path), "imagenet", test_share=None, enlarge=None, seed=0)
    save_split(train, tmp_path / "split")
    return open_split(tmp_path / "split", tmp_path)


@pytest.mark.parametrize(("ranks_here", "decoding"), [(None, 4), ("2", 2), ("3", 1), ("8", 1)])
def test_the_ranks_of_one_machine_share_its_cores(split, monkeypatch, ranks_here, decoding):
    """Eight ranks on 64 cores decode in 64 processes, not in 512."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks_here:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks_here)
    before = set(multiprocessing.active_children())
    batches = training_views(split, [torch.tensor([row]) for row in range(4)], seed=0, epoch=0)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == decoding
    batches.close()
