"""MNIST with the recipe for a laptop, through DVC: what a short training must reach on two cores."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
import yaml

from components.data.prepared import load_split
from components.model import weights
from components.tools.device import use_device
from pipelines import artifacts
from tests.support.workspace import copy_project, run, stages_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(mnist_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the recipe, its data at hand."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    shutil.copytree(mnist_files, folder / "data/raw", dirs_exist_ok=True)
    recipe = yaml.safe_load((folder / "recipes/mnist_laptop.yaml").read_text())
    recipe["certify"]["every"] = 200
    (folder / "params.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def noisy_accuracy(project: Path, sigma: float) -> float:
    """Share of the test images that the network gets right, each under one noise."""
    network, _ = weights.load(project / artifacts.model(sigma), use_device(threads=2))
    split = load_split(project / artifacts.TEST_SPLIT)
    images, labels = torch.tensor(split.images), torch.tensor(split.labels)
    generator, right = torch.Generator().manual_seed(0), 0
    for rows in torch.arange(len(labels)).split(500):
        noise = sigma * torch.randn(images[rows].shape, generator=generator)
        with torch.no_grad():
            right += int((network.eval()(images[rows] / 255 + noise).argmax(-1) == labels[rows]).sum())
    return right / len(labels)


def test_one_epoch_of_smoothmix_ends_in_a_registered_model_over_95_percent(project):
    ran = stages_run(run(project, "dvc", "repro"))
    assert ran == ["prepare", "validate", "brought", "train@0.5", "certify@0.5", "evaluate", "register"]
    assert noisy_accuracy(project, 0.5) > 0.95
    rows = pd.read_csv(project / "outputs/certificates/0.5/table.tsv", sep="\t")
    assert rows["correct"].mean() > 0.9
    client = mlflow.MlflowClient(f"sqlite:///{project}/.state/mlflow/mlflow.db")
    registered = client.get_model_version_by_alias("mnist-laptop-sigma-0.5", "challenger")
    assert float(registered.tags["acr"]) == pytest.approx((rows["radius"] * rows["correct"]).mean(), abs=1e-9)


def test_three_epochs_of_gaussian_reach_over_94_percent(project):
    recipe = yaml.safe_load((project / "params.yaml").read_text())
    recipe["train"] |= {"method": "gaussian", "epochs": 3}
    (project / "params.yaml").write_text(yaml.safe_dump(recipe))
    assert stages_run(run(project, "dvc", "repro", "train@0.5")) == ["brought", "train@0.5"]
    assert noisy_accuracy(project, 0.5) > 0.94
