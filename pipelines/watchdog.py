"""Stops a process, with its progress kept, when the DVC or the flow that started it is gone.

A process that is killed by SIGKILL cannot stop its children. So each process that DVC or a flow starts watches its
parent and, if there is one, the flow (only on Linux). A promotion and the certification that it starts do the same,
although DVC does not run them.
"""

import os
import select
import signal
import threading
import time
from pathlib import Path

FLOW_PID = "SMOOTHMIX_FLOW_PID"
"""Environment variable: the process of the flow, or of the promotion, that a process belongs to."""
FLOW_RUN, FLOW_RUN_URL = "SMOOTHMIX_FLOW_RUN", "SMOOTHMIX_FLOW_RUN_URL"
"""Environment variables: id and address of the Prefect flow run that a process belongs to."""
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"}
SECONDS_TO_STOP = 60.0


def watch() -> None:
    """If DVC or a flow started this process, stop it as Ctrl-C does once its parent or the flow is gone."""
    if ("DVC_STAGE" in os.environ or FLOW_PID in os.environ) and hasattr(os, "pidfd_open"):
        threading.Thread(target=_stop_when_alone, daemon=True).start()


def _stop_when_alone() -> None:
    try:
        ends = [os.pidfd_open(pid) for pid in _started_by()]
    except (ProcessLookupError, FileNotFoundError):
        ends = []  # gone already
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    if ends:
        poll.poll()  # returns when the first of them ends
    os.kill(os.getpid(), signal.SIGINT)  # without a word: nobody may be left to read it
    time.sleep(SECONDS_TO_STOP)
    os.kill(os.getpid(), signal.SIGKILL)


def _started_by() -> list[int]:
    """The processes that this one ends with: its parent, which is DVC or a shell of DVC's or the flow; and the flow.

    Raises:
        ProcessLookupError, FileNotFoundError: one of them is gone.
    """
    pids = [os.getppid()]
    if _name(pids[0]) in SHELLS:
        pids.append(_parent(pids[0]))
    if pids[-1] == 1 and not _name(1).startswith(("dvc", "python")):
        raise ProcessLookupError("the parent is gone: the system has adopted its child")
    if FLOW_PID in os.environ:
        pids.append(int(os.environ[FLOW_PID]))
    return pids


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return int(status.rpartition(")")[2].split()[1])  # after the name, which may hold spaces
