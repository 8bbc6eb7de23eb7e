"""What lies in .state and what of it is removed, with real files, real locks and results that refer to them."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from components.tools.files import free, is_held
from components.tools.hashing import hash_value
from pipelines import state
from pipelines.state import References, find_items, prunable, prune, references, registered_weights, show
from tests.tools.test_files import holder

pytestmark = pytest.mark.medium

OLD = 30 * 86400


def put(path, text="x" * 1000, age=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for one in (path, path.parent):
        os.utime(one, (time.time() - age,) * 2)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a .state of every kind: each has something needed, something unneeded, something young."""
    monkeypatch.chdir(tmp_path)
    identity = {"n": 10, "radii": [0.25, 0.5], "weights_sha256": "ab"}
    put(tmp_path / "outputs/models/0.5/model.json", json.dumps({"training_key": "a" * 64}))
    put(tmp_path / ".state/scheduled/outputs/models/0.5/model.json", json.dumps({"training_key": "b" * 64}))
    of_the_table = identity | {"every": 1, "images": 450}  # as the certify stage writes it: the rows know neither
    put(tmp_path / "outputs/certificates/0.5/identity.json", json.dumps(of_the_table))
    for name, age in (("a" * 16, OLD), ("b" * 16, OLD), ("old", OLD), ("young", 0)):
        put(tmp_path / f".state/checkpoints/{name}/epoch-00001-step-0000000.pt", age=age)
        put(tmp_path / f".state/checkpoints/{name}.lock", "")
    for name in (hash_value(identity)[:16], "old"):
        put(tmp_path / f".state/partial_tables/{name}/rows-0.tsv")
    for name in ("c" * 16, "old"):
        put(tmp_path / f".state/certified_anew/{name}/model/weights.safetensors")
        os.utime(tmp_path / f".state/certified_anew/{name}", (time.time() - OLD,) * 2)
    put(tmp_path / ".state/mlflow/mlflow.db")
    put(tmp_path / ".state/mlflow/running/key")
    put(tmp_path / ".state/notifications/verdict-1")
    put(tmp_path / ".state/promotion/digits.lock", "")
    put(tmp_path / "outputs/evaluation/metrics.json.0123.tmp")
    put(tmp_path / "outputs/data/prepared/train.0123.tmp")
    put(tmp_path / "outputs/data/prepared/train.moving.tmp", "0123")
    return tmp_path


REMOVED = {
    ".state/checkpoints/old",
    ".state/partial_tables/old",
    ".state/certified_anew/old",
    ".state/mlflow/running/key",
    ".state/notifications/verdict-1",
    ".state/promotion/digits.lock",
    "outputs/evaluation/metrics.json.0123.tmp",
}


def items(weights=(("c" * 16, "champion"),)):
    found = references_of_files()
    return find_items(References(found.trainings, found.tables, None if weights is None else dict(weights)))


def references_of_files():
    return references(params=None, tracking=None)


def chosen(project, *arguments, days=14):
    found = prunable(items(*arguments), days)
    return {str((project / item.path).relative_to(project)) for item in found}


def test_only_what_is_old_and_needed_by_nobody_is_chosen(project):
    assert chosen(project) == REMOVED
    assert chosen(project, days=60) == set()
    assert ".state/checkpoints/young" in chosen(project, days=-1)


def test_without_an_answer_of_the_registry_what_it_may_need_is_kept(project):
    kept = {".state/certified_anew/old", ".state/mlflow/running/key"}
    assert chosen(project, None) == REMOVED - kept
    assert registered_weights(None, None) is None


def test_what_is_chosen_is_removed_and_nothing_else(project, capsys):
    before = {path for path in project.rglob("*") if path.is_file()}
    prune(items(), 14, yes=True)
    gone = {str(path.relative_to(project)) for path in before if not path.exists()}
    assert gone == {
        ".state/checkpoints/old/epoch-00001-step-0000000.pt",
        ".state/checkpoints/old.lock",
        ".state/partial_tables/old/rows-0.tsv",
        ".state/certified_anew/old/model/weights.safetensors",
        *(name for name in REMOVED if not name.endswith("old")),
    }
    assert "removed 0.0 MB" in capsys.readouterr().out
    prune(items(), 14, yes=True)
    assert capsys.readouterr().out.startswith("nothing to remove: all of it is needed, held, or younger than 14 days")


@pytest.mark.parametrize(("answer", "removes"), [("", False), ("n", False), ("y", True)])
def test_it_asks_first(project, monkeypatch, answer, removes):
    monkeypatch.setattr("builtins.input", lambda question: answer)
    prune(items(), 14, yes=False)
    assert (project / ".state/checkpoints/old").exists() is not removes


def test_what_a_living_process_holds_is_kept_even_where_it_took_it_after_the_question(project, capsys):
    listed = items()
    process = holder("claim", project / ".state/checkpoints/old")
    assert process.stdout.readline() == b"in\n"
    assert ".state/checkpoints/old" not in chosen(project)
    show(items())
    assert "a living process" in capsys.readouterr().out
    (item,) = (item for item in listed if item.path.name == "old" and item.kind == "checkpoints")
    assert state.remove_item(item, 14) == 0
    assert "is in use again: kept" in capsys.readouterr().out
    assert item.path.exists()
    process.kill()
    process.wait()
    assert state.remove_item(item, 14) > 0
    assert not item.path.exists()


def test_rows_that_a_shard_is_being_computed_of_are_kept(project):
    process = holder("claim", project / ".state/partial_tables/old/rows-3-of-8.tsv")
    assert process.stdout.readline() == b"in\n"
    assert ".state/partial_tables/old" not in chosen(project, days=-1)
    process.kill()
    process.wait()
    assert ".state/partial_tables/old" in chosen(project, days=-1)


def test_who_waits_for_a_lock_that_is_removed_gets_a_new_one(tmp_path):
    path = tmp_path / "training.lock"
    with free(path):
        process = holder("claim", tmp_path / "training")
        assert process.stdout.readline().startswith(b"waiting")
        path.unlink()
    assert process.stdout.readline() == b"in\n"
    assert is_held(path)
    process.kill()
    process.wait()


def test_the_list_names_sizes_ages_and_who_needs_it(project, capsys):
    show(items())
    out = capsys.readouterr().out
    for text in ("working copy", "scheduled runs", "always kept", "tracking store", "30.0", f"{Path.cwd() / '.state'}"):
        assert text in out


def test_the_command_line(project, monkeypatch, capsys):
    monkeypatch.setattr(state, "load_params", lambda: None)
    monkeypatch.setattr(state, "registry", lambda params: None)
    for arguments, text in (([], "needed by"), (["show"], "needed by"), (["prune", "--yes"], "removed")):
        monkeypatch.setattr(sys, "argv", ["state", *arguments])
        with pytest.raises(SystemExit) as ended:
            state.main()
        assert ended.value.code == 0
        assert text in capsys.readouterr().out
    assert not (project / ".state/checkpoints/old").exists()
