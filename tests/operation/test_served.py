"""`flow serve`: a cron that is none is one line, and a request to end is followed without a Prefect server too."""

import subprocess
import sys
import time

import psutil
import pytest

from tests.support.workspace import ROOT, environment, run

pytestmark = pytest.mark.medium

STUCK = """
import subprocess, time
from pipelines.operation import served
served.SECONDS_TO_END = 1
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
served.end_in_time()
time.sleep(1000)
"""


@pytest.mark.parametrize("cron", ["0 25 * * *", ""])
def test_a_cron_that_is_none_is_one_line(cron):
    done = run(ROOT, sys.executable, "-m", "pipelines.flow", "serve", "--cron", cron)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --cron is {cron!r}: give five fields, for example '0 2 * * *'\n"


def test_a_process_that_is_stuck_in_its_end_ends_with_its_runs():
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert time.monotonic() - start < 300
    left = int(done.stdout)
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
