"""ImageNet's path with ResNet-50, end to end through DVC, on a few made-up image files."""

import resource
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.support.workspace import ROOT, copy_project, run, stages_run

pytestmark = pytest.mark.slow
KINDS = {"grey.png": "L", "cmyk.jpg": "CMYK", "palette.png": "P", "deep.png": "I;16", "alpha.png": "RGBA"}
GIB = 2**30


def save_images(folder: Path, mean: int, generator: np.random.Generator) -> None:
    """Eight images of one class, of several sizes and kinds."""
    folder.mkdir(parents=True)
    for number, name in enumerate(["a.jpg", "b.jpg", "wide.png", *KINDS]):
        size = (90 + 40 * number, 260 - 20 * number, 3)
        pixels = generator.normal(mean, 30, size).clip(0, 255).astype(np.uint8)
        if name == "deep.png":
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / name)
        else:
            Image.fromarray(pixels).convert(KINDS.get(name, "RGB")).save(folder / name)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = copy_project(tmp_path)
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label, mean in (("dark", 60), ("light", 190)):
            save_images(folder / "data/raw/imagenet" / split / label, mean, generator)
    recipe = yaml.safe_load((ROOT / "recipes/imagenet.yaml").read_text())
    recipe["noise_levels"] = {"0.5": {}}
    recipe["train"] |= {"epochs": 2, "batch_size": 8, "warmup_epochs": 1, "precision": "float32"}
    recipe["certify"] |= {"n0": 10, "n": 40, "every": 4, "compile": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_images_of_many_kinds_become_a_registered_certified_model(project):
    ran = stages_run(run(project, "dvc", "repro"))
    assert ran == ["prepare", "validate", "brought", "train@0.5", "certify@0.5", "evaluate", "register"]
    rows = pd.read_csv(project / "outputs/certificates/0.5/table.tsv", sep="\t")
    assert list(rows["idx"]) == [0, 4, 8, 12]
    assert (rows["n"] == 40).all()
    assert len(pd.read_csv(project / "outputs/training_logs/0.5/history.csv")) == 2
    answer = run(
        project,
        sys.executable,
        "-c",
        "import mlflow, numpy; mlflow.set_tracking_uri('sqlite:///.state/mlflow/mlflow.db'); "
        "model = mlflow.pyfunc.load_model('models:/imagenet-sigma-0.5@challenger'); "
        "print(len(model.predict(numpy.zeros((1, 3, 224, 224), 'float32'), params={'n': 20})))",
        MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    )
    assert answer.stdout.split() == ["1"], answer.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 4 * GIB


def test_a_truncated_image_and_a_file_that_is_none_stop_it_before_the_training(project):
    spoilt = project / "data/raw/imagenet/train/dark/b.jpg"
    spoilt.write_bytes(spoilt.read_bytes()[:-200])
    (project / "data/raw/imagenet/val/light/a.jpg").write_text("no image")
    result = run(project, "dvc", "repro")
    assert result.returncode != 0
    assert "2 file" in result.stderr
    for name in ("train/dark/b.jpg", "val/light/a.jpg"):
        assert name in result.stderr
    assert not (project / "outputs/models/0.5").exists()
