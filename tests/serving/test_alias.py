"""An alias that moves while a service runs: the version that it points at answers."""

import json
import threading
import time

import mlflow
import pytest

from components.serving import alias as alias_module
from components.serving.alias import AliasWatch
from components.serving.app import Served, create_app
from tests.support.registered import NAME, app_of, registry  # noqa: F401
from tests.support.serving import ask, make_classifier, running


def version_of(classifier, number):
    """The same classifier as another version."""
    other = make_classifier()
    other.origin = type(classifier.origin)("trial", number)
    return other


def test_health_metrics_and_answers_name_the_version_that_the_alias_has_moved_to(classifier, lines):
    version, failure = ["3"], []

    def ask_the_registry():
        if failure:
            raise failure[0]
        return version[0]

    watch = AliasWatch("champion", "3", ask_the_registry)
    app = create_app(classifier, watch=watch)

    def serve(number):
        app.state.service.serve(Served(version_of(classifier, number)))

    with running(app) as client:
        ready = {"status": "ready", "model": "trial", "arithmetic": "exact", "alias": "champion"}
        watch.look(serve)
        assert client.get("/health").json() == ready | {"version": "3", "alias_version": "3"}
        assert "smoothed_alias_moved 0.0" in client.get("/metrics").text
        version[0] = "4"
        watch.look(serve)
        watch.look(serve)
        assert [line["event"] for line in lines] == ["alias moved"], "once"
        assert lines[0]["message"] == "champion has moved from version 3 to version 4, which answers now"
        assert client.get("/health").json() == ready | {"version": "4", "alias_version": "4"}
        text = client.get("/metrics").text
        assert 'smoothed_alias{alias="champion",version="4"} 1.0' in text
        assert 'smoothed_model{name="trial",version="4"' in text
        assert 'version="3"' not in text
        assert "smoothed_alias_moved 0.0" in text
        assert ask(client).json()["version"] == client.get("/card").json()["version"] == "4"
        failure.append(ConnectionError("the registry is down"))
        watch.look(serve)
        assert client.get("/health").json() == ready | {"version": "4", "alias_version": "unknown"}
        assert ask(client).status_code == 200


def test_a_version_that_cannot_be_loaded_is_said_once_tried_again_and_the_old_one_answers_on(classifier, lines):
    watch, tries = AliasWatch("champion", "3", lambda: "4"), []

    def serve(number):
        tries.append(number)
        if len(tries) < 3:
            raise ValueError("trial v4: model.json is not the file that was registered")

    with running(create_app(classifier, watch=watch)) as client:
        watch.look(serve)
        watch.look(serve)
        assert [line["message"] for line in lines] == [
            "champion points at version 4, which cannot be served: "
            "trial v4: model.json is not the file that was registered"
        ]
        facts = client.get("/health").json()
        assert (facts["version"], facts["alias_version"]) == ("3", "4")
        assert "smoothed_alias_moved 1.0" in client.get("/metrics").text
        assert ask(client).json()["version"] == "3"
        watch.look(serve)
        assert lines[-1]["message"].endswith("to version 4, which answers now")
        watch.look(serve)
        assert tries == ["4"] * 3


def test_the_alias_is_looked_at_again_and_again():
    looks = []
    watch = AliasWatch("champion", "3", lambda: looks.append(1) or "3")
    watch.start(lambda number: None, seconds=0.01)
    end = time.monotonic() + 30
    while len(looks) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(looks) >= 3


@pytest.mark.medium
def test_no_request_is_lost_while_the_alias_moves_in_a_real_registry(registry, monkeypatch):  # noqa: F811
    """Six clients ask without a pause; each sees version 1 first and version 2 then, never a refusal."""
    monkeypatch.setattr(alias_module.AliasWatch.start, "__defaults__", (0.2,))
    app, seen, stop = app_of(registry, monkeypatch), [[] for _ in range(6)], threading.Event()

    with running(app) as client:

        def keep_asking(answers):
            while not stop.is_set():
                answer = ask(client, params={"n": 200})
                answers.append((answer.status_code, json.loads(answer.text).get("version")))

        threads = [threading.Thread(target=keep_asking, args=(answers,)) for answers in seen]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "2")
        end = time.monotonic() + 60
        while client.get("/health").json()["version"] != "2" and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        weights = client.get("/card").json()["weights_sha256"]
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    for answers in seen:
        assert {status for status, _ in answers} == {200}
        versions = [version for _, version in answers]
        assert versions == sorted(versions)
        assert set(versions) == {"1", "2"}
    assert weights == mlflow.MlflowClient().get_model_version(NAME, "2").tags["weights_sha256"]
