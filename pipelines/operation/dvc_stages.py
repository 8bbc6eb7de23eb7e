"""The stages of dvc.yaml as processes that can be stopped: read from DVC, run by DVC, each in a process group."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from components.tools.wording import counted
from pipelines.cli import STOPPED_EARLY
from pipelines.watchdog import FLOW_PID

LAST_LINES = 15
SECONDS_TO_STOP = 20.0
"""Between SIGINT, at which a stage keeps its progress, and SIGKILL; Prefect gives a cancelled flow 30 seconds."""


class StageFailed(RuntimeError):
    """A stage exited with an error or ran into its timeout; the message holds its name and its last lines."""


class StageStopped(RuntimeError):
    """A stage stopped on request or at its time budget, with its progress kept: it is neither done nor worth a
    retry."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml; retries and timeout are its `meta`, which DVC leaves alone."""

    name: str
    needs: list[str]
    always_changed: bool
    retries: int
    timeout_minutes: float | None


@dataclass(frozen=True)
class Place:
    """The part of this machine that a process may use; by default all of it."""

    environment: dict[str, str] = field(default_factory=dict)
    cores: frozenset[int] | None = None


EVERYWHERE = Place()


def read_graph(folder: Path) -> list[Stage]:
    """The stages of a workspace, each after those it needs.

    Raises:
        ValueError: naming a `meta` entry of dvc.yaml that is unknown or out of range.
    """
    import networkx
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        graph = repo.index.graph  # edges run from a stage to what it depends on
        levels = networkx.topological_generations(graph.reverse())  # the noise levels of one stage stand together
        ordered = [stage for level in levels for stage in sorted(level, key=lambda stage: stage.name)]
        return [
            Stage(
                stage.name,
                [needed.name for needed in graph.successors(stage)],
                stage.always_changed,
                **_check_meta(stage.name, stage.meta or {}),
            )
            for stage in ordered
        ]


def _check_meta(stage: str, meta: dict[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(meta) - {"retries", "timeout_minutes"}):
        raise ValueError(f"dvc.yaml: meta of {stage} has {unknown[0]!r}: must be retries or timeout_minutes")
    retries, minutes = meta.get("retries", 0), meta.get("timeout_minutes")
    if not isinstance(retries, int) or retries < 0:
        raise ValueError(f"dvc.yaml: meta.retries of {stage} is {retries!r}: must be a whole number >= 0")
    if minutes is not None and not (isinstance(minutes, int | float) and minutes > 0):
        raise ValueError(f"dvc.yaml: meta.timeout_minutes of {stage} is {minutes!r}: must be a number > 0, or left out")
    return {"retries": retries, "timeout_minutes": minutes}


def dvc_repro(stage: str, *options: str) -> list[str]:
    """The command that brings one stage up to date."""
    return [sys.executable, "-m", "dvc", "repro", "--single-item", *options, stage]


def has_run(stage: str, lines: list[str]) -> bool:
    """Whether DVC's output shows that it ran a stage, which was neither up to date nor in the run cache."""
    return f"Running stage '{stage}':" in lines


class ProcessGroups:
    """The process groups of one flow, which are stopped together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def run(
        self,
        name: str,
        command: list[str],
        folder: Path,
        say: Callable[[str], None],
        timeout_minutes: float | None = None,
        place: Place = EVERYWHERE,
    ) -> list[str]:
        """Run a command in its own process group and return its output lines; each line is also passed to `say` at
        once.

        Raises:
            StageStopped: it was stopped on request, or its exit code says that it stopped early.
            StageFailed: it exited with an error, or was stopped at the timeout.
        """
        process = self._start(name, command, folder, place)
        lines = []
        try:
            with _stopped_after(timeout_minutes, process) as timed_out:
                for line in _output(process):
                    lines.append(line)
                    say(line)
                code = process.wait()
        finally:
            self._forget(process)
        if code == 0:
            return lines
        last = "\n".join(lines[-LAST_LINES:])
        if self._stopping:
            raise StageStopped(f"{name} was stopped; what is finished is kept")
        if timeout_minutes and timed_out():
            limit = counted(timeout_minutes, "minutes", form="g")
            raise StageFailed(f"stage {name} was stopped at its timeout of {limit}:\n{last}")
        # DVC prints a stage's exit code, and its own is always the same; promote runs without DVC
        if code == STOPPED_EARLY or re.search(rf"exited with {STOPPED_EARLY}\b", last):
            raise StageStopped(f"{name} stopped early; all of it is kept, the next run goes on")
        raise StageFailed(f"stage {name} exited with {code}; its last lines:\n{last}")

    def _start(self, name: str, command: list[str], folder: Path, place: Place) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        with self._lock, _on_cores(place.cores):
            if self._stopping:
                raise StageStopped(f"{name} was not started: the run is being stopped")
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that the trainer can be stopped along with DVC
                env=os.environ | {"PATH": path, FLOW_PID: str(os.getpid())} | place.environment,
            )
            self._running.add(process)
        return process

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:  # `say` failed, or this thread was interrupted
            stop(process)
            process.wait()
        if process.stdout:
            process.stdout.close()
        with self._lock:
            self._running.discard(process)

    def stop_all(self) -> None:
        """Stop all running processes, and start no more."""
        with self._lock:
            self._stopping = True
            stoppers = [threading.Thread(target=stop, args=(process,)) for process in self._running]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()


@contextmanager
def _on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """Within the block, this thread and the processes that it starts run on these cores only."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def stopped_at_the_end() -> Iterator[ProcessGroups]:
    """ProcessGroups that stop with the flow, whatever ends it."""
    processes = ProcessGroups()
    try:
        yield processes
    finally:
        processes.stop_all()


def _output(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines that a process writes, without the empty ones."""
    assert process.stdout
    for raw in process.stdout:
        if line := raw.decode(errors="replace").rstrip():
            yield line


@contextmanager
def _stopped_after(minutes: float | None, process: subprocess.Popen[bytes]) -> Iterator[Callable[[], bool]]:
    """Within the block, stop the process's group after `minutes`; the yielded function tells whether that happened."""
    reached = threading.Event()

    def stop_late() -> None:
        reached.set()
        stop(process)

    timer = threading.Timer(60 * (minutes or 0), stop_late)
    if minutes is not None:
        timer.start()
    try:
        yield reached.is_set
    finally:
        timer.cancel()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the group that a process leads, and SIGKILL to what is left of it after `SECONDS_TO_STOP`."""
    for number in (signal.SIGINT, signal.SIGKILL):
        deadline = time.monotonic() + SECONDS_TO_STOP
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        while group_lives(process.pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        else:
            return


def group_lives(group: int) -> bool:
    """Whether a group still has a living process; zombies do not count."""
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
        except (OSError, psutil.Error):  # it ended meanwhile, or is somebody else's
            continue
    return False
