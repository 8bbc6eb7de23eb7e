"""Runs of processes that are gone, and a store that is new."""

import os
import subprocess
import sys

import mlflow
import pytest

from components.registry.tracking import Tracking
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium


TRAINING = """
import sys, time
from pathlib import Path
from components.registry.tracking import Tracking
store, experiment, key, what = sys.argv[1:]
tracking = Tracking(Path(store), experiment)
run_id = tracking.start_training_run(key, {"method": "gaussian", "sigma": 0.5})
print(run_id, flush=True)
time.sleep(600) if what == "wait" else tracking.end_run(run_id, "FINISHED")
"""


def training(tracking, store, key, what="wait"):
    name = tracking.client.get_experiment(tracking.experiment_id).name
    command = [sys.executable, "-c", TRAINING, str(store), name, key, what]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_runs_of_killed_processes_are_ended_and_those_of_living_ones_are_not(tracking, store):
    killed, living = (training(tracking, store, key) for key in ("a1", "b2"))
    gone, alive = (process.stdout.readline().strip() for process in (killed, living))
    elsewhere = tracking.client.create_run(tracking.experiment_id, tags={"training_key": "c3"}).info.run_id
    killed.kill()
    killed.wait()

    def status(run_id):
        return tracking.client.get_run(run_id).info.status

    assert [status(run) for run in (gone, alive, elsewhere)] == ["RUNNING"] * 3
    assert tracking.sweep() == [gone]
    assert [status(run) for run in (gone, alive, elsewhere)] == ["KILLED", "RUNNING", "RUNNING"]
    living.kill()
    living.wait()
    tracking.client.set_tag(alive, "content_sha256", "ab")
    assert tracking.sweep() == [alive]
    assert status(alive) == "FINISHED", "all had been logged"
    again = training(tracking, store, "a1", "end")
    assert again.communicate()[0].strip() == gone
    assert status(gone) == "FINISHED"


@pytest.mark.slow
def test_four_processes_at_once_on_a_new_store_work(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "mlflow"
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(store), "digits", key, "end"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for key in ("a1", "b2", "same", "same")
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    runs = [output.strip() for output, _ in outputs]
    assert runs[2] == runs[3]
    tracking = Tracking(store, "digits")
    found = tracking.client.search_runs([tracking.experiment_id])
    assert {run.info.run_id for run in found} == set(runs)
    assert {run.info.status for run in found} == {"FINISHED"}
    mlflow.set_tracking_uri(None)
