"""A registry with two versions of a model, and the service of it as `python -m pipelines.serve` makes it."""

import sys

import mlflow
import pytest
import torch

from components.model import networks, weights
from components.registry.model_files import REGISTERED_HASHES
from components.registry.packaging import log_model
from components.tools.hashing import hash_file
from pipelines import serve
from tests.support.serving import SHAPE, SIGMA

NAME = "trial"
MODEL = f"models:/{NAME}@champion"
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """URI of a registry with versions 1 and 2; the alias champion is at 1."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment(NAME, artifact_location=(folder / "artifacts").as_uri())
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = networks.build("small_convnet", SHAPE, len(CLASSES))
        card = {"network": "small_convnet", "precision": "float32", "sigma": SIGMA, "image_shape": list(SHAPE)}
        card |= {"classes": CLASSES, "mean": None, "std": None, "training_key": "", "training": {"method": "gaussian"}}
        weights.save(network, folder / f"{seed}", **card, data_sha256="")
        tags = {tag: hash_file(folder / f"{seed}" / name) for tag, name in REGISTERED_HASHES.items()}
        tags |= {"acr": "0.25", "clean_accuracy": "0.75", "certified_accuracy_at_0.5": "0.5"}
        run = client.create_run(experiment).info.run_id
        mlflow.register_model(log_model(run, folder / f"{seed}", n=2000, failure_prob=0.001), NAME, tags=tags)
    client.set_registered_model_alias(NAME, "champion", "1")
    yield uri
    mlflow.set_tracking_uri(None)


def app_of(registry, monkeypatch, *options, token=None):
    """What `python -m pipelines.serve` serves."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    monkeypatch.setattr(sys, "argv", ["serve", "--model", MODEL, *options])
    monkeypatch.delenv(serve.TOKEN, raising=False)
    if token:
        monkeypatch.setenv(serve.TOKEN, token)
    return serve.prepare(serve.parse_options())
