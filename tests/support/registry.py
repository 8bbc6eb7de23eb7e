"""A tracking server, a store, and registered models in them. The fixtures are imported where they are used."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from components.registry.promotions import Promotions
from components.registry.tracking import Tracking

MODEL = "digits-sigma-0.5"
RADII = (0.0, 0.25, 0.5)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A tracking server; its address."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [
        "mlflow",
        "server",
        "--port",
        str(port),
        "--workers",
        "1",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    process = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 180
    while True:
        assert process.poll() is None
        assert time.monotonic() < until, "the server did not start"
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                break
        except OSError:
            time.sleep(0.2)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Folder of an SQLite store, which takes seconds to make: tests use experiments of their own in it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def local(store, monkeypatch):
    """An experiment of the test's own in the SQLite store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield Tracking(store, f"test-{time.time_ns()}")
    mlflow.set_tracking_uri(None)


@pytest.fixture(params=["sqlite", pytest.param("http", marks=pytest.mark.slow)])
def tracking(request, store, monkeypatch):
    """An experiment of the test's own, in the SQLite store or on the server."""
    if request.param == "sqlite":
        yield request.getfixturevalue("local")
        return
    monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server"))
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    yield Tracking(store, f"test-{time.time_ns()}")
    mlflow.set_tracking_uri(None)


@pytest.fixture
def promotions(tracking, tmp_path):
    """A registered model of the experiment with three versions, the first of them champion."""
    return with_versions(tracking, tmp_path, 3, champion="1")


def with_versions(tracking, folder, count, champion=None):
    name = f"{tracking.client.get_experiment(tracking.experiment_id).name}-sigma-0.5"
    tracking.client.create_registered_model(name)
    for i in range(1, count + 1):
        run = tracking.client.create_run(tracking.experiment_id)
        tags = {"sigma": "0.5", "acr": f"0.{i}12345", "clean_accuracy": f"0.9{i}", "n": "1000", "failure_prob": "0.001"}
        tags |= {f"certified_accuracy_at_{r}": str(1 - r - i / 10) for r in RADII}
        tags |= {"data_sha256": f"data{i}", "git_commit": f"commit{i}"}
        tracking.client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id, tags=tags)
    found = Promotions(tracking.client, name, folder / "locks")
    if champion:
        judged(found, champion, None, folder)
        found.promote(champion, f"key{champion}", "verdict")
    return found


def judged(promotions, number, against, folder, outcome="PROMOTE"):
    evidence = folder / "evidence"
    evidence.mkdir(exist_ok=True)
    (evidence / "verdict.json").write_text(json.dumps({"verdict": outcome}))
    promotions.store_verdict(promotions.version(number), outcome, against, f"key{number}", evidence)


def state(promotions, number):
    return promotions.state(number)


def aliases(promotions):
    return {alias: version for alias, version in promotions.aliases().items() if alias != "challenger"}
