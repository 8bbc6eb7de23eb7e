"""Scheduled runs whose source changes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.scheduled_runs import (
    FLOW,
    ONE_LEVEL,
    commit,
)
from tests.support.workspace import copy_project, edit, run

pytestmark = pytest.mark.slow


OWN_IMAGES = {
    r"source: digits": "source: image_folder\n  root: data/raw/images\n  image_size: 8\n  channels: 1",
    r"\n  enlarge: 2.*": "",
    r"every: 30": "every: 1",
}


def add_images(project: Path, first: int, last: int) -> None:
    """Grey images of noise, the dark ones of one class and the bright ones of another."""
    rng = np.random.default_rng(first)
    for name, brightness in (("dark", 60), ("bright", 190)):
        folder = project / "data/raw/images" / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(first, last):
            pixels = rng.integers(brightness - 50, brightness + 50, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def test_new_data_in_the_source_is_trained_on_and_data_that_is_gone_again_is_not(tmp_path, server):
    project = copy_project(tmp_path)
    edit(project / "params.yaml", ONE_LEVEL | OWN_IMAGES)
    commit(project, "own images")
    add_images(project, 0, 40)

    def night() -> str:
        done = run(project, *FLOW, "run", "--worktree", **server.environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "prepared 60 training and 20 test images" in night()
    assert "nothing new: every stage was up to date" in night()
    add_images(project, 40, 60)
    more = night()
    assert "prepared 90 training and 30 test images" in more
    assert "new: validate, train@0.5, certify@0.5, evaluate" in more
    for path in (project / "data/raw/images").glob("*/0[45]*.png"):
        path.unlink()
    assert "prepared 60 training and 20 test images" in night()
    description = json.loads((project / ".state/scheduled/outputs/data/prepared/description.json").read_text())
    assert description["train_images"] == 60
