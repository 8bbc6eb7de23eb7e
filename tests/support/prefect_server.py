"""A Prefect server of the tests' own."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.workspace import environment


class Server:
    """A Prefect server of its own, and its API."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {"PREFECT_HOME": str(folder), "PREFECT_API_URL": self.url, "PREFECT_UI_ENABLED": "false"}
        self.start()

    def start(self) -> None:
        command = ["prefect", "server", "start", "--port", str(self.port)]
        with open(os.devnull, "w") as nothing:
            self.process = subprocess.Popen(
                command, env=environment() | self.environment, stdout=nothing, stderr=nothing, start_new_session=True
            )
        wait_until(self.answers, seconds=180)

    def answers(self) -> bool:
        try:
            return bool(self.get("/health"))
        except OSError:
            return False

    def get(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        for _ in range(10):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503:  # its database is busy: as Prefect's own clients do, again
                    raise
                time.sleep(1)
        raise OSError(f"{path} stays unavailable")

    def flow_runs(self, flow: str) -> list[dict]:
        """The newest first; those that have been started or are over."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found = self.get("/flow_runs/filter", body)
        return [entry for entry in found if entry["state_type"] not in ("SCHEDULED", "PENDING")]

    def state(self, flow_run: str) -> tuple[str, str]:
        state = self.get(f"/flow_runs/{flow_run}")["state"]
        return state["type"], state["name"]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait_until(reached, seconds=300):
    end = time.monotonic() + seconds
    while not (result := reached()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)
    return result
