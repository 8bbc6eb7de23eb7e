"""The webhook, against servers that listen, are slow, are dead, or refuse."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.tools import notify
from components.tools.notify import send

FACTS = {"sigma": "0.5", "verdict": "PROMOTE"}


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it hears, and answers with the server's status."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def webhook(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.heard, server.status = [], 200
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv(notify.URL, f"http://127.0.0.1:{server.server_port}/hook")
    yield server
    server.shutdown()
    server.server_close()


def test_the_webhook_hears_event_and_facts(webhook, tmp_path):
    send("verdict", FACTS, "a", tmp_path)
    assert webhook.heard == [{"event": "verdict", **FACTS}]


def test_the_same_key_is_sent_once_and_another_one_too(webhook, tmp_path):
    for event, key in (("verdict", "a"), ("verdict", "a"), ("verdict", "b"), ("failure", "a"), ("verdict", "b")):
        send(event, FACTS, key, tmp_path / "new")
    assert [heard["event"] for heard in webhook.heard] == ["verdict", "verdict", "failure"]


def test_many_at_once_are_sent_once(webhook, tmp_path):
    threads = [threading.Thread(target=send, args=("verdict", FACTS, "a", tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(webhook.heard) == 1


def test_a_key_may_be_any_text(webhook, tmp_path):
    send("failure", FACTS, "stage train@0.5: ../../x\n" + "y" * 500, tmp_path)
    assert len(webhook.heard) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_url_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv(notify.URL, raising=False)
    send("verdict", FACTS, "a", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_refusal_is_said_in_one_line_and_tried_again_by_the_next_call(webhook, tmp_path, capsys):
    webhook.status = 500
    send("verdict", FACTS, "a", tmp_path)
    assert "the webhook was not told of verdict: HTTP Error 500" in capsys.readouterr().err
    webhook.status = 200
    send("verdict", FACTS, "a", tmp_path)
    send("verdict", FACTS, "a", tmp_path)
    assert len(webhook.heard) == 2


def test_a_dead_webhook_is_noticed_at_once(monkeypatch, tmp_path, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv(notify.URL, f"http://127.0.0.1:{port}")
    start = time.monotonic()
    send("verdict", FACTS, "a", tmp_path)
    assert time.monotonic() - start < 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "and tried again by the next call"


def test_one_that_is_silent_says_the_same_whoever_notices_first(monkeypatch):
    """The limit of a single read and that of the whole request end at the same time."""

    def timed_out(*args, **options):
        raise TimeoutError("timed out")

    monkeypatch.setattr(notify.urllib.request, "urlopen", timed_out)
    assert str(notify._post("http://127.0.0.1:1", b"")) == "no answer within 5 s"


@pytest.mark.medium
@pytest.mark.parametrize("trickle", [False, True])
def test_a_slow_webhook_is_given_up_after_a_short_time_and_not_told_twice(monkeypatch, tmp_path, capsys, trickle):
    """Also one that says a byte now and then, which no limit on a single read would notice."""
    monkeypatch.setattr(notify, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(notify.URL, f"http://127.0.0.1:{listener.getsockname()[1]}")
        done = threading.Event()

        def accept():
            connection, _ = listener.accept()
            with connection:
                while not done.wait(0.1):
                    if trickle:
                        connection.sendall(b"H")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        start = time.monotonic()
        send("verdict", FACTS, "a", tmp_path)
        assert 0.4 < time.monotonic() - start < 2
        done.set()
        thread.join()
        assert "no answer within 0.5 s" in capsys.readouterr().err
        send("verdict", FACTS, "a", tmp_path)
        assert capsys.readouterr().err == "", "it may have heard"


@pytest.mark.parametrize("url", ["no url", "ftp://x", "http://[bad", "file:///etc/hostname"])
def test_a_url_that_is_none_fails_nothing(monkeypatch, tmp_path, capsys, url):
    monkeypatch.setenv(notify.URL, url)
    send("verdict", FACTS, "a", tmp_path)
    assert "the webhook was not told of verdict" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_fails_nothing(webhook, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    send("verdict", FACTS, "a", tmp_path / "file")
    assert "the webhook was not told of verdict" in capsys.readouterr().err
