"""Stages as processes: stopped as a group, never orphaned, never two runs at once; and sources that have changed."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pipelines.operation import dvc_stages
from pipelines.operation.dvc_stages import ProcessGroups, StageFailed, StageStopped, group_lives, read_graph
from pipelines.operation.source_state import fingerprint

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
SLEEP = ["sh", "-c", "echo $$; sleep 1000 & sleep 1000"]
STUBBORN = ["sh", "-c", "trap '' INT; echo $$; sleep 1000 & sleep 1000; sleep 1000"]


def wait_until(reached, seconds=60):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


# --- stopping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [SLEEP, STUBBORN])
def test_a_timeout_ends_the_whole_group_also_where_it_ignores_being_asked(command, tmp_path, monkeypatch):
    monkeypatch.setattr(dvc_stages, "SECONDS_TO_STOP", 1.0)
    said, start = [], time.monotonic()
    with pytest.raises(StageFailed, match=r"stage x was stopped at its timeout of 0\.005 minutes"):
        ProcessGroups().run("x", command, tmp_path, said.append, timeout_minutes=0.005)
    assert time.monotonic() - start < 30
    wait_until(lambda: not group_lives(int(said[0])))


def test_stopping_all_ends_what_runs_and_starts_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(dvc_stages, "SECONDS_TO_STOP", 1.0)
    processes, said, caught = ProcessGroups(), [], []

    def run():
        try:
            processes.run("x", SLEEP, tmp_path, said.append)
        except StageStopped as stop:
            caught.append(stop)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: said)
    processes.stop_all()
    thread.join(30)
    assert str(caught[0]) == "x was stopped; what is finished is kept"
    wait_until(lambda: not group_lives(int(said[0])))
    with pytest.raises(StageStopped, match="y was not started"):
        processes.run("y", SLEEP, tmp_path, said.append)


def test_the_lines_and_the_exit_code_of_a_stage_say_how_it_ended(tmp_path):
    said = []
    assert ProcessGroups().run("x", ["sh", "-c", "echo a; echo b >&2"], tmp_path, said.append) == said == ["a", "b"]
    with pytest.raises(StageFailed, match="stage x exited with 3; its last lines:\nbroken"):
        ProcessGroups().run("x", ["sh", "-c", "echo broken; exit 3"], tmp_path, said.append)
    as_dvc_says_it = "echo 'ERROR: failed to reproduce x: failed to run: y, exited with 75'; exit 255"
    with pytest.raises(StageStopped, match="x stopped early"):
        ProcessGroups().run("x", ["sh", "-c", as_dvc_says_it], tmp_path, said.append)


def test_a_command_without_dvc_that_stopped_early_is_no_failure(tmp_path):
    with pytest.raises(StageStopped, match="promote stopped early; all of it is kept"):
        ProcessGroups().run("promote", ["sh", "-c", "exit 75"], tmp_path, print)


def test_where_a_line_cannot_be_said_the_process_is_stopped_and_forgotten(tmp_path):
    processes, said = ProcessGroups(), []

    def say(line):
        said.append(line)
        raise OSError("the log is gone")

    with pytest.raises(OSError, match="the log is gone"):
        processes.run("x", SLEEP, tmp_path, say)
    wait_until(lambda: not group_lives(int(said[0])))
    assert processes._running == set()


def test_processes_that_end_while_all_are_stopped_disturb_nothing(tmp_path):
    """Each run takes itself out of the set that is gone through meanwhile."""
    processes = ProcessGroups()
    threads = [
        threading.Thread(target=processes.run, args=("x", ["sleep", "0.2"], tmp_path, print), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: processes._running)
    with processes._lock:  # as `stop_all` holds it
        wait_until(lambda: all(process.poll() is not None for process in processes._running))
        time.sleep(0.2)
        listed = len(processes._running)
    for thread in threads:
        thread.join(30)
    assert listed
    assert processes._running == set()


# --- no orphans --------------------------------------------------------------------------------------------------


@pytest.fixture
def dvc_stage(tmp_path):
    """A DVC project whose one stage notes its process id, watches what started it, and stays."""
    program = "import os, pathlib, time; from pipelines import watchdog; watchdog.watch();"
    program += "pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(1000)"
    (tmp_path / "stage.py").write_text(program)
    (tmp_path / "dvc.yaml").write_text("stages: {x: {cmd: python stage.py}}")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    return tmp_path


def environment(**extra):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | extra


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_stage_ends_when_dvc_is_killed(dvc_stage, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    dvc = subprocess.Popen(command, cwd=dvc_stage, env=environment(SHELL=shutil.which(shell)), stderr=subprocess.PIPE)
    note = dvc_stage / "pid"
    wait_until(lambda: note.exists() and note.read_text())
    assert not is_gone(int(note.read_text()))
    dvc.kill()
    wait_until(lambda: is_gone(int(note.read_text())))
    dvc.wait()


def test_a_stage_ends_when_the_flow_is_killed(dvc_stage):
    program = (
        "import sys; from pathlib import Path; from pipelines.operation.dvc_stages import ProcessGroups, dvc_repro;"
    )
    program += "ProcessGroups().run('x', dvc_repro('x'), Path.cwd(), print)"
    flow = subprocess.Popen([sys.executable, "-c", program], cwd=dvc_stage, env=environment())
    note = dvc_stage / "pid"
    wait_until(lambda: note.exists() and note.read_text())
    flow.kill()
    flow.wait()
    wait_until(lambda: is_gone(int(note.read_text())))


WATCHED = "import os, pathlib, subprocess, sys, time; from pipelines import watchdog; watchdog.watch();"
CHILD = WATCHED + "pathlib.Path('child').write_text(str(os.getpid())); time.sleep(1000)"
PARENT = WATCHED + "pathlib.Path('parent').write_text(str(os.getpid())); "
PARENT += "subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_what_runs_without_dvc_ends_with_the_flow_and_so_does_what_it_started(tmp_path):
    program = "import sys; from pathlib import Path; from pipelines.operation.dvc_stages import ProcessGroups;"
    program += "ProcessGroups().run('promote', [sys.executable, '-c', *sys.argv[1:]], Path.cwd(), print)"
    flow = subprocess.Popen([sys.executable, "-c", program, PARENT, CHILD], cwd=tmp_path, env=environment())
    notes = [tmp_path / "parent", tmp_path / "child"]
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes))
    flow.kill()
    flow.wait()
    wait_until(lambda: all(is_gone(int(note.read_text())) for note in notes))


def test_a_promotion_ends_where_its_flow_is_gone(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    flow = subprocess.Popen(["true"])
    flow.wait()
    command = [sys.executable, "-m", "pipelines.promote"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(SMOOTHMIX_FLOW_PID=str(flow.pid)))
    assert done.returncode in (75, -signal.SIGINT)  # otherwise 1: there is nothing here to work on


# --- two runs at once --------------------------------------------------------------------------------------------

RUN = """
import time
from pathlib import Path
from pipelines.operation.worktree import only_run
with only_run(print):
    Path("inside").write_text("")
    time.sleep(1000)
"""


def test_a_second_run_waits_for_the_first_even_where_that_is_killed(tmp_path):
    command = [sys.executable, "-u", "-c", RUN]
    inside, waiting = tmp_path / "inside", tmp_path / "waiting"
    first = subprocess.Popen(command, cwd=tmp_path, env=environment())
    wait_until(inside.exists)
    inside.unlink()
    with waiting.open("w") as output:
        second = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=output)
    wait_until(lambda: waiting.read_text().startswith(f"waiting for the run of process {first.pid} on "))
    assert not inside.exists()
    first.kill()
    first.wait()
    wait_until(inside.exists)
    second.send_signal(signal.SIGKILL)
    second.wait()


# --- the graph, and the source -----------------------------------------------------------------------------------


def test_the_graph_has_each_stage_after_what_it_needs_with_its_retries_and_timeout():
    graph = read_graph(ROOT)
    names = [stage.name for stage in graph]
    assert names[:3] == ["brought", "prepare", "validate"]
    assert names[-1] == "register"
    for stage in graph:
        assert all(names.index(needed) < names.index(stage.name) for needed in stage.needs)
    (train,) = (stage for stage in graph if stage.name == "train@0.5")
    assert train.retries == 1
    assert train.timeout_minutes
    assert [stage.name for stage in graph if stage.always_changed] == ["brought", "register"]


@pytest.mark.parametrize(
    ("meta", "complaint"),
    [
        ("{retry: 1}", "meta of x has 'retry': must be retries or timeout_minutes"),
        ("{retries: -1}", "meta.retries of x is -1: must be a whole number >= 0"),
        ("{timeout_minutes: 0}", "meta.timeout_minutes of x is 0: must be a number > 0, or left out"),
    ],
)
def test_wrong_retries_and_timeouts_are_named(dvc_stage, meta, complaint):
    (dvc_stage / "dvc.yaml").write_text(f"stages: {{x: {{cmd: 'true', meta: {meta}}}}}")
    with pytest.raises(ValueError, match=complaint):
        read_graph(dvc_stage)


def test_the_fingerprint_of_a_source_changes_with_its_files_alone(tmp_path):
    root = tmp_path / "images"
    (root / "cats").mkdir(parents=True)
    first, second = root / "cats/1.png", root / "cats/2.png"
    first.write_bytes(b"one")
    seen = [fingerprint(tmp_path / "nothing"), fingerprint(root)]
    assert fingerprint(root) == seen[-1]
    second.write_bytes(b"two")
    seen.append(fingerprint(root))
    second.write_bytes(b"TWO")
    os.utime(second, ns=(1, 1))
    seen.append(fingerprint(root))
    second.rename(root / "cats/3.png")
    seen.append(fingerprint(root))
    seen.append(fingerprint(first))  # an archive is a file
    assert len(set(seen)) == len(seen)
