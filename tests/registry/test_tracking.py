"""The tracking store and what may become of it: killed while it is made, objects deleted, two machines at once."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from components.model import networks, weights
from components.registry import connection, versions
from components.registry.connection import despite_other_hosts, in_one_line, use_store
from components.registry.live import LiveHistory
from components.registry.loading import load_classifier
from components.registry.model_files import REGISTERED_HASHES
from components.registry.packaging import log_model
from components.registry.tracking import Tracking
from components.tools.hashing import hash_file
from tests.registry.test_registry import FACTS, SHAPE
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium

TRAINING = {"method": "gaussian", "sigma": 0.5}
OPEN = "import sys; from pathlib import Path; from components.registry.tracking import Tracking; "
OPEN += "Tracking(Path(sys.argv[1]), 'digits').experiment_id"


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A store with nothing in it, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("empty") / "mlflow"
    with pytest.MonkeyPatch.context() as without:
        without.delenv("MLFLOW_TRACKING_URI", raising=False)  # which MLflow sets itself, in tests before this one
        use_store(folder, make=True)
        mlflow.set_tracking_uri(None)
    return folder


@pytest.fixture
def store(empty, tmp_path):
    """A store of the test's own."""
    return Path(shutil.copytree(empty, tmp_path / "mlflow"))


@pytest.fixture
def trained(tmp_path):
    weights.save(networks.build("small_convnet", SHAPE, 3), tmp_path / "0.5", **FACTS)
    return tmp_path / "0.5"


def register(tracking, trained, name="digits-sigma-0.5", content="c1"):
    """As the register stage does: run and version, found or made."""
    run_id = tracking.find_complete_run("key", content)
    if run_id is None:
        run_id = tracking.start_training_run("key", TRAINING)
        dataset = ("digits", "0" * 64, "")
        files = [(trained, "certificates")]
        tracking.complete_run(run_id, content, metrics={}, curve=[], tags={}, dataset=dataset, files=files)
    version = tracking.find_version(name, content)
    if version is None:
        uri = log_model(run_id, trained, n=500, failure_prob=0.01)
        hashes = {tag: hash_file(trained / file) for tag, file in REGISTERED_HASHES.items()}
        version = tracking.register(name, uri, content, hashes)
    tracking.challenge(name, version)
    return version


def execute(store, *statements):
    with sqlite3.connect(store / "mlflow.db") as database:
        for statement in statements:
            database.execute(statement)


# --- the store ---------------------------------------------------------------------------------------------------


def test_a_store_is_made_under_another_name_until_it_is_whole(tmp_path, monkeypatch):
    """A process that dies in between leaves nothing that the next one would take for a store."""

    class Killed(Exception):
        pass

    def die(tracking_uri, registry_uri):
        with sqlite3.connect(tracking_uri.removeprefix("sqlite:///")) as database:
            database.execute("CREATE TABLE spans (id INTEGER)")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(connection.mlflow, "MlflowClient", die)
        with pytest.raises(Killed):
            use_store(tmp_path, make=True)
    assert not (tmp_path / "mlflow.db").exists()
    assert Tracking(tmp_path, "digits").experiment_id
    assert not list(tmp_path.glob("mlflow.db.new*"))


@pytest.mark.slow
def test_a_first_start_that_is_killed_at_any_moment_does_no_harm(tmp_path):
    store, command = tmp_path / "mlflow", [sys.executable, "-c", OPEN]
    for seconds in (0.2, 0.6, 1.2, 2.5):
        process = subprocess.Popen([*command, str(store)], cwd=ROOT)
        while process.poll() is None and not (store / "mlflow.db.new").exists():
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*command, str(store)], cwd=ROOT).returncode == 0


def test_a_broken_store_is_said_in_one_sentence_with_the_remedy(store, capsys):
    execute(store, "ALTER TABLE runs RENAME TO lost")
    sentence = (
        r"^the tracking store .*/mlflow\.db is broken \(.*no such (?:table|column): runs\S*\): move this file away, "
        r"then run `python -m pipelines\.register`, which .* are lost, unless you have a copy to put back$"
    )
    with pytest.raises(ValueError, match=sentence), in_one_line("again"):
        Tracking(store, "digits").start_training_run("key", TRAINING)
    with LiveHistory(store, "digits", "key", TRAINING):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert "is broken" in line
    assert "catch up" not in line, "it would not"


def test_a_store_that_was_left_half_made_is_said_in_one_sentence(tmp_path):
    """What MLflow itself leaves when it is killed, as `mlflow ui` on a new store may be."""
    execute(tmp_path, "CREATE TABLE spans (id INTEGER)")
    with pytest.raises(ValueError, match=r"is broken \(.*\): move this file away"), in_one_line("again"):
        assert Tracking(tmp_path, "digits").experiment_id


def test_an_empty_variable_names_no_server(store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for blank in ("", " "):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", blank)
        assert use_store(store)
        assert mlflow.get_tracking_uri() == f"sqlite:///{store}/mlflow.db"
    assert use_store(store), "MLflow has set the variable itself meanwhile"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert not use_store(store)


def test_without_a_store_the_variable_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"there is no tracking store .*: set MLFLOW_TRACKING_URI to a tracking server"
    ):
        use_store(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written .*: make it writable, or set MLFLOW_TRACKING_URI"):
        use_store(tmp_path / "file" / "mlflow", make=True)


TEAM = "`make setup TEAM=1` installs it, elsewhere "


@pytest.mark.parametrize(
    ("module", "package", "where"),
    [("psycopg2", "psycopg2-binary", TEAM), ("botocore", "boto3", TEAM), ("azure", "azure", "")],
)
def test_a_package_that_a_store_needs_is_named(module, package, where):
    message = f"without the package {package}: {where}pip install {package}$"
    with pytest.raises(ValueError, match=message), in_one_line("again"):
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")


def test_a_row_that_another_host_writes_at_this_moment_is_looked_for_again():
    overtaken = "BAD_REQUEST: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint"
    failures = [overtaken, overtaken]

    def action():
        if failures:
            raise MlflowException(failures.pop())

    despite_other_hosts(action)
    assert failures == []
    failures += ["disk full", overtaken]
    with pytest.raises(MlflowException, match="disk full"):
        despite_other_hosts(action)


def test_errors_of_our_own_are_left_as_they_are():
    with pytest.raises(ZeroDivisionError), in_one_line("again"):
        raise ZeroDivisionError


# --- what somebody deleted ---------------------------------------------------------------------------------------


def test_epochs_are_logged_with_what_they_have_and_what_is_missing_is_added(store):
    """The accuracy on a validation split that was not there when the training began."""
    tracking = Tracking(store, "digits")
    run = tracking.start_training_run("key", TRAINING)
    rows = [{"epoch": i, "loss": 1.0, "noisy_accuracy": 0.5, "learning_rate": 0.1, "seconds": 1.0} for i in range(3)]
    tracking.log_epochs(run, [row | {"val_noisy_accuracy": None} for row in rows[:1]])
    tracking.log_missing_epochs(run, [row | {"val_noisy_accuracy": float("nan")} for row in rows[:2]])
    tracking.log_missing_epochs(run, [*rows[:2], rows[2] | {"val_noisy_accuracy": 0.75}])

    def steps(name):
        return [(metric.step, metric.value) for metric in tracking.client.get_metric_history(run, name)]

    assert steps("loss") == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert steps("val_noisy_accuracy") == [(2, 0.75)]


def test_a_deleted_experiment_is_not_brought_back_unasked(store):
    tracking = Tracking(store, "digits")
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(ValueError, match="the experiment digits was deleted in MLflow: restore it with `mlflow exp"):
        Tracking(store, "digits").start_training_run("key", TRAINING)


def test_registering_again_finds_what_is_there_and_makes_what_was_deleted(store, trained):
    tracking = Tracking(store, "digits")
    first = register(tracking, trained)
    assert register(tracking, trained).version == first.version == 1
    assert tracking.find_complete_run("key", "c1") == first.run_id

    tracking.client.delete_run(first.run_id)
    second = register(tracking, trained)
    assert (second.version, second.run_id == first.run_id) == (2, False)

    tracking.client.delete_model_version(second.name, "2")
    third = register(tracking, trained)
    assert third.version == 3
    assert tracking.client.get_model_version_by_alias(third.name, "challenger").version == 3

    execute(store, "UPDATE model_versions SET status = 'FAILED_REGISTRATION' WHERE version = 3")
    with pytest.raises(
        ValueError, match=r"digits-sigma-0.5 v3 is FAILED_REGISTRATION, .* run the register stage again"
    ):
        load_classifier("models:/digits-sigma-0.5/3")
    fourth = register(tracking, trained)
    assert fourth.version == 4

    for folder in store.glob("mlartifacts/**/artifacts"):
        shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"the files of digits-sigma-0\.5 v4 are gone \(.*\): restore the") as gone:
        load_classifier("models:/digits-sigma-0.5@challenger")
    assert "\n" not in str(gone.value)
    fifth = register(tracking, trained)
    assert fifth.version == 5
    assert load_classifier("models:/digits-sigma-0.5@challenger").origin.version == "5"
    assert tracking.client.list_artifacts(fifth.run_id), "the table too is there again"

    tracking.client.rename_registered_model("digits-sigma-0.5", "other")
    with pytest.raises(ValueError, match=r"there is no registered model digits-sigma-...: run the register stage"):
        versions.names(tracking.client, "digits")
    with pytest.raises(ValueError, match=r"models:/digits-sigma-0.5@challenger is not in the registry"):
        load_classifier("models:/digits-sigma-0.5@challenger")
    assert register(tracking, trained).version == 1

    execute(store, "UPDATE registered_model_aliases SET version = 9 WHERE name = 'digits-sigma-0.5'")
    execute(store, "UPDATE registered_model_aliases SET alias = 'champion' WHERE name = 'digits-sigma-0.5'")
    with pytest.raises(ValueError, match=r"models:/digits-sigma-0.5@champion is not in the registry"):
        load_classifier("models:/digits-sigma-0.5@champion")
    with pytest.raises(ValueError, match=r"digits-sigma-0\.5 has no version 9"):
        versions.champion(tracking.client, "digits-sigma-0.5")


# --- names -------------------------------------------------------------------------------------------------------


def version_of(tracking, name, tags):
    tracking.client.create_registered_model(name)
    return tracking.client.create_model_version(name, "runs:/1/model", tags=tags)


def test_the_models_of_an_experiment_are_its_own_alone(store):
    tracking = Tracking(store, "my_model")
    for name in ("my_model-sigma-0.5", "my_model-sigma-0.25", "my_model-sigma-1.0"):
        version_of(tracking, name, {"acr": "0.5"})
    for name in ("myXmodel-sigma-0.5", "my_model-sigma-0.5-old", "my_model-sigma-nan", "my_model-sigma-.5"):
        version_of(tracking, name, {})
    found = versions.registered(tracking.client, "my_model")
    assert [model.name for model in found] == ["my_model-sigma-0.25", "my_model-sigma-0.5", "my_model-sigma-1.0"]
    assert [(model.sigma, model.acr, model.n) for model in found] == [(None, 0.5, None)] * 3, "without the tag sigma"
    assert versions.sigma_of("my_model-sigma-0.25", "my_model") == 0.25


def test_a_tag_that_should_be_a_number_is_named(store):
    tracking = Tracking(store, "digits")
    version_of(tracking, "digits-sigma-0.5", {"n": "many"})
    with pytest.raises(ValueError, match=r"the tag n of digits-sigma-0\.5 v1 is 'many': must be a number"):
        versions.registered(tracking.client, "digits")


@pytest.mark.parametrize("experiment", ["o'brien", 'a "b"', "50%", "two words"])
def test_any_name_can_be_registered_and_looked_up(store, trained, experiment):
    tracking, name = Tracking(store, experiment), versions.model_name(experiment, 0.5)
    assert register(tracking, trained, name).version == register(tracking, trained, name).version == 1
    assert [model.version for model in versions.registered(tracking.client, experiment)] == ["1"]


# --- two machines ------------------------------------------------------------------------------------------------


def register_elsewhere(address, folder, experiment, barrier, answers):
    os.environ["MLFLOW_TRACKING_URI"] = address
    mlflow.set_tracking_uri(address)
    trained = folder / "0.5"
    weights.save(networks.build("small_convnet", SHAPE, 3), trained, **FACTS)
    barrier.wait()
    tracking = Tracking(folder / "state", experiment)
    run_id = tracking.start_training_run("key", TRAINING)
    barrier.wait()  # both have looked for a version, and found none
    uri = log_model(run_id, trained, n=500, failure_prob=0.01)
    barrier.wait()
    version = tracking.register(f"{experiment}-sigma-0.5", uri, "content", {})
    tracking.challenge(f"{experiment}-sigma-0.5", version)
    answers.put((run_id, version.version))


@pytest.mark.slow
def test_two_machines_at_once_make_one_experiment_one_run_and_one_version(server, tmp_path):
    """Two processes that share no file, and one server."""
    context, experiment = multiprocessing.get_context("spawn"), f"both-{time.time_ns()}"
    barrier, answers = context.Barrier(2, timeout=300), context.Queue()
    machines = [
        context.Process(target=register_elsewhere, args=(server, tmp_path / name, experiment, barrier, answers))
        for name in ("a", "b")
    ]
    for machine in machines:
        machine.start()
    (run, version), other = answers.get(timeout=300), answers.get(timeout=300)
    for machine in machines:
        machine.join()
    assert other == (run, version)
    client = mlflow.MlflowClient(server, server)
    found = client.search_model_versions(f"name = '{experiment}-sigma-0.5'")
    assert [(each.version, each.tags["content_sha256"]) for each in found] == [(version, "content")]
    assert client.get_model_version_by_alias(f"{experiment}-sigma-0.5", "challenger").version == version
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    assert [each.info.run_id for each in client.search_runs([experiment_id])] == [run]
    assert len(client.search_logged_models([experiment_id])) == 1
