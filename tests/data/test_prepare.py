"""The prepare stage: prepared data is replaced whole, or stays as it is."""

from pathlib import Path

import numpy as np
import pytest

from components import params
from components.prepare import Prepare
from pipelines import artifacts
from pipelines import prepare as stage
from tests.support.workspace import ROOT

RNG = np.random.default_rng(0)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Runs the stage in an empty workspace: a function of the settings that differ from own images' recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    own = params.load(ROOT / "recipes/image_folder.yaml")

    def run(**settings):
        options = {"image_size": None, "channels": None, "test_share": None, "download": False, "enlarge": None}
        stage.run(params.replace(own, prepare=Prepare(**(options | settings))))

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_failure_leaves_the_earlier_data_and_nothing_else(recipe, pets, tmp_path):
    own = {"source": "image_folder", "root": str(pets), "test_share": 0.25, "image_size": 16, "channels": 3}
    recipe(**own)
    before = files(tmp_path / "outputs/data")
    assert sorted(before) == [
        "prepared/description.json",
        "prepared/test/images.npy",
        "prepared/test/labels.npy",
        "prepared/test/paths.txt",
        "prepared/train/images.npy",
        "prepared/train/labels.npy",
        "prepared/train/paths.txt",
        "prepared/val/images.npy",
        "prepared/val/labels.npy",
    ]
    (pets / "dog/1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dog/1\.jpg"):
        recipe(**own)
    assert files(tmp_path / "outputs/data") == before


def test_a_failure_while_writing_leaves_the_earlier_data_too(recipe, pets, tmp_path, monkeypatch):
    own = {"source": "image_folder", "root": str(pets), "test_share": 0.25, "image_size": 16, "channels": 3}
    recipe(**own)
    before = files(tmp_path / "outputs/data")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "save_description", full)
    with pytest.raises(ValueError, match=r"outputs/data/prepared cannot be written \(No space left on device\): make"):
        recipe(**own | {"image_size": 24})
    assert files(tmp_path / "outputs/data") == before


def test_new_data_of_another_form_replaces_the_old_whole(recipe, pets, imagenet_root, tmp_path):
    recipe(source="image_folder", root=str(pets), test_share=0.25, image_size=16, channels=3)
    recipe(source="imagenet", root=str(imagenet_root))
    assert sorted(files(tmp_path / "outputs/data")) == [
        "prepared/description.json",
        "prepared/test/manifest.tsv",
        "prepared/train/manifest.tsv",
        "prepared/val/images.npy",
        "prepared/val/labels.npy",
    ]


def test_a_relative_root_counts_from_the_main_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_NAME", "x")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert artifacts.source_root("data/pets") == tmp_path / "main/data/pets"
    assert artifacts.source_root(None) == tmp_path / "main/data/raw"
    assert artifacts.source_root("/elsewhere") == Path("/elsewhere")
