"""Commands that start warm are like commands that start really."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.warm_start import PYTHON
from tests.support.workspace import ROOT

pytestmark = pytest.mark.medium

FACTS = """
import os, sys
print(sys.argv, sys.path, sys.flags, __name__, os.getcwd(), os.environ.get("SMOOTHMIX_TEST"))
print("an error", file=sys.stderr)
"""


def outcome(python, *command, cwd, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run([*python, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.rpartition("\n  File")[2].partition("\n")[2] or done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("-c", FACTS, "first", "second"),
        ("-m", "facts", "first", "second"),
        ("-c", "raise SystemExit(3)"),
        ("-c", "raise SystemExit('a message')"),
        ("-c", "1 / 0"),
        ("-c", "raise KeyboardInterrupt"),
        ("-c", "import os; os.kill(os.getpid(), 9)"),
        ("-c", "import atexit; atexit.register(print, 'the end', end='')"),
        ("-c", "import mlflow; print(mlflow.__file__)"),
    ],
)
def test_a_command_does_the_same(tmp_path, command):
    (tmp_path / "facts.py").write_text(FACTS)
    (tmp_path / "mlflow.py").write_text("")
    assert outcome(PYTHON, *command, cwd=tmp_path) == outcome([sys.executable], *command, cwd=tmp_path)


LOADED = "import os, sys; print('torch' in sys.modules, any(name.startswith('components') for name in sys.modules))"


def test_libraries_are_there_but_nothing_of_the_project(tmp_path):
    assert outcome(PYTHON, "-c", LOADED, cwd=tmp_path)[1] == "True False\n"


@pytest.mark.parametrize("variables", [{"OMP_NUM_THREADS": "3"}, {"PYTHONIOENCODING": "ascii"}, {"UNKNOWN": ""}])
def test_a_variable_that_a_library_may_read_starts_it_really(tmp_path, variables):
    assert outcome(PYTHON, "-c", LOADED, cwd=tmp_path, **variables)[1] == "False False\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_reaches_it(tmp_path, number):
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    process = subprocess.Popen([*PYTHON, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    assert pid != process.pid
    process.send_signal(number)
    assert process.wait(10) == -number
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, "it is left behind"
        time.sleep(0.01)
