"""Scheduled runs of a copy of the project: how tests start, stop and watch them."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from tests.support.prefect_server import Server, wait_until
from tests.support.workspace import environment, run

FLOW = [sys.executable, "-m", "pipelines.flow"]
ONE_LEVEL = {r'\n  "1.0":(\n    .*)*': ""}
LONG = {r"epochs: 2\b": "epochs: 200"}


def start_run(project: Path, server: Server) -> str:
    """Start a run of the deployment; its id."""
    started = run(project, "prefect", "deployment", "run", "retrain/nightly", **server.environment)
    assert started.returncode == 0, started.stdout + started.stderr
    return re.search(r"UUID: (\S+)", started.stdout)[1]


def cancel(project: Path, server: Server, flow_run: str) -> None:
    assert run(project, "prefect", "flow-run", "cancel", flow_run, **server.environment).returncode == 0
    wait_until(lambda: server.state(flow_run)[0] == "CANCELLED")


def commit(project: Path, message: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *identity, "commit", "-qam", message], cwd=project, check=True)


def trainers(project: Path) -> list[psutil.Process]:
    """The processes that train below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if "pipelines.train" in process.cmdline() and process.cwd().startswith(str(project)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_training(project: Path) -> bool:
    """Whether a training is under way that has saved a checkpoint."""
    return bool(trainers(project)) and any(project.glob(".state/checkpoints/*/epoch-*.pt"))


def has_kept(project: Path) -> bool:
    return any(project.glob(".state/checkpoints/*/epoch-*.pt"))


def start(project: Path, server: Server, *arguments: str) -> subprocess.Popen:
    """A command of the flow in the background, its output in `output` beside the project's files."""
    with (project / "output.tmp").open("w") as output:
        return subprocess.Popen(
            [*FLOW, *arguments],
            cwd=project,
            env=environment() | server.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """The URL of a web server, and what was posted to it."""
    heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}/", heard
        listener.shutdown()
