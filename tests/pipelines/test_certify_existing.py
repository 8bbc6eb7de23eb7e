"""A checkpoint that another program made goes through all stages, untrained, and is promoted and served."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from components.model import weights
from pipelines import artifacts
from tests.support.registered import app_of
from tests.support.serving import ask, running
from tests.support.workspace import ROOT, copy_project, copy_results, run

pytestmark = pytest.mark.medium
SIGMA = 0.5


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project, with the digits and a checkpoint in the form of Cohen's code, of trained weights."""
    project = copy_project(tmp_path_factory.mktemp("existing"))
    trained = load_file(ROOT / f"results/digits/smoothmix/{SIGMA}/outputs/models/{SIGMA}/weights.safetensors")
    state = {f"1.module.{name}": value for name, value in trained.items()}
    torch.save({"epoch": 90, "arch": "small_convnet", "state_dict": state}, project / "checkpoint.pth.tar")
    change(project, weights="checkpoint.pth.tar", epochs=0)
    assert stage(project, "prepare").returncode == 0
    return project


def change(project, **train):
    raw = yaml.safe_load((project / "params.yaml").read_text())
    raw["train"] |= train
    raw["noise_levels"] = {str(SIGMA): {}}
    (project / "params.yaml").write_text(yaml.safe_dump(raw))


def stage(project, name, *options):
    return run(project, sys.executable, "-m", f"pipelines.{name}", *options)


@pytest.fixture(scope="module")
def told(project):
    """What each stage told on the way to a registered model."""
    told = {}
    for name, options in {
        "check": [],
        "train": ["--sigma", str(SIGMA)],
        "certify": ["--sigma", str(SIGMA)],
        "evaluate": [],
        "register": [],
    }.items():
        result = stage(project, name, *options)
        assert result.returncode == 0, result.stdout + result.stderr
        told[name] = result.stdout
    return told


def test_a_checkpoint_is_certified_evaluated_and_registered_without_training(project, told):
    assert "weights of checkpoint.pth.tar, matched by name" in told["train"]
    assert re.search(r"digits-sigma-0\.5 v1", told["register"])
    trained, card = weights.load(project / artifacts.model(SIGMA))
    saved = torch.load(project / "checkpoint.pth.tar", weights_only=True)["state_dict"]
    assert len(trained.state_dict()) == len(saved)
    for name, own in trained.state_dict().items():
        assert torch.equal(own, saved[f"1.module.{name}"])
    assert len(card.training["weights"]) == 64
    history = pd.read_csv(project / artifacts.history(SIGMA))
    assert len(history) == 0
    assert list(history) == ["epoch", "learning_rate", "loss", "noisy_accuracy", "seconds"]


def test_it_is_promoted_and_answers_with_a_certificate(project, told, monkeypatch):
    result = stage(project, "promote")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "v1 is champion now" in result.stdout
    monkeypatch.chdir(project)
    store, model = f"sqlite:///{project}/.state/mlflow/mlflow.db", f"models:/digits-sigma-{SIGMA}@champion"
    images = np.load(artifacts.TEST_SPLIT / "images.npy")[:8].astype(np.float32) / 16
    labels = np.load(artifacts.TEST_SPLIT / "labels.npy")[:8]
    with running(app_of(store, monkeypatch, "--model", model)) as client:
        card = client.get("/card").json()
        answer = ask(client, inputs=images.tolist(), params={"n": 1000}).json()
    assert (answer["model"], answer["version"], answer["bound"]) == (f"digits-sigma-{SIGMA}", "1", "two_class")
    said = pd.DataFrame(answer["predictions"])
    right = said[~said["abstain"] & (said["class"] == labels)]
    assert len(right) >= 7
    assert right["radius"].max() > 1
    assert card["results"]["clean_accuracy"] > 0.8


def test_weights_that_do_not_fit_are_one_line_and_leave_what_is_there(project, told, tmp_path):
    copy = copy_results(project, tmp_path)
    folder = copy / artifacts.model(SIGMA)
    before = {path.name: path.read_bytes() for path in folder.glob("*")}
    torch.save({"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}, copy / "other.pt")
    change(copy, weights="other.pt", epochs=0)
    result = stage(copy, "train", "--sigma", str(SIGMA))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: train.weights is 'other.pt': not the weights of this network; missing: 1.weight")
    change(copy, weights="nowhere.pt", epochs=0)
    result = stage(copy, "check")
    assert result.returncode == 1
    assert "train.weights is 'nowhere.pt': there is no file" in result.stderr
    assert {path.name: path.read_bytes() for path in folder.glob("*")} == before
