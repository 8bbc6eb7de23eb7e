"""An alias that moves while a service runs."""

import time

from components.serving.alias import AliasWatch
from components.serving.app import create_app
from tests.support.serving import ask, running


def test_a_service_whose_alias_has_moved_says_so_and_answers_on(classifier, lines):
    version, failure = ["3"], []

    def ask_the_registry():
        if failure:
            raise failure[0]
        return version[0]

    watch = AliasWatch("champion", "3", ask_the_registry)
    with running(create_app(classifier, watch=watch)) as client:
        ready = {"status": "ready", "model": "trial", "version": "3", "arithmetic": "exact", "alias": "champion"}
        watch.look()
        assert client.get("/health").json() == ready | {"alias_version": "3"}
        assert "smoothed_alias_moved 0.0" in client.get("/metrics").text
        version[0] = "4"
        watch.look()
        watch.look()
        assert [line["event"] for line in lines] == ["alias moved"], "once"
        assert lines[0]["message"] == "champion points at version 4 now: start the service again to serve it"
        assert client.get("/health").json() == ready | {"alias_version": "4"}
        text = client.get("/metrics").text
        assert 'smoothed_alias{alias="champion",version="4"} 1.0' in text
        assert 'smoothed_alias{alias="champion",version="3"}' not in text
        assert "smoothed_alias_moved 1.0" in text
        assert ask(client).json()["version"] == "3"
        failure.append(ConnectionError("the registry is down"))
        watch.look()
        assert client.get("/health").json() == ready | {"alias_version": "unknown"}
        assert ask(client).status_code == 200


def test_the_alias_is_looked_at_again_and_again(classifier):
    looks = []
    watch = AliasWatch("champion", "3", lambda: looks.append(1) or "3")
    watch.start(seconds=0.01)
    end = time.monotonic() + 30
    while len(looks) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(looks) >= 3
