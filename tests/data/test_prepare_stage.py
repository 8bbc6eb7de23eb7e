"""A prepare stage that fails, under DVC: what becomes of the earlier data, and what the message says."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.support.workspace import ROOT, copy_project, run, stages_run

pytestmark = pytest.mark.slow
DATA = "outputs/data/prepared"
NO_VAL = ("val/images.npy", "val/labels.npy")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with own images."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "data/raw/images" / name).mkdir(parents=True)
        for i in range(5):
            image = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            image.save(folder / "data/raw/images" / name / f"{i}.png")
    shutil.copy(ROOT / "recipes/image_folder.yaml", folder / "params.yaml")
    return folder


def set_source(project, **settings):
    recipe = yaml.safe_load((project / "params.yaml").read_text())
    recipe["prepare"] |= settings
    (project / "params.yaml").write_text(yaml.safe_dump(recipe))


def files(project):
    folder = project / DATA
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix}


def test_a_failure_under_dvc_says_how_to_get_the_earlier_data_and_a_new_form_replaces_the_old_whole(project):
    images, away = project / "data/raw/images", project / "data/raw/away"
    images.rename(away)
    first = run(project, "dvc", "repro", "prepare")
    assert "there is no such folder or archive" in first.stderr
    assert "dvc checkout" not in first.stderr, "there is no earlier data"

    away.rename(images)
    assert stages_run(run(project, "dvc", "repro", "prepare")) == ["prepare"]
    before = files(project)
    assert {"train/images.npy", "train/paths.txt", "description.json"} <= set(before)

    images.rename(away)
    failed = run(project, "dvc", "repro", "-f", "prepare")
    assert failed.returncode != 0
    assert f"`dvc checkout prepare` in {project} brings it back" in failed.stderr
    assert not files(project)
    back = run(project, "dvc", "checkout", "prepare")
    assert back.returncode == 0, back.stderr
    assert files(project) == before

    for part in ("train", "val"):
        shutil.copytree(away, project / "data/raw/own" / part)
    nulls = {"test_share": None, "image_size": None, "channels": None}
    set_source(project, source="imagenet", root="data/raw/own", **nulls)
    assert stages_run(run(project, "dvc", "repro", "prepare")) == ["prepare"]
    assert set(files(project)) == {"train/manifest.tsv", "test/manifest.tsv", "description.json", *NO_VAL}

    own = {"source": "image_folder", "root": "data/raw/images", "test_share": 0.2, "image_size": 32, "channels": 3}
    set_source(project, **own)  # gone, but of a run that DVC knows
    again = run(project, "dvc", "repro", "prepare")
    assert "is cached - skipping run" in again.stdout
    assert files(project) == before
