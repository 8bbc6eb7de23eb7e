"""The servers of compose.yaml, from packages: the whole day on them, each of them killed, their backup restored."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.prefect_server import Server, wait_until
from tests.support.registry import free_port
from tests.support.scheduled_runs import commit, start_run
from tests.support.team_stack import BUCKETS, KEY, USER, MLflow, Postgres, Store, missing, rclone
from tests.support.workspace import copy_project, copy_results, edit, environment, run, stages_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

ONE_LEVEL = {
    r'\n  "1.0":(\n    .*)*': "",
    "method: smoothmix": "method: gaussian",
    "epochs: 2": "epochs: 12",
    "every: 30": "every: 10",
    "\n  n: 200": "\n  n: 500",
}
THREE_LEVELS = {
    r'\n  "0.5":': '\n  "0.25":\n    smoothmix: {attack_steps: 1}\n  "0.5":',
    "epochs: 2": f"epochs: {(EPOCHS := 30)}",
    "name: digits": "name: whole",
}
EQUAL = {"learning_rate: 0.05": "learning_rate: 0.0501"}
MODEL = "digits-sigma-0.5"


@dataclass
class Stack:
    folder: Path
    postgres: Postgres
    store: Store
    mlflow: MLflow

    @property
    def tracking(self) -> dict[str, str]:
        """All that a working copy needs to know; the keys of the store are the server's alone."""
        return {"MLFLOW_TRACKING_URI": self.mlflow.url}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="team-"))  # pytest's folders are closed to PostgreSQL's user
    folder.chmod(0o755)
    postgres, store = Postgres(folder / "postgres"), Store(folder / "store")
    mlflow = MLflow(folder / "mlflow", postgres, store)
    yield Stack(folder, postgres, store, mlflow)
    for server in (mlflow, store, postgres):
        server.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def project(stack, tmp_path_factory) -> Path:
    """A project of one noise level: its results pushed to the store, its model registered and promoted."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    edit(folder / "params.yaml", ONE_LEVEL)
    for settings in (["add", "-d", "store", "s3://dvc"], ["modify", "store", "endpointurl", stack.store.url]):
        assert run(folder, "dvc", "remote", *settings).returncode == 0
    assert "register" in stages_run(run(folder, "dvc", "repro", **stack.tracking))
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    commit(folder, "trained")
    pushed = run(folder, "dvc", "push", **stack.store.keys)
    assert pushed.returncode == 0, pushed.stderr
    assert call(folder, stack, "promote").returncode == 0
    return folder


def call(project: Path, stack: Stack, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return run(project, sys.executable, "-m", f"pipelines.{name}", *arguments, **stack.tracking | extra)


def renamed(project: Path, folder: Path, name: str) -> Path:
    """Another host's copy of the project, without its state, that registers under another name."""
    copy = copy_results(project, folder)
    edit(copy / "params.yaml", {"name: digits": f"name: {name}"})
    return copy


def versions(stack: Stack, name: str) -> list[str]:
    """The versions that are there, and whether each is ready."""
    where = f"name = '{name}-sigma-0.5' and current_stage <> 'Deleted_Internal'"
    return stack.postgres.sql(f"select version || ' ' || status from model_versions where {where}").split("\n")


def runs(stack: Stack, name: str) -> list[str]:
    found = f"experiment_id in (select experiment_id from experiments where name = '{name}')"
    statement = f"select status from runs where lifecycle_stage = 'active' and {found}"
    return stack.postgres.sql(statement).split()


def champion(project: Path, stack: Stack) -> str:
    found = call(project, stack, "lookup", "champion")
    assert found.returncode == 0, found.stderr
    return found.stdout


# --- the day -----------------------------------------------------------------------------------------------------


def test_two_hosts_that_register_at_once_make_one_version(stack, project, tmp_path):
    hosts = [renamed(project, tmp_path / host, "race") for host in "ab"]
    command = [sys.executable, "-m", "pipelines.register"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=host, env=environment() | stack.tracking, **pipes) for host in hosts]
    for host in both:
        output, errors = host.communicate()
        assert host.returncode == 0, errors
        assert "race-sigma-0.5 v" in output
    assert [version.split()[1] for version in versions(stack, "race")] == ["READY"]
    assert runs(stack, "race") == ["FINISHED"]


def test_a_champion_is_served_replaced_and_rolled_back_to(stack, project, tmp_path):
    assert f"models:/{MODEL}/1 (champion)" in champion(project, stack)
    port = free_port()
    command = [sys.executable, "-m", "pipelines.serve", "--model", f"models:/{MODEL}@champion", "--port", str(port)]
    service = subprocess.Popen(command, cwd=project, env=environment() | stack.tracking)
    try:
        answer = wait_until(lambda: reached(f"http://127.0.0.1:{port}/health"), seconds=120)
        assert answer.json()["version"] == "1"
    finally:
        service.terminate()
        service.wait()

    newer = copy_results(project, tmp_path)
    edit(newer / "params.yaml", EQUAL)
    assert "train@0.5" in stages_run(run(newer, "dvc", "repro", **stack.tracking))
    assert call(newer, stack, "promote").returncode == 0
    approved = call(newer, stack, "promote", "approve", "--sigma", "0.5", "--version", "2")
    assert approved.returncode == 0, approved.stderr
    back = call(project, stack, "promote", "rollback", "--sigma", "0.5")
    assert back.stdout == f"{MODEL}: v1 is champion again, v2 is not promoted without approval\n", back.stderr


def reached(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=2)
    except httpx.HTTPError:
        return None


def test_an_empty_machine_gets_all_from_the_store_and_registers_nothing_twice(stack, project, tmp_path):
    before = versions(stack, "digits")
    subprocess.run(["git", "clone", "-q", str(project), str(tmp_path / "clone")], check=True)
    pulled = run(tmp_path / "clone", "dvc", "pull", **stack.store.keys)
    assert pulled.returncode == 0, pulled.stderr
    assert stages_run(run(tmp_path / "clone", "dvc", "repro", **stack.tracking)) == ["brought", "register"]
    assert versions(stack, "digits") == before


def test_a_scheduled_run_with_prefect_on_the_same_database(stack, project, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", stack.postgres.url("prefect", "postgresql+asyncpg"))
    server = Server(tmp_path)
    values = stack.tracking | server.environment
    try:
        for command in (["work-pool", "create", "--type", "process", "local"], ["--no-prompt", "deploy", "--all"]):
            done = run(project, "prefect", *command, **values)
            assert done.returncode == 0, done.stderr
        worker = subprocess.Popen(
            ["prefect", "worker", "start", "--pool", "local"],
            cwd=project,
            env=environment() | values,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            flow_run = start_run(project, server)
            wait_until(lambda: server.state(flow_run)[0] not in ("SCHEDULED", "PENDING", "RUNNING"))
            assert server.state(flow_run)[0] == "COMPLETED"
        finally:
            worker.terminate()
            worker.wait()
    finally:
        server.stop()
    assert stack.postgres.sql("select count(*) from flow_run where state_type = 'COMPLETED'", "prefect") == "1"


# --- what is killed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["postgres", "mlflow", "store"])
def test_a_server_killed_while_a_model_is_registered_is_one_sentence_and_loses_and_doubles_nothing(
    stack, project, tmp_path, part
):
    name = f"killed-{part}"
    host = renamed(project, tmp_path, name)
    files = stack.store.folder / "mlflow"
    before = set(files.rglob("training_log"))
    with (tmp_path / "errors").open("w+") as errors:
        command = [sys.executable, "-m", "pipelines.register"]
        register = subprocess.Popen(command, cwd=host, env=environment() | stack.tracking, stderr=errors)
        wait_until(lambda: register.poll() is not None or set(files.rglob("training_log")) - before)
        assert register.poll() is None, "it ended before a server could be killed"
        server = getattr(stack, part)
        server.kill()
        try:
            assert register.wait(120) == 1
        finally:
            server.start()
        errors.seek(0)
        (sentence,) = errors.read().splitlines()
    assert re.fullmatch(r"error: MLflow did not answer \(.*\): all is in files, run this stage again", sentence)
    again = call(host, stack, "register")
    assert again.returncode == 0, again.stderr
    assert versions(stack, name) == ["1 READY"]
    assert runs(stack, name) == ["FINISHED"]
    assert MODEL in champion(project, stack)


def test_three_levels_are_trained_and_registered_whole_though_the_database_was_killed_in_a_training(stack, tmp_path):
    host = copy_project(tmp_path / "host")
    edit(host / "params.yaml", THREE_LEVELS)
    log = tmp_path / "log"
    with log.open("w") as output:
        whole = subprocess.Popen(
            ["dvc", "repro"], cwd=host, env=environment() | stack.tracking, stdout=output, stderr=output
        )
        wait_until(lambda: whole.poll() is not None or "RUNNING" in runs(stack, "whole"), seconds=300)
        stack.postgres.kill()
        try:
            wait_until(lambda: whole.poll() is not None or len(trained(log)) == 2, seconds=300)
        finally:
            stack.postgres.start()
        assert whole.wait(600) == 0, log.read_text()
    assert "training goes on, registration will catch up" in log.read_text(), "it ended before the database was killed"
    assert len(trained(log)) == 3
    levels = [f"whole-sigma-{level}" for level in ("0.25", "0.5", "1.0")]
    ready = "select name || ' ' || version || ' ' || status from model_versions where name like 'whole-%' order by name"
    assert stack.postgres.sql(ready).split("\n") == [f"{name} 1 READY" for name in levels]
    assert runs(stack, "whole") == ["FINISHED"] * 3
    logged = "select count(*) from metrics where key = 'loss' and run_uuid in (select run_uuid from runs where "
    logged += "experiment_id in (select experiment_id from experiments where name = 'whole')) group by run_uuid"
    assert stack.postgres.sql(logged).split() == [str(EPOCHS)] * 3, "no epoch is missing, and none is there twice"


def trained(log: Path) -> list[str]:
    """The levels whose training has begun."""
    return re.findall(r"Running stage 'train@(.+)'", log.read_text())


# --- what is missing ---------------------------------------------------------------------------------------------


def test_a_package_that_is_missing_is_one_sentence_with_the_remedy(stack, project, tmp_path):
    """A server that hands out the store's addresses instead of the files, and tables without a server."""
    direct = MLflow(stack.folder / "direct", stack.postgres, stack.store, proxy=False)
    try:
        host = renamed(project, tmp_path, "direct")
        keys = stack.store.keys | {"MLFLOW_S3_ENDPOINT_URL": stack.store.url}
        done = call(host, stack, "register", MLFLOW_TRACKING_URI=direct.url, **keys)
        assert done.returncode == 0, done.stderr
        for module, package, uri in (
            ("boto3", "boto3", direct.url),
            ("psycopg2", "psycopg2-binary", stack.postgres.url("mlflow")),
        ):
            (tmp_path / module).mkdir()
            (tmp_path / f"{module}/{module}.py").write_text(
                f"raise ModuleNotFoundError('No module named {module}', name='{module}')"
            )
            hidden = {
                "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path / module), os.environ.get("PYTHONPATH")]))
            }
            for command in (["register"], ["serve", "--model", "models:/direct-sigma-0.5/1"]):
                done = call(host, stack, *command, MLFLOW_TRACKING_URI=uri, **hidden)
                assert done.returncode == 1
                assert re.search(f"package {package}: `make setup TEAM=1` installs it", done.stderr), done.stderr
                assert done.stderr.count("\n") == 1
    finally:
        direct.kill()


# --- the backup --------------------------------------------------------------------------------------------------


def test_a_backup_restored_into_empty_servers_answers_as_before(stack, project, tmp_path):
    """The commands of docs/team.md."""
    assert stack.postgres.client("pg_dump", "-Fc", "-f", str(tmp_path / "dump"), database="mlflow").returncode == 0
    remote = {"TYPE": "s3", "PROVIDER": "Rclone", "ENDPOINT": stack.store.url}
    remote |= {"ACCESS_KEY_ID": USER, "SECRET_ACCESS_KEY": KEY}
    copied = {f"RCLONE_CONFIG_STORE_{name}": value for name, value in remote.items()} | {"RCLONE_CONFIG": os.devnull}
    for bucket in BUCKETS:
        done = run(tmp_path, str(rclone()), "sync", f"store:{bucket}", f"backup/{bucket}", **copied)
        assert done.returncode == 0, done.stderr

    stack.postgres.sql("create database restored")
    restored = stack.postgres.client("pg_restore", "--no-owner", str(tmp_path / "dump"), database="restored")
    assert restored.returncode == 0, restored.stderr
    store = Store(stack.folder / "restored")
    copied["RCLONE_CONFIG_STORE_ENDPOINT"] = store.url
    for bucket in BUCKETS:
        done = run(tmp_path, str(rclone()), "sync", f"backup/{bucket}", f"store:{bucket}", **copied)
        assert done.returncode == 0, done.stderr
    server = MLflow(stack.folder / "mlflow-restored", stack.postgres, store, database="restored")
    try:
        there = Stack(stack.folder, stack.postgres, store, server)
        assert champion(project, there) == champion(project, stack)
        load = f"from components.registry.loading import load_classifier; load_classifier('models:/{MODEL}@champion')"
        loaded = run(project, sys.executable, "-c", load, **there.tracking)
        assert loaded.returncode == 0, loaded.stderr
    finally:
        server.kill()
        store.kill()
