"""The gate as its commands run it: real trainings, certificates, DVC and MLflow, in a temporary copy of the project."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.support.registry import server  # noqa: F401  # a fixture
from tests.support.workspace import copy_project, copy_results, edit, environment, run, stages_run

pytestmark = pytest.mark.slow
ONE_LEVEL = {
    r'\n  "1.0":(\n    .*)*': "",
    "method: smoothmix": "method: gaussian",
    "epochs: 2": "epochs: 12",
    "every: 30": "every: 3",
    "\n  n: 200": "\n  n: 1000",
}
WORSE = {"epochs: 12": "epochs: 3"}
EQUAL = {"learning_rate: 0.05": "learning_rate: 0.0501"}
BETTER = {"method: gaussian": "method: smoothmix", "epochs: 12": "epochs: 20"}
ROLES = ("champion", "challenger")
MODEL = "digits-sigma-0.5"


def promote(project, *arguments, code=0, **extra):
    result = run(project, sys.executable, "-m", "pipelines.promote", *arguments, **extra)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def look_up(project, *arguments, **extra):
    result = run(project, sys.executable, "-m", "pipelines.lookup", *arguments, **extra)
    assert result.returncode == 0, result.stderr
    return result.stdout


def level(project):
    (found,) = json.loads((project / "outputs/evaluation/promotion/verdict.json").read_text())["levels"]
    return found


def retrain(project, changes, **extra):
    edit(project / "params.yaml", changes)
    ran = stages_run(run(project, "dvc", "repro", **extra))
    return ran


def client_of(project):
    mlflow.set_tracking_uri(f"sqlite:///{project}/.state/mlflow/mlflow.db")
    return mlflow.MlflowClient()


def aliases(project):
    found = client_of(project).get_registered_model(MODEL).aliases
    return {alias: str(version) for alias, version in found.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A project with one noise level, trained, certified and registered once; tests work on copies."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    edit(folder / "params.yaml", ONE_LEVEL)
    assert "register" in stages_run(run(folder, "dvc", "repro"))
    return folder


@pytest.fixture
def project(first, tmp_path):
    """A copy without the tracking store, registered anew; its first model is champion."""
    copy = copy_results(first, tmp_path)
    assert stages_run(run(copy, "dvc", "repro")) == ["brought", "register"]
    promote(copy)
    assert aliases(copy) == {"champion": "1", "challenger": "1"}
    return copy


def test_a_worse_model_is_rejected_an_equal_one_held_a_better_one_promoted(project):
    assert (level(project)["verdict"], level(project)["promoted"]) == ("PROMOTE", True)
    promote(project)
    assert level(project)["verdict"] == "NONE"
    assert level(project)["reasons"] == ["v1 is champion, and nothing newer is registered"]

    retrain(project, WORSE)
    promote(project)
    found = level(project)
    assert (found["verdict"], found["approval"], found["challenger"]) == ("REJECT", "not needed", "2")
    assert any("a loss, adjusted p" in reason for reason in found["reasons"]), found["reasons"]
    assert aliases(project)["champion"] == "1"

    undo = {replacement: pattern for pattern, replacement in WORSE.items()}
    retrain(project, undo | EQUAL)
    promote(project)
    found = level(project)
    assert (found["verdict"], found["approval"], found["promoted"]) == ("HOLD", "asked", False)
    assert aliases(project) == {"champion": "1", "challenger": "3"}

    retrain(project, BETTER)
    result = promote(project)
    found = level(project)
    assert (found["verdict"], found["promoted"], found["champion"]) == ("PROMOTE", True, "1")
    assert "v4 is champion now" in result.stdout
    assert aliases(project) == {"champion": "4", "previous": "1", "challenger": "4"}
    acr = found["evidence"]["tests"][0]
    tags = client_of(project).get_model_version(MODEL, "4").tags
    assert acr["challenger"] == pytest.approx(float(tags["acr"]))
    assert acr["difference"]["low"] > 0.005
    assert client_of(project).get_model_version(MODEL, "3").tags["promotion.state"] == "superseded"
    evidence = mlflow.artifacts.list_artifacts(
        run_id=client_of(project).get_model_version(MODEL, "4").run_id, artifact_path=tags["promotion.evidence"]
    )
    assert {item.path.rsplit("/", 1)[1] for item in evidence} == {"verdict.json", "verdict.md"}
    runs = {who: client_of(project).get_model_version(MODEL, found["evidence"][who]).run_id for who in ROLES}
    assert runs == {who: found["evidence"][f"{who}_run"] for who in ROLES}
    assert "| certified accuracy at 0.5 |" in (project / "outputs/evaluation/promotion/verdict.md").read_text()

    assert f"models:/{MODEL}/4 (champion)" in look_up(project, "champion", "--sigma", "0.5")
    assert "approved" not in look_up(project, "history")
    assert look_up(project, "history").count("promoted by verdict") == 2
    promote(project, "rollback", "--sigma", "0.5", "--by", "ann")
    assert aliases(project) == {"champion": "1", "challenger": "4"}
    promote(project)
    assert level(project)["reasons"][-1] == "rolled back by ann: the champion stays"
    promote(project, "approve", "--sigma", "0.5", "--version", "4", "--by", "ann")
    assert aliases(project)["champion"] == "4"
    assert look_up(project, "history").count(" by ann") == 2
    assert f"models:/{MODEL}/4 (champion)" in look_up(project, "best", "--radius", "0.5", "--at-least", "0.1")


def test_a_question_is_answered_at_the_command_line(project):
    retrain(project, EQUAL)
    assert "answer: python -m pipelines.promote approve --sigma 0.5" in promote(project).stdout
    asked = level(project)
    promote(project)
    assert level(project)["expires"] == asked["expires"], "the same question, not a new one"
    assert "v2 is refused" in promote(project, "refuse", "--sigma", "0.5", "--by", "ann").stdout
    error = promote(project, "approve", "--sigma", "0.5", code=1).stderr
    assert error.startswith(f"error: {MODEL} has no open question: name a judged version with --version")
    promote(project)
    assert (level(project)["approval"], level(project)["reasons"][-1]) == (
        "not needed",
        "refused by ann: the champion stays",
    )
    promote(project, "approve", "--sigma", "0.5", "--version", "2")
    assert aliases(project) == {"champion": "2", "previous": "1", "challenger": "2"}


def test_where_approval_is_always_wanted_a_better_model_waits_too(project):
    retrain(project, BETTER | {"approval: on_hold": "approval: always"})
    promote(project)
    assert (level(project)["verdict"], level(project)["approval"], level(project)["promoted"]) == (
        "PROMOTE",
        "asked",
        False,
    )
    assert aliases(project)["champion"] == "1"
    promote(project, "approve", "--sigma", "0.5")
    assert aliases(project) == {"champion": "2", "previous": "1", "challenger": "2"}


def test_where_the_procedure_has_changed_the_champion_is_certified_anew_once(project):
    """With twice the samples: the champion's new table is the one that certifying its own weights again gives."""
    before = (project / "outputs/models/0.5/weights.safetensors").read_bytes()
    more = {"\n  n: 1000": "\n  n: 2000"}
    retrain(project, BETTER | more)
    result = promote(project)
    assert "certifying the champion anew at sigma 0.5" in result.stdout
    found = level(project)
    assert found["evidence"]["champion_certified_anew"]
    assert found["evidence"]["procedure"]["n"] == 2000
    assert "differs from the challenger's in n (1000 and 2000)" in found["evidence"]["notes"][0]
    assert found["verdict"] == "PROMOTE"
    (folder,) = (project / ".state/certified_anew").glob("*/")
    assert (folder / "model/weights.safetensors").read_bytes() == before
    anew = pd.read_csv(folder / "certificates/table.tsv", sep="\t")
    old = pd.read_csv(project / "outputs/certificates/0.5/table.tsv", sep="\t")
    assert (anew["n"] == 2000).all()
    assert anew["idx"].tolist() == old["idx"].tolist()
    acr = found["evidence"]["tests"][0]
    assert acr["champion"] == pytest.approx((anew["radius"] * anew["correct"]).mean())
    rows = {path: path.read_bytes() for path in project.glob(".state/partial_tables/*/rows-*.tsv")}
    promote(project, "rollback", "--sigma", "0.5")
    edit(project / "params.yaml", {"min_gain: 0.005": "min_gain: 0.004"})
    promote(project)
    assert level(project)["verdict"] == "PROMOTE", "judged anew"
    assert level(project)["evidence"]["champion_certified_anew"]
    assert {path: path.read_bytes() for path in rows} == rows, "no image was sampled again"


def test_a_champion_of_another_bound_is_compared_from_its_counts_without_sampling(project):
    """The challenger is no better: by its own bound, from the same counts, neither is the champion's table worse."""
    retrain(project, EQUAL | {"bound: two_class": "bound: one_class"})
    result = promote(project)
    assert "certifying the champion anew" not in result.stdout
    found = level(project)["evidence"]
    assert (found["champion_certified_anew"], found["procedure"]["bound"]) == (False, "one_class")
    assert found["notes"] == [
        "the champion's table was made with the two_class bound and is compared by the one_class one, from its counts"
    ]
    assert "bound one_class" in (project / "outputs/evaluation/promotion/verdict.md").read_text()
    assert level(project)["verdict"] == "HOLD"


def test_other_test_images_are_what_the_champion_is_certified_on_first(project):
    """New data: another seed draws another test split."""
    retrain(project, EQUAL | {"seed: 0": "seed: 1"})
    assert "certifying the champion anew" in promote(project).stdout
    labels = np.load(project / "outputs/data/prepared/test/labels.npy")
    (folder,) = (project / ".state/certified_anew").glob("*/")
    anew = pd.read_csv(folder / "certificates/table.tsv", sep="\t")
    assert anew["label"].tolist() == labels[anew["idx"]].tolist()
    assert level(project)["evidence"]["champion_certified_anew"]


def test_weights_that_are_not_the_registered_ones_are_refused_by_name(project):
    stored = next(project.glob(".state/mlflow/mlartifacts/**/weights.safetensors"))
    raw = bytearray(stored.read_bytes())
    raw[-1] ^= 1
    stored.write_bytes(raw)
    retrain(project, EQUAL | {"\n  n: 1000": "\n  n: 2000"})
    error = promote(project, code=1).stderr
    assert f"error: {MODEL} v1 does not hold the weights that were registered (weights_sha256 " in error
    assert aliases(project)["champion"] == "1"


def test_two_at_once_promote_once_and_both_succeed(project):
    retrain(project, BETTER)
    command = [sys.executable, "-m", "pipelines.promote"]
    processes = [
        subprocess.Popen(command, cwd=project, env=environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert aliases(project) == {"champion": "2", "previous": "1", "challenger": "2"}
    assert look_up(project, "history").count(f"{MODEL}") == 2


def test_a_server_that_is_down_or_silent_is_said_in_one_line_and_nothing_is_lost(project, server):  # noqa: F811
    shutil.rmtree(project / ".state")
    there = {"MLFLOW_TRACKING_URI": server}
    assert stages_run(run(project, "dvc", "repro", **there)) == ["brought", "register"]
    silent = socket.create_server(("127.0.0.1", 0), backlog=50)
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    for bad, longest in (("http://127.0.0.1:9", 20), (address, 30)):
        start = time.monotonic()
        for command in ("promote", "lookup champion"):
            program = [sys.executable, "-m", *f"pipelines.{command}".split()]
            result = run(project, *program, MLFLOW_TRACKING_URI=bad)
            assert result.returncode == 1
            assert result.stderr.startswith("error: MLflow did not answer ("), result.stderr
            assert result.stderr.count("\n") == 1
        assert time.monotonic() - start < 2 * longest
    silent.close()
    promote(project, **there)
    assert level(project)["promoted"]
    assert f"models:/{MODEL}/1 (champion)" in look_up(project, "champion", **there)
    retrain(project, BETTER | {"\n  n: 1000": "\n  n: 2000"}, **there)
    promote(project, **there)
    assert (level(project)["verdict"], level(project)["champion"]) == ("PROMOTE", "1")
    assert level(project)["evidence"]["champion_certified_anew"], "its weights came over HTTP"
    assert look_up(project, "history", **there).count("promoted by verdict") == 2


def test_a_verdict_is_told_to_the_webhook_once(project):
    from http.server import ThreadingHTTPServer

    from tests.tools.test_notify import Webhook

    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    webhook.heard, webhook.status = [], 200
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    url = {"SMOOTHMIX_WEBHOOK_URL": f"http://127.0.0.1:{webhook.server_port}"}
    retrain(project, EQUAL)
    for _ in range(2):
        promote(project, **url)
    webhook.shutdown()
    (heard,) = webhook.heard
    assert heard["event"] == "verdict"
    assert (heard["levels"][0]["verdict"], heard["levels"][0]["approval"]) == ("HOLD", "asked")
