"""Verdicts, questions and aliases on a real registry: an SQLite store, and a server over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from components.registry import versions
from components.registry.aliases import EXPIRES, KEY, MOVING, STATE, OutdatedVerdict
from components.registry.promotions import Promotions
from components.registry.tracking import Tracking

pytestmark = pytest.mark.command

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Folder of an SQLite store, which takes seconds to make."""
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


# --- moving ------------------------------------------------------------------------------------------------------


def test_a_promotion_moves_previous_and_champion_and_rollback_goes_back(promotions, tmp_path):
    assert aliases(promotions) == {"champion": "1"}
    judged(promotions, "2", "1", tmp_path)
    promotions.promote("2", "key2", "verdict")
    assert aliases(promotions) == {"champion": "2", "previous": "1"}
    promotions.rollback("ann")
    assert aliases(promotions) == {"champion": "1"}
    assert state(promotions, "2") == "rolled back"
    assert promotions.version("2").tags["promotion.by"] == "ann"
    assert promotions.version("1").tags["promotion.by"] == "verdict", "who made it champion first"
    with pytest.raises(ValueError, match="has no previous champion: see"):
        promotions.rollback("ann")
    promotions.approve("2", "bob")
    assert aliases(promotions) == {"champion": "2", "previous": "1"}
    moves = [(move.left, move.champion, move.how, move.by) for move in promotions.history()]
    assert moves == [
        (None, "1", "promoted", "verdict"),
        ("1", "2", "promoted", "verdict"),
        ("2", "1", "rolled back", "ann"),
        ("1", "2", "approved", "bob"),
    ]
    times = [move.at for move in promotions.history()]
    assert times == sorted(times)


def test_a_verdict_against_a_former_champion_is_refused_by_name(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path)
    judged(promotions, "3", "1", tmp_path)
    promotions.promote("3", "key3", "verdict")
    message = (
        r"the verdict on .* v2 was made against v1, and champion is v3 now: run `python -m pipelines\.promote` again"
    )
    for attempt in (lambda: promotions.promote("2", "key2", "verdict"), lambda: promotions.approve("2", "ann")):
        with pytest.raises(OutdatedVerdict, match=message):
            attempt()
    assert aliases(promotions) == {"champion": "3", "previous": "1"}


def test_a_verdict_that_was_replaced_meanwhile_promotes_nothing(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path)
    with pytest.raises(OutdatedVerdict, match="judged again meanwhile"):
        promotions.promote("2", "another key", "verdict")


def test_what_is_no_version_has_no_verdict_or_was_rejected_is_refused(promotions, tmp_path):
    judged(promotions, "3", "1", tmp_path, outcome="REJECT")
    for number, message in (("9", "has no version 9"), ("2", "v2 has no verdict"), ("3", "v3 was rejected")):
        with pytest.raises(ValueError, match=message):
            promotions.approve(number, "ann")
    with pytest.raises(ValueError, match="v1 is champion: `rollback` goes back"):
        promotions.keep_champion("1", "ann")
    with pytest.raises(ValueError, match="there is no registered model nobody: run the register stage"):
        Promotions(promotions.client, "nobody", tmp_path).aliases()


KILLED = """
import os, signal, sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
from components.registry.promotions import Promotions

uri, name, locks, step, action = sys.argv[1:]
mlflow.set_tracking_uri(uri)

class Killed(MlflowClient):
    left = int(step)

    def __getattribute__(self, method):
        if method.startswith(("set_", "delete_")):
            if Killed.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            Killed.left -= 1
        return super().__getattribute__(method)

promotions = Promotions(Killed(), name, Path(locks))
promotions.promote("3", "key3", "verdict") if action == "promote" else promotions.rollback("ann")
"""


def act_and_die(tracking, promotions, folder, step, action):
    """Promote version 3, or roll back, in a process that is killed before its write number `step`; its exit code."""
    command = [sys.executable, "-c", KILLED, tracking.uri, promotions.name, str(folder / "locks"), str(step), action]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_move_that_is_killed_before_any_of_its_writes_is_mended_by_the_next_call(local, tmp_path, action):
    """The first write notes the move: killed before it nothing has happened, killed later all of it happens."""
    promotions = with_versions(local, tmp_path, 3, champion="1")
    judged(promotions, "2", "1", tmp_path)
    promotions.promote("2", "key2", "verdict")
    judged(promotions, "3", "2", tmp_path)
    before = {"champion": "2", "previous": "1"}
    after = {"champion": "3", "previous": "2"} if action == "promote" else {"champion": "1"}
    assert act_and_die(local, promotions, tmp_path, 0, action) == -signal.SIGKILL
    promotions.mend()
    assert aliases(promotions) == before
    steps, seen = 0, []
    while True:
        steps += 1
        code = act_and_die(local, promotions, tmp_path, steps, action)
        seen.append(aliases(promotions))
        promotions.mend()
        assert aliases(promotions) == after
        assert MOVING not in local.client.get_registered_model(promotions.name).tags
        assert len([move for move in promotions.history() if move.left == "2"]) == 1, "recorded once"
        if code == 0:
            break
        undo(local, promotions, before)
    assert steps >= 5
    assert before in seen, "killed between the note and the first alias"
    if action == "promote":
        assert {"champion": "2", "previous": "2"} in seen, "killed between the two aliases"


def undo(tracking, promotions, before):
    """As if the move had never been."""
    for alias, version in before.items():
        tracking.client.set_registered_model_alias(promotions.name, alias, version)
    for number in ("2", "3"):
        tracking.client.set_model_version_tag(promotions.name, number, STATE, "judged")
    last = promotions.history()[-1]
    tracking.client.delete_registered_model_tag(promotions.name, f"champion.{last.at}")


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(tracking, tmp_path):
    promotions = with_versions(tracking, tmp_path, 5, champion="1")
    for number in "2345":
        judged(promotions, number, "1", tmp_path)

    def attempt(number):
        try:
            return promotions.promote(number, f"key{number}", "verdict").champion
        except OutdatedVerdict:
            return None

    with ThreadPoolExecutor(4) as pool:
        winners = [number for number in pool.map(attempt, "2345") if number]
    assert len(winners) == 1
    assert aliases(promotions) == {"champion": winners[0], "previous": "1"}
    (loser, *_) = set("2345") - set(winners)
    judged(promotions, loser, winners[0], tmp_path)
    promotions.promote(loser, f"key{loser}", "verdict")
    assert aliases(promotions) == {"champion": loser, "previous": winners[0]}, "judged anew, it is not lost"


def another_host(promotions, folder):
    """As seen from a host that shares the tracking server alone."""
    return Promotions(mlflow.MlflowClient(), promotions.name, folder / "other_locks")


class Interrupted:
    """A client in which something happens just before or after a move is written down."""

    def __init__(self, client, before=lambda: None, after=lambda: None):
        self._client, self._before, self._after = client, before, after

    def __getattr__(self, name):
        return getattr(self._client, name)

    def set_registered_model_tag(self, model, key, value):
        if key == MOVING:
            self._before()
        self._client.set_registered_model_tag(model, key, value)
        if key == MOVING:
            self._after()


def test_of_two_hosts_that_move_at_once_one_gives_up(promotions, tmp_path):
    """The other host's whole promotion falls before, or its note after, that this one's is written down."""
    for number in "23":
        judged(promotions, number, "1", tmp_path)
    client, other = promotions.client, another_host(promotions, tmp_path)
    promotions.client = Interrupted(client, before=lambda: other.promote("3", "key3", "verdict"))
    with pytest.raises(OutdatedVerdict, match=r"another host has made v3 champion of .* meanwhile"):
        promotions.promote("2", "key2", "verdict")
    assert aliases(promotions) == {"champion": "3", "previous": "1"}
    assert MOVING not in client.get_registered_model(promotions.name).tags

    judged(promotions, "2", "3", tmp_path)
    note = json.dumps({"champion": "1", "previous": "3", "left": "3", "how": "approved", "by": "bob", "at": "2100"})
    theirs = lambda: client.set_registered_model_tag(promotions.name, MOVING, note)  # noqa: E731
    promotions.client = Interrupted(client, after=theirs)
    with pytest.raises(OutdatedVerdict, match=r"another host changes the champion of .* at this moment"):
        promotions.promote("2", "key2", "verdict")
    assert client.get_registered_model(promotions.name).tags[MOVING] == note, "left to the one who wrote it"
    assert aliases(promotions) == {"champion": "3", "previous": "1"}
    promotions.client = client
    promotions.mend()
    assert aliases(promotions) == {"champion": "1", "previous": "3"}
    assert [move.champion for move in promotions.history()] == ["1", "3", "1"]


def test_a_promotion_is_unreported_until_it_is_reported_or_rolled_back(promotions, tmp_path):
    numbers = lambda: [str(version.version) for version in promotions.unreported()]  # noqa: E731
    assert numbers() == ["1"]
    promotions.mark_reported("1")
    promotions.mark_reported("1")
    assert numbers() == []
    judged(promotions, "2", "1", tmp_path)
    promotions.promote("2", "key2", "verdict")
    assert numbers() == ["2"]
    promotions.rollback("ann")
    promotions.approve("2", "ann")
    assert numbers() == [], "a person knows of it"


def test_what_was_deleted_in_mlflow_is_said_in_one_line_with_the_remedy(local, tmp_path):
    promotions = with_versions(local, tmp_path, 2, champion="1")
    client, name = promotions.client, promotions.name
    judged(promotions, "2", "1", tmp_path)
    promotions.promote("2", "key2", "verdict")
    version = promotions.version("2")
    files = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
    (files / version.tags["promotion.evidence"] / "verdict.json").unlink()
    assert promotions.stored_verdict(version, "key2", tmp_path) is None, "made again"
    client.delete_model_version(name, "1")
    with pytest.raises(ValueError, match=r"has no previous champion|alias previous of .* points at v1, which was del"):
        promotions.rollback("ann")
    note = {"champion": "1", "previous": None, "left": "2", "how": "approved", "by": "bob", "at": "2100"}
    client.set_registered_model_tag(name, MOVING, json.dumps(note))
    with pytest.raises(ValueError, match=f"cut short, and a version deleted since: remove .* tag {MOVING}"):
        promotions.mend()
    client.delete_registered_model(name)
    for call in (promotions.aliases, promotions.mend, lambda: promotions.rollback("ann")):
        with pytest.raises(ValueError, match=f"there is no registered model {name}: run the register stage") as caught:
            call()
        assert "\n" not in str(caught.value)


# --- questions ---------------------------------------------------------------------------------------------------


def test_a_question_is_open_until_it_is_answered(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    assert promotions.open_question() is None
    assert promotions.ask("2", hours=1) == promotions.ask("2", hours=2) == "open"
    assert promotions.open_question().version in ("2", 2)
    assert promotions.approve(None, "ann").champion == "2"
    assert aliases(promotions) == {"champion": "2", "previous": "1"}
    assert promotions.open_question() is None
    with pytest.raises(ValueError, match="has no open question: name a judged version with --version, or run"):
        promotions.approve(None, "ann")


def test_a_refused_version_is_not_asked_about_again(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    promotions.ask("2", hours=1)
    assert promotions.keep_champion(None, "ann") == "2"
    assert promotions.ask("2", hours=1) == "refused"
    judged(promotions, "2", "1", tmp_path)
    assert state(promotions, "2") == "refused", "whatever a later verdict says"
    assert aliases(promotions) == {"champion": "1"}


def test_silence_closes_a_question_and_keeps_the_champion(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    promotions.ask("2", hours=0.3 / 3600)
    time.sleep(0.4)
    assert promotions.open_question() is None
    assert state(promotions, "2") == promotions.ask("2", hours=1) == "expired"
    assert aliases(promotions) == {"champion": "1"}
    assert promotions.version("2").tags[EXPIRES].endswith("Z")
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    assert promotions.ask("2", hours=1) == "open", "a new verdict is a new question"


def test_a_newer_question_or_a_promotion_supersedes_an_open_one(promotions, tmp_path):
    for number in "23":
        judged(promotions, number, "1", tmp_path, outcome="HOLD")
        promotions.ask(number, hours=1)
    assert (state(promotions, "2"), state(promotions, "3")) == ("superseded", "open")
    promotions.approve("2", "ann")
    assert (state(promotions, "2"), state(promotions, "3")) == ("approved", "superseded")


def test_a_stored_verdict_is_found_by_its_key_alone(promotions, tmp_path):
    judged(promotions, "2", "1", tmp_path, outcome="HOLD")
    version = promotions.version("2")
    assert promotions.stored_verdict(version, "key2", tmp_path) == {"verdict": "HOLD"}
    assert promotions.stored_verdict(version, "another", tmp_path) is None
    assert version.tags[KEY] == "key2"


# --- looking up --------------------------------------------------------------------------------------------------


def test_the_champion_says_what_it_is(tracking, promotions):
    found = versions.champion(tracking.client, promotions.name)
    assert (found.version, found.champion, found.sigma, found.acr) == ("1", True, 0.5, 0.112345)
    assert found.certified_accuracy == pytest.approx({0.0: 0.9, 0.25: 0.65, 0.5: 0.4})
    assert (found.failure_prob, found.n, found.data_sha256, found.git_commit) == (0.001, 1000, "data1", "commit1")


def test_the_best_model_for_a_radius_is_the_most_accurate_of_those_certified_there(tracking, promotions):
    """Versions 1, 2, 3 have certified accuracy .65, .55, .45 at .25, and clean accuracy .91, .92, .93."""
    client, name = tracking.client, promotions.name.removesuffix("-sigma-0.5")
    for at_least, version in ((0.4, "3"), (0.5, "2"), (0.6, "1")):
        assert versions.best(client, name, 0.25, at_least, champions_only=False).version == version
        assert versions.best(client, name, 0.25, at_least).version == "1", "of the champions"
    with pytest.raises(
        ValueError, match=r"certified accuracy at radius 0\.25 is at most 0\.650 \(.*v1\), and 0\.7 is asked"
    ):
        versions.best(client, name, 0.25, 0.7, champions_only=False)
    with pytest.raises(ValueError, match=r"radius is 0\.3: no champion of .* only on 0, 0\.25, 0\.5: name one"):
        versions.best(client, name, 0.3, 0.1)
    with pytest.raises(ValueError, match=r"there is no registered model nobody-sigma-\.\.\.: run the register stage"):
        versions.best(client, "nobody", 0.25, 0.1)


def test_a_model_without_a_champion_is_refused_by_name(tracking, tmp_path):
    promotions = with_versions(tracking, tmp_path, 1)
    with pytest.raises(ValueError, match=r"has no champion yet: run `python -m pipelines\.promote`"):
        versions.champion(tracking.client, promotions.name)


# --- runs of processes that are gone, and a store that is new ----------------------------------------------------


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
