"""How the champion changes, on a real registry: an SQLite store, and a server over HTTP."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from components.registry.aliases import MOVING, STATE, OutdatedVerdict
from components.registry.promotions import Promotions
from tests.support.registry import aliases, judged, state, with_versions
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium


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
