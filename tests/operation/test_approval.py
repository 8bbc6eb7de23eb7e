"""Questions to a person: what becomes of those that nobody answered in time, or that wait no longer for an answer."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Paused

from components.registry.aliases import BY, STATE
from components.registry.tracking import Tracking
from pipelines import artifacts
from pipelines.operation import approval, flow, worktree
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium
MODEL = "digits-sigma-0.5"
IN_AN_HOUR = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def commit(tmp_path, monkeypatch):
    """The commit of a project with the parameters alone, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "0"], ["rev-parse", "HEAD"]):
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_runs_are_named_after_commit_noise_levels_and_what_started_them(commit, monkeypatch):
    assert flow.pipeline.flow_run_name is flow.retrain.flow_run_name is flow.run_name
    assert flow.run_name() == f"{commit[:7]}, sigma 0.25 0.5 1.0, by command"
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "1234")
    assert flow.run_name() == f"{commit[:7]}, sigma 0.25 0.5 1.0, on request"


@pytest.mark.parametrize("promote", [True, False])
def test_an_answer_to_a_question_that_was_withdrawn_changes_nothing_and_the_run_ends_cancelled(monkeypatch, promote):
    closed = f"{MODEL} v2 no longer waits for an answer, it was superseded"
    monkeypatch.setattr(approval, "suspend_flow_run", lambda **_: approval.Reply(promote=promote, name="ann"))
    monkeypatch.setattr(approval, "closed_already", lambda model, version: closed)
    monkeypatch.setattr(worktree, "passing", lambda commit: pytest.fail("the answer was carried out"))
    state = approval.approval.fn(MODEL, "2", "0.5", IN_AN_HOUR, "0" * 40, "the verdict")
    assert state.type == StateType.CANCELLED
    assert state.message == f"{closed}: ann's answer changes nothing"


@pytest.fixture
def registry(commit, monkeypatch):
    """The project's own registry; a function that registers the next version with the tags of an answered question."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(artifacts.tracking_store(), "digits")
    tracking.client.create_registered_model(MODEL)

    def register(**tags: str) -> str:
        run = tracking.client.create_run(tracking.experiment_id).info.run_id
        names = {"state": STATE, "by": BY}
        named = {names[name]: value for name, value in tags.items()}
        return str(tracking.client.create_model_version(MODEL, f"runs:/{run}/model", run, tags=named).version)

    yield register
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_late_answered_and_withdrawn_questions_end_cancelled_and_no_other(commit, registry, server):
    said = []
    versions = {
        "late": registry(state="open"),
        "open": registry(state="open"),
        "approved": registry(state="approved", by="ann"),
        "superseded": registry(state="superseded"),
        "elsewhere": registry(state="superseded"),
    }
    commits = dict.fromkeys(versions, commit) | {"elsewhere": "0" * 40}
    ends = dict.fromkeys(versions, IN_AN_HOUR) | {"late": datetime.now(UTC) - timedelta(seconds=1)}

    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        asked = {}
        for name, version in versions.items():
            facts = {"model": MODEL, "version": version, "sigma": "0.5", "until": ends[name].isoformat()}
            facts |= {"commit": commits[name], "report": ""}
            waiting = Paused(pause_expiration_time=ends[name])
            asked[name] = client.create_flow_run(approval.approval, parameters=facts, name=name, state=waiting).id
        approval.close_expired(client)
        approval.close_answered(said.append)
        states = {name: client.read_flow_run(number).state for name, number in asked.items()}

    assert {name for name, state in states.items() if state.type == StateType.PAUSED} == {"open", "elsewhere"}
    messages = {name: state.message for name, state in states.items() if state.type == StateType.CANCELLED}
    assert messages == {
        "late": "nobody answered in time: the champion stays",
        "approved": f"{MODEL} v{versions['approved']} no longer waits for an answer, it was approved by ann",
        "superseded": f"{MODEL} v{versions['superseded']} no longer waits for an answer, it was superseded",
    }
    assert said == []


@pytest.mark.slow
def test_a_question_whose_registry_does_not_answer_stays_open_and_says_so(commit, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    said = []
    facts = {"model": MODEL, "version": "1", "sigma": "0.5", "until": IN_AN_HOUR.isoformat()}
    facts |= {"commit": commit, "report": ""}
    with temporary_settings({PREFECT_API_URL: server.url}), get_client(sync_client=True) as client:
        waiting = Paused(pause_expiration_time=IN_AN_HOUR)
        asked = client.create_flow_run(approval.approval, parameters=facts, name="unknown", state=waiting).id
        approval.close_answered(said.append)
        assert client.read_flow_run(asked).state.type == StateType.PAUSED
    mlflow.set_tracking_uri(None)
    (line,) = [line for line in said if "unknown" in line]
    assert line.startswith("the question unknown stays open: MLflow did not answer")
    assert line.endswith("answer again once it does")
