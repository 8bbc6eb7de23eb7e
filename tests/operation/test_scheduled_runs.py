"""Scheduled runs as they are operated: a real Prefect server, worker and cron, real DVC, git and MLflow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
import pytest

from tests.support.prefect_server import Server, wait_until
from tests.support.scheduled_runs import (
    FLOW,
    LONG,
    ONE_LEVEL,
    cancel,
    commit,
    has_kept,
    is_training,
    start,
    start_run,
    trainers,
    webhook,
)
from tests.support.workspace import copy_project, edit, environment, run, stages_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nightly(tmp_path_factory, server) -> Path:
    """A project of one noise level that the flow for scheduled runs has brought up to date once."""
    project = copy_project(tmp_path_factory.mktemp("nightly"))
    edit(project / "params.yaml", ONE_LEVEL)
    commit(project, "one noise level")
    assert "new: validate, train@0.5, certify@0.5, evaluate" in bring_up_to_date(project, server)
    return project


def bring_up_to_date(project: Path, server: Server) -> str:
    """What the flow for scheduled runs said."""
    done = run(project, *FLOW, "run", "--worktree", **server.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def current(nightly, server) -> Path:
    """The project with its scheduled runs up to date: a test before may have left a training without its outputs."""
    bring_up_to_date(nightly, server)
    return nightly


@pytest.fixture
def training(nightly) -> Iterator[Path]:
    """The project with a training that takes minutes committed; as it was, afterwards."""
    before = subprocess.run(["git", "rev-parse", "HEAD"], cwd=nightly, capture_output=True, text=True).stdout.strip()
    for path in nightly.glob(".state/checkpoints/*/*"):
        path.unlink()
    edit(nightly / "params.yaml", LONG)
    commit(nightly, "a longer training")
    yield nightly
    assert trainers(nightly) == []
    subprocess.run(["git", "reset", "-q", "--hard", before], cwd=nightly, check=True)


# --- the worktree ------------------------------------------------------------------------------------------------


def test_the_working_copy_is_untouched_and_finds_the_results_in_the_shared_cache(current):
    status = subprocess.run(["git", "status", "--porcelain"], cwd=current, capture_output=True, text=True).stdout
    assert status == ""
    assert not (current / "outputs/data/prepared/train").exists()
    assert not (current / "outputs/models/0.5").exists()
    provenance = json.loads((current / ".state/scheduled/outputs/training_logs/0.5/provenance.json").read_text())
    assert provenance["git_state"] == "clean"
    client = mlflow.MlflowClient(f"sqlite:///{current}/.state/mlflow/mlflow.db")
    (registered, *_) = before = [version.version for version in client.search_model_versions()]
    by_hand = run(current, "dvc", "repro")
    assert stages_run(by_hand) == ["brought", "register"]
    assert f"digits-sigma-0.5 v{registered}" in by_hand.stdout
    assert [version.version for version in client.search_model_versions()] == before
    subprocess.run(["git", "clean", "-fdq"], cwd=current, check=True)


def test_prefect_and_mlflow_name_each_other(nightly, server):
    """The run that `nightly` made; other tests may have added more."""
    first = min(server.flow_runs("retrain"), key=lambda entry: entry["start_time"])
    found = server.get("/artifacts/filter", {"artifacts": {"key": {"any_": ["certified"]}}, "limit": 200})
    (artifact,) = (artifact for artifact in found if artifact["flow_run_id"] == first["id"])
    assert "| sigma | clean acc |" in artifact["data"]
    assert "(data:image/png;base64," in artifact["data"]
    assert "- sigma 0.5: models:/digits-sigma-0.5/1, of the run smoothmix sigma 0.5" in artifact["data"]
    client = mlflow.MlflowClient(f"sqlite:///{nightly}/.state/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("digits").experiment_id
    run_of_mlflow, *_ = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
    assert run_of_mlflow.data.tags["prefect.flow_run"] == first["id"]
    assert run_of_mlflow.data.tags["prefect.flow_run_url"].endswith(first["id"])


def test_two_runs_at_once_take_turns_and_find_nothing_new(current, server):
    first = start(current, server, "run", "--worktree")
    second = run(current, *FLOW, "run", "--worktree", **server.environment)
    assert first.wait() == second.returncode == 0
    both = second.stdout + second.stderr + (current / "output.tmp").read_text()
    assert both.count("waiting for the run of process") == 1
    assert both.count("nothing new: every stage was up to date\n") == 2
    assert "Running stage 'train" not in both


# --- stopped, killed, out of time --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_or_killed_run_leaves_no_trainer_and_the_next_one_resumes(training, server, number):
    flow = start(training, server, "run", "--worktree")
    wait_until(lambda: is_training(training))
    flow.send_signal(number)
    code = flow.wait(60)
    wait_until(lambda: trainers(training) == [], seconds=60)
    assert code == {signal.SIGINT: 75, signal.SIGKILL: -signal.SIGKILL}.get(number, code) != 0
    again = start(training, server, "run", "--worktree")
    wait_until(lambda: "continuing after epoch" in (training / "output.tmp").read_text())
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 75
    assert "stopped; what is finished is kept" in (training / "output.tmp").read_text()


def test_a_stage_at_its_time_budget_is_neither_a_failure_nor_a_success(training, server):
    edit(
        training / "dvc.yaml",
        {r"pipelines.train --sigma \$\{key\}": "pipelines.train --sigma ${key} --max-minutes 0.05"},
    )
    commit(training, "a time budget")
    done = run(training, *FLOW, "run", "--worktree", **server.environment)
    assert done.returncode == 75, done.stderr
    assert "train@0.5 stopped early; all of it is kept, the next run goes on" in done.stderr
    assert done.stderr.count("Task run 'train@0.5' - Running stage") == 1, "it was tried again"
    (newest, *_) = server.flow_runs("retrain")
    assert (newest["state_type"], newest["state_name"]) == ("CANCELLED", "StoppedEarly")


def test_a_timeout_interrupts_a_training_and_is_tried_again_as_often_as_dvc_yaml_says(training, server):
    edit(training / "dvc.yaml", {"retries: 1, timeout_minutes: 20160": "retries: 1, timeout_minutes: 0.3"})
    commit(training, "a short timeout")
    with webhook() as (url, heard):
        done = run(training, *FLOW, "run", "--worktree", SMOOTHMIX_WEBHOOK_URL=url, **server.environment)
    assert done.returncode == 1
    assert done.stderr.count("Task run 'train@0.5' - Running stage") == 2
    assert "continuing after epoch" in done.stderr
    assert "error: stage train@0.5 was stopped at its timeout of 0.3 minutes" in done.stderr
    (message,) = heard
    assert message["event"] == "failure"
    assert message["error"].startswith("stage train@0.5 was stopped at its timeout")


def test_a_prefect_server_that_dies_costs_no_training(training, server):
    flow = start(training, server, "run", "--worktree")
    wait_until(lambda: is_training(training))
    server.stop()
    try:
        time.sleep(5)
        still = bool(trainers(training))
    finally:
        server.start()
    flow.send_signal(signal.SIGINT)
    flow.wait(120)
    assert still
    assert has_kept(training)


# --- schedules ---------------------------------------------------------------------------------------------------


def test_a_cron_run_fires_where_the_flow_is_served(current, server):
    known = {entry["id"] for entry in server.flow_runs("retrain")}
    serving = start(current, server, "serve", "--cron", "* * * * *")

    def fired():
        new = [entry for entry in server.flow_runs("retrain") if entry["id"] not in known]
        return [entry for entry in new if entry["state_type"] == "COMPLETED" and entry["auto_scheduled"]]

    try:
        (entry, *_) = wait_until(fired)
        assert server.get("/deployments/name/retrain/nightly-served")["name"] == "nightly-served"
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(60)
    assert server.get(f"/flow_runs/{entry['id']}")["state"]["message"] == "nothing new: every stage was up to date"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=current, capture_output=True, text=True).stdout
    assert entry["name"] == f"{head[:7]}, sigma 0.5, scheduled"


def test_where_the_machine_dies_with_all_that_runs_on_it_the_next_run_goes_on(training, server):
    """Prefect gives the dead run's place in the limit away after some five minutes."""
    known = {entry["id"] for entry in server.flow_runs("retrain")}
    serving = start(training, server, "serve", "--cron", "* * * * *")
    wait_until(lambda: is_training(training))
    (dead,) = (entry["id"] for entry in server.flow_runs("retrain") if entry["id"] not in known)
    for process in [serving.pid, *(child.pid for child in psutil.Process(serving.pid).children(recursive=True))]:
        os.kill(process, signal.SIGKILL)
    serving.wait()
    wait_until(lambda: trainers(training) == [])
    again = start(training, server, "serve", "--cron", "* * * * *")
    wait_until(lambda: "continuing after epoch" in (training / "output.tmp").read_text(), seconds=600)
    crashed = wait_until(lambda: server.state(dead)[0] == "CRASHED")
    again.send_signal(signal.SIGTERM)
    again.wait(90)
    wait_until(lambda: trainers(training) == [])
    assert crashed


@pytest.fixture(scope="module")
def worker(nightly, server, tmp_path_factory) -> Iterator[subprocess.Popen]:
    """A worker in the project, that runs what another copy of it has deployed."""
    prefect = ["prefect", "--no-prompt"]
    copy = tmp_path_factory.mktemp("copy") / "project"
    assert run(nightly, "git", "clone", "--quiet", ".", str(copy)).returncode == 0
    for command in (["work-pool", "create", "--type", "process", "--overwrite", "local"], ["deploy", "--all"]):
        done = run(copy, *prefect, *command, **server.environment)
        assert done.returncode == 0, done.stdout + done.stderr
    with (nightly / "worker.tmp").open("w") as output:
        process = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", "local"],
            cwd=nightly,
            env=environment() | server.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield process
    process.terminate()
    process.wait(60)


def test_a_worker_runs_the_deployment_one_at_a_time_and_cancelling_stops_the_trainer(training, server, worker):
    deployed = server.get("/deployments/name/retrain/nightly")
    assert deployed["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert "/project" not in json.dumps(deployed), "the path of the copy that it was deployed from"
    first = start_run(training, server)
    wait_until(lambda: is_training(training))
    second = start_run(training, server)
    wait_until(lambda: server.state(second) == ("SCHEDULED", "AwaitingConcurrencySlot"))
    cancel(training, server, first)
    wait_until(lambda: "continuing after epoch" in (training / "worker.tmp").read_text())  # says the second one
    assert len(trainers(training)) == 1
    flow = next(process for process in trainers(training)[0].parents() if "prefect" in " ".join(process.cmdline()))
    flow.kill()
    wait_until(lambda: trainers(training) == [])
    wait_until(lambda: server.state(second)[0] == "CRASHED")
    third = start_run(training, server)
    wait_until(lambda: trainers(training))
    cancel(training, server, third)


def test_a_question_waits_for_a_person_while_the_night_ends_and_the_answer_is_carried_out(nightly, server, worker):
    edit(nightly / "params.yaml", {"approval: on_hold": "approval: always", "seed: 0": "seed: 1"})
    commit(nightly, "ask before every promotion")
    night = start_run(nightly, server)
    wait_until(lambda: server.state(night)[0] == "COMPLETED")
    (verdict, *_) = server.get("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["verdict"]}}})
    assert "waits for an answer" in verdict["data"]
    (question,) = wait_until(lambda: server.flow_runs("approval"))
    wait_until(lambda: server.state(question["id"]) == ("PAUSED", "Suspended"))
    assert question["name"] == "digits-sigma-0.5-v2"
    refused = server.get(f"/flow_runs/{question['id']}/resume", {"run_input": {"promote": "perhaps", "name": "ann"}})
    assert refused["status"] == "REJECT"
    server.get(f"/flow_runs/{question['id']}/resume", {"run_input": {"promote": True, "name": "ann"}})
    wait_until(lambda: server.state(question["id"])[0] == "COMPLETED")
    champion = run(nightly, sys.executable, "-m", "pipelines.lookup", "history")
    assert "ann" in champion.stdout, champion.stdout + champion.stderr


# --- by hand, meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", "certify"])
def test_the_same_stage_by_hand_waits_for_the_other_and_ends_with_the_same_result(current, server, stage):
    folder = current / ".state/scheduled"
    result = (
        folder
        / {"train": "outputs/models/0.5/weights.safetensors", "certify": "outputs/certificates/0.5/table.tsv"}[stage]
    )
    before = result.read_bytes()
    for kept in [*current.glob(".state/checkpoints/*/*"), *current.glob(".state/partial_tables/*/rows*")]:
        kept.unlink()
    command = [sys.executable, "-m", f"pipelines.{stage}", "--sigma", "0.5"]
    both = [
        subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = "".join(process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    waited = said.count("waiting for the process that has")
    assert waited == 1 or (stage, waited) == ("certify", 0)  # it is said after a second, and these images take less
    assert result.read_bytes() == before


# --- the remote --------------------------------------------------------------------------------------------------


def test_a_lost_machine_is_restored_from_the_commit_and_the_remote(current, tmp_path):
    remote, restored = tmp_path / "remote", tmp_path / "restored"
    scheduled = current / ".state/scheduled"
    assert run(scheduled, "dvc", "remote", "add", "--local", "-d", "backup", str(remote)).returncode == 0
    pushed = run(scheduled, "dvc", "push", "--run-cache")
    assert pushed.returncode == 0, pushed.stderr
    subprocess.run(["git", "clone", "-q", str(current), str(restored)], check=True)
    assert run(restored, "dvc", "remote", "add", "--local", "-d", "backup", str(remote)).returncode == 0
    fetched = run(restored, "dvc", "fetch", "--run-cache")
    assert fetched.returncode == 0, fetched.stderr
    # the metrics are in git alone, with the commit that a person makes of them
    assert stages_run(run(restored, "dvc", "repro", "--pull")) == ["brought", "evaluate", "register"]
    weights = "outputs/models/0.5/weights.safetensors"
    assert (restored / weights).read_bytes() == (scheduled / weights).read_bytes()
