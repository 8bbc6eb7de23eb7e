"""A registered model whose network is a user's own: its code travels with it and is checked as its weights are."""

import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from components.model import networks, weights
from components.registry.loading import load_classifier
from components.registry.model_files import REGISTERED_HASHES
from components.registry.packaging import log_model, requirements
from components.tools.hashing import hash_file
from tests.support.own_code import LINEAR, write

pytestmark = pytest.mark.medium
SHAPE, NAME = (1, 8, 8), "own-sigma-0.5"
FACTS = {
    "sigma": 0.5,
    "network": "net:build",
    "precision": "float32",
    "image_shape": [1, 8, 8],
    "classes": ["a", "b", "c"],
    "mean": None,
    "std": None,
    "training_key": "key",
    "training": {},
    "data_sha256": "data",
}
PREDICT = """
import sys, mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
images = np.full((2, 1, 8, 8), 0.5, np.float32)
print(list(mlflow.pyfunc.load_model("models:/own-sigma-0.5@champion").predict(images)["class"]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A registry with a model of the user's own network; its URI. The user's files are gone."""
    folder, patch = tmp_path_factory.mktemp("own"), pytest.MonkeyPatch()
    write(folder / "project", net="from helper import build", helper=LINEAR)
    patch.chdir(folder / "project")
    torch.manual_seed(0)
    network = networks.build("net:build", SHAPE, 3)
    torch.nn.init.constant_(network[1].bias, 0.0)
    network[1].bias.data[2] = 50.0
    weights.save(network, folder / "0.5", **FACTS)
    patch.undo()
    for name in ("net", "helper"):
        (folder / f"project/{name}.py").write_text("1 / 0")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("own", artifact_location=(folder / "artifacts").as_uri())
    hashes = {tag: hash_file(folder / "0.5" / name) for tag, name in REGISTERED_HASHES.items()}
    logged = log_model(client.create_run(experiment).info.run_id, folder / "0.5", n=500, failure_prob=0.01)
    mlflow.register_model(logged, NAME, tags=hashes | {"sigma": "0.5"})
    client.set_registered_model_alias(NAME, "champion", "1")
    return uri


@pytest.fixture
def helper(store):
    """Where the registry keeps a file of the network's code; its content is put back afterwards."""
    (path,) = Path(store.removeprefix("sqlite:///")).parent.glob("artifacts/**/artifacts/0.5/code/helper.py")
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def test_it_answers_without_the_user_s_files_in_a_process_that_knows_nothing_of_them(store, tmp_path):
    command = [sys.executable, "-c", PREDICT, store]
    done = subprocess.run(
        command, cwd=tmp_path, env={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}, capture_output=True, text=True
    )
    assert done.stdout.strip() in ("[2, 2]", "[np.int64(2), np.int64(2)]"), done.stderr


def test_the_classifier_answers_also_where_other_files_of_these_names_lie(store, monkeypatch):
    mlflow.set_tracking_uri(store)
    monkeypatch.chdir(Path(store.removeprefix("sqlite:///")).parent / "project")
    answers = load_classifier(f"models:/{NAME}@champion").certify(torch.full((2, *SHAPE), 0.5), n=200)
    assert np.array_equal(answers["class"], [2, 2])


def test_code_that_was_changed_after_registration_is_not_run(store, helper):
    mlflow.set_tracking_uri(store)
    helper.write_text("raise SystemExit('it ran')")
    with pytest.raises(
        ValueError, match=r"code/helper\.py is missing or not the file that model\.json was written for"
    ):
        load_classifier(f"models:/{NAME}@champion")


def test_it_asks_for_the_packages_that_its_code_imports():
    assert requirements("net:build", ["torch", "timm"]) == (*requirements("lenet"), "timm")
