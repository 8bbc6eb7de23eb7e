"""Registered models: what is loaded is what was registered, without a pickle; a real registry in SQLite."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pytest
import torch

from components.certification.classifier import Limits
from components.model import networks, weights
from components.registry.loading import load_classifier
from components.registry.model_files import REGISTERED_HASHES
from components.registry.packaging import log_model
from components.tools.hashing import hash_file

pytestmark = pytest.mark.medium

NAME = "trial"
SHAPE = (1, 16, 16)
FACTS = {
    "sigma": 0.5,
    "network": "small_convnet",
    "precision": "float32",
    "image_shape": list(SHAPE),
    "classes": ["a", "b", "c"],
    "mean": None,
    "std": None,
    "training_key": "",
    "training": {},
    "data_sha256": "",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A registry with one model of random weights, version 1, alias champion; its URI."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    register_trial(uri, folder, artifacts=(folder / "artifacts").as_uri())
    return uri


def register_trial(uri, folder, artifacts=None):
    """Register a model of random weights as version 1 and champion."""
    torch.manual_seed(0)
    weights.save(networks.build("small_convnet", SHAPE, 3), folder / "0.5", **FACTS)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.create_experiment("trial", artifact_location=artifacts)).info.run_id
    hashes = {tag: hash_file(folder / "0.5" / name) for tag, name in REGISTERED_HASHES.items()}
    mlflow.register_model(
        log_model(run_id, folder / "0.5", n=500, failure_prob=0.01, example=IMAGES.numpy()),
        NAME,
        tags=hashes | {"sigma": "0.5"},
    )
    client.set_registered_model_alias(NAME, "champion", "1")


@pytest.fixture(autouse=True)
def registry(store, monkeypatch):
    mlflow.set_tracking_uri(store)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


def registered_file(store, name):
    """Where the registry keeps a file of the model."""
    (path,) = Path(store.removeprefix("sqlite:///")).parent.glob(f"artifacts/**/artifacts/0.5/{name}")
    return path


@pytest.fixture
def restored(store):
    """Puts weights and card back as they were."""
    before = {path: path.read_bytes() for name in REGISTERED_HASHES.values() for path in [registered_file(store, name)]}
    yield
    for path, content in before.items():
        path.write_bytes(content)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def edit_card(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sigma": 1.0}))


def replace_both(path):
    """Other weights, with a card that fits them."""
    torch.manual_seed(1)
    weights.save(networks.build("small_convnet", SHAPE, 3), path.parent, **FACTS)


IMAGES = torch.randint(256, (2, *SHAPE), generator=torch.Generator().manual_seed(1)).float() / 255


def load_as_classifier():
    return load_classifier(f"models:/{NAME}@champion")


def load_as_pyfunc():
    return mlflow.pyfunc.load_model(f"models:/{NAME}@champion")


def test_a_version_is_loaded_by_alias_and_by_number_and_answers(store):
    for uri in (f"models:/{NAME}@champion", f"models:/{NAME}/1"):
        classifier = load_classifier(uri, Limits(images=2))
        assert (classifier.origin.name, classifier.origin.version) == (NAME, "1")
        assert (classifier.n, classifier.failure_prob) == (500, 0.01)
        assert len(classifier.certify(IMAGES)) == len(classifier.predict(IMAGES)) == 2


def run_of_version_1():
    return mlflow.MlflowClient().get_model_version(NAME, "1").run_id


def test_a_model_is_loaded_by_its_run_or_its_id_and_checked_against_its_card_alone(store, restored):
    by_id = mlflow.MlflowClient().get_model_version(NAME, "1").source
    for uri in (f"runs:/{run_of_version_1()}/model", by_id):
        model = mlflow.pyfunc.load_model(uri)
        assert model.unwrap_python_model().classifier.origin.name == ""
        assert len(model.predict(IMAGES.numpy(), params={"n": 50})) == 2
    flip_a_byte(registered_file(store, "weights.safetensors"))
    with pytest.raises(ValueError, match=r"weights\.safetensors is missing or not the file that model\.json"):
        mlflow.pyfunc.load_model(by_id)


def test_images_of_any_type_of_number_are_answered_although_the_schema_names_one(store):
    """MLflow would refuse all but float32, and quote the images."""
    model = load_as_pyfunc()
    (schema,) = model.metadata.get_input_schema().inputs
    assert (schema.type, schema.shape) == (np.float32, (-1, *SHAPE))
    black = np.zeros((2, *SHAPE))
    for images in (black.astype(np.float32), black, black.astype(np.float16), black.astype(np.uint8), black.tolist()):
        assert len(model.predict(images, params={"n": 50})) == 2


def test_the_example_is_stored_without_being_answered_and_the_run_holds_no_limits(store, tmp_path, monkeypatch):
    def answered(*_, **__):
        pytest.fail("the example was answered")

    monkeypatch.setattr(mlflow.models.utils, "_validate_serving_input", answered)
    torch.manual_seed(0)
    weights.save(networks.build("small_convnet", SHAPE, 3), tmp_path / "other", **FACTS)
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.get_experiment_by_name("trial").experiment_id).info.run_id
    uri = log_model(run_id, tmp_path / "other", n=500, failure_prob=0.01, example=IMAGES.numpy())
    assert client.get_run(run_id).data.params == {}
    model = mlflow.pyfunc.load_model(uri)
    assert np.array_equal(model.input_example, IMAGES.numpy())
    assert model.unwrap_python_model().classifier.limits == Limits()


def test_the_pyfunc_refuses_what_the_classifier_refuses_and_answers_as_it_does(store):
    model = load_as_pyfunc()
    assert list(model.predict(IMAGES.numpy())["n"]) == [500, 500]
    preset = model.predict(IMAGES.numpy(), params={"radius": 0.125})
    assert set(preset["radius"]) <= {0.0, 0.125}
    for images, params, sentence in [
        (IMAGES.numpy() * 2, {}, r"outside \[0, 1\]"),
        (IMAGES.numpy()[0], {}, r"must be \[B, 1, 16, 16\]"),
        (IMAGES.numpy(), {"n": 3}, "at least 7 samples"),
        (IMAGES.numpy(), {"radius": 9.0}, "radius 9.0 cannot be certified"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            model.predict(images, params=params)


@pytest.mark.parametrize("load", [load_as_classifier, load_as_pyfunc])
@pytest.mark.parametrize(
    ("name", "tamper", "named"),
    [
        ("weights.safetensors", flip_a_byte, "weights.safetensors is not the file that was registered"),
        ("weights.safetensors", Path.unlink, "weights.safetensors is not the file that was registered"),
        ("model.json", edit_card, "model.json is not the file that was registered"),
        ("weights.safetensors", replace_both, "weights.safetensors is not the file that was registered"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused_by_name(store, restored, load, name, tamper, named):
    tamper(registered_file(store, name))
    with pytest.raises((ValueError, mlflow.MlflowException), match=named):
        load()


def test_a_version_without_hashes_is_not_loaded(store):
    client = mlflow.MlflowClient()
    tags = client.get_model_version(NAME, "1").tags
    client.delete_model_version_tag(NAME, "1", "card_sha256")
    with pytest.raises(ValueError, match=r"trial v1 has no tag card_sha256, which model\.json is checked against"):
        load_as_classifier()
    client.set_model_version_tag(NAME, "1", "card_sha256", tags["card_sha256"])


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("models:/trial", "must be models:/<name>@<alias> or models:/<name>/<version>"),
        ("runs:/1/model", "must be models:/<name>@<alias>"),
        ("models:/trial@nobody", "models:/trial@nobody is not in the registry"),
        ("models:/trial/7", "models:/trial/7 is not in the registry"),
    ],
)
def test_what_is_not_in_the_registry_is_named(uri, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_classifier(uri)


# --- real servers ------------------------------------------------------------------------------------------------


def start(command, store, stderr=subprocess.PIPE, **extra):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", **extra}
    return subprocess.Popen(command, env=environment, stderr=stderr, text=True)


def wait_for(url, process, path="/ping"):
    for _ in range(600):
        assert process.poll() is None, process.stderr.read()
        try:
            if httpx.get(url + path).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def stop(process):
    process.terminate()
    _, errors = process.communicate(timeout=60)
    return errors


BAD_REQUESTS = [
    (b"{", None),
    (b'{"inputs": [[1, 2], [3]]}', None),
    (json.dumps({"inputs": IMAGES[0].tolist()}).encode(), r"must be \[B, 1, 16, 16\]"),
    (json.dumps({"inputs": (IMAGES * 255).tolist()}).encode(), r"outside \[0, 1\]"),
    (json.dumps({"inputs": (IMAGES * float("nan")).tolist()}).encode(), "not finite"),
    (json.dumps({"inputs": [[[["a"]]]]}).encode(), None),
    (json.dumps({"inputs": IMAGES.tolist(), "params": {"n": 5}}).encode(), "at least 7 samples"),
    (json.dumps({"inputs": IMAGES.tolist(), "params": {"n": 10**12}}).encode(), "the limit is n = 1000000"),
    (json.dumps({"inputs": IMAGES.tolist(), "params": {"n": "many"}}).encode(), None),
    (json.dumps({"inputs": IMAGES.tolist(), "params": {"radius": 9.0}}).encode(), "radius 9.0 cannot be certified"),
]


@pytest.mark.slow
def test_mlflow_s_own_server_answers_and_refuses_bad_input_with_400(store):
    url, port = "http://127.0.0.1:5117", "5117"
    command = ["mlflow", "models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local", "-p", port]
    process = start([str(Path(sys.executable).parent / command[0]), *command[1:]], store)
    try:
        wait_for(url, process)
        good = httpx.post(f"{url}/invocations", json={"inputs": IMAGES.tolist(), "params": {"radius": 0.125}})
        assert good.status_code == 200
        example = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion")) / "serving_input_example.json"
        body, kind = example.read_bytes(), {"content-type": "application/json"}
        assert len(httpx.post(f"{url}/invocations", content=body, headers=kind).json()["predictions"]) == 2
        assert {"class", "radius", "abstain", "p_lower"} <= set(good.json()["predictions"][0])
        for body, sentence in BAD_REQUESTS:
            headers = {"content-type": "application/json"}
            answer = httpx.post(f"{url}/invocations", content=body, headers=headers)
            assert answer.status_code == 400, answer.text
            assert "predictions" not in answer.json()
            if sentence is not None:
                assert re.search(sentence, answer.json()["message"])
                assert len(answer.json()["message"]) < 200, "one sentence, and no image in it"
    finally:
        errors = stop(process)
    assert '"event": "answered"' in errors
    assert '"model": "trial", "version": "1"' in errors


@pytest.mark.slow
def test_a_registry_over_http_gives_a_checked_classifier(store, tmp_path):
    url, program = "http://127.0.0.1:5116", str(Path(sys.executable).parent / "mlflow")
    options = ["--backend-store-uri", f"sqlite:///{tmp_path}/http.db", "--artifacts-destination", f"{tmp_path}/files"]
    command = [program, "server", *options, "--port", "5116", "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        process = start(command, store, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", stderr=log)
    try:
        wait_for(url, process, "/health")
        register_trial(url, tmp_path)
        for load in (load_as_classifier, load_as_pyfunc):
            load()
        assert load_as_classifier().origin.version == "1"
        (card,) = (tmp_path / "files").glob("**/artifacts/0.5/model.json")
        edit_card(card)
        for load in (load_as_classifier, load_as_pyfunc):
            with pytest.raises((ValueError, mlflow.MlflowException), match=r"model\.json is not the file"):
                load()
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_server_does_not_start_on_files_that_were_tampered_with(store, restored):
    flip_a_byte(registered_file(store, "weights.safetensors"))
    process = start([sys.executable, "-m", "pipelines.serve", "--model", f"models:/{NAME}@champion"], store)
    assert process.wait(120) == 1
    (line,) = process.stderr.read().splitlines()
    assert line.startswith("error: trial v1: weights.safetensors is not the file that was registered")


@pytest.mark.slow
def test_thirty_two_clients_for_a_minute_get_right_answers_or_back_pressure_and_memory_stays(store):
    """Right: what the classifier itself says of these images at a preset radius that is clear for them."""
    url, seconds = "http://127.0.0.1:5118", float(os.environ.get("LOAD_SECONDS", "60"))
    process = start(
        [sys.executable, "-m", "pipelines.serve", "--model", f"models:/{NAME}@champion", "--port", "5118"], store
    )
    expected = list(load_as_classifier().certify(IMAGES, n=20_000, radius=0.125)["class"])
    statuses, wrong, sizes, end = [], [], [], [0.0]

    def client():
        with httpx.Client(timeout=120) as session:
            while time.monotonic() < end[0]:
                body = {"inputs": IMAGES.tolist(), "params": {"n": 20_000, "radius": 0.125}}
                answer = session.post(f"{url}/invocations", json=body)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    if [row["class"] for row in answer.json()["predictions"]] != expected:
                        wrong.append(answer.text)
                else:
                    time.sleep(float(answer.headers["retry-after"]))

    # its log is read as it comes, or the pipe would fill up
    threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
    try:
        wait_for(url, process)
        end[0] = time.monotonic() + seconds
        clients = [threading.Thread(target=client) for _ in range(32)]
        for thread in clients:
            thread.start()
        while time.monotonic() < end[0]:
            time.sleep(seconds / 12)
            status = Path(f"/proc/{process.pid}/status").read_text()
            sizes.append(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024)
        for thread in clients:
            thread.join()
    finally:
        process.terminate()
        process.wait(60)
    answered, sent_away = statuses.count(200), statuses.count(503)
    print(f"{answered} answered, {sent_away} sent away, memory {sizes[2]:.0f} to {sizes[-1]:.0f} MiB")
    assert not wrong
    assert set(statuses) <= {200, 503}
    assert answered > 32
    assert sizes[-1] < 1.1 * sizes[2], sizes
