"""Ranks that torchrun started: real processes, in which one differs, fails alone, falls silent, or is asked to stop."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.ranks import started
from tests.support.workspace import ROOT, run

pytestmark = pytest.mark.medium


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "other facts",
            r"error: the ranks .* learning_rate is 0\.05 on rank 0 on \S+ and 0\.01 on rank 1 on \S+: mend it",
        ),
        ("one fails", r"rank 1 on \S+: error: models/0\.5 is missing"),
    ],
)
def test_what_is_wrong_in_one_rank_is_said_once_and_ends_all(case, said):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = run(ROOT, *torchrun, str(ROOT / "tests/support/in_world.py"), case, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if re.search(r"(^|: )error: ", line)]
    assert len(lines) == 1, done.stderr
    assert re.fullmatch(said, lines[0])


WAITING = ["one waits in a meeting", "one waits in a collective"]


@contextmanager
def two_ranks(case: str, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Both at the place where rank 0 waits for rank 1."""
    command = [sys.executable, str(ROOT / "tests/support/in_world.py"), case]
    with started(2, *command, OMP_NUM_THREADS="1", **variables) as ranks:
        assert [rank.stdout.readline() for rank in ranks] == ["waits\n"] * 2
        time.sleep(0.5)  # until rank 0 is in the call that follows the word
        yield ranks


@pytest.mark.slow
@pytest.mark.parametrize("case", WAITING)
def test_a_silent_rank_is_named_and_ends_the_others(case):
    with two_ranks(case, SMOOTHMIX_SILENCE_SECONDS="6") as (waiting, silent):
        silent.send_signal(signal.SIGSTOP)
        _, said = waiting.communicate(timeout=6 + 20)
        assert waiting.returncode == 1
        assert re.search(r"error: rank 1 on \S+ has given no sign of life for 6 s: ", said), said
        assert silent.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("case", WAITING)
def test_a_rank_that_waits_stops_when_asked_and_then_the_one_that_works(case):
    with two_ranks(case) as (waiting, working):
        waiting.terminate()
        _, said = waiting.communicate(timeout=40)
        assert waiting.returncode == 75
        assert re.fullmatch(r"rank 0 on \S+: stopped.*; what is finished is kept.*\n", said)
        _, said = working.communicate(timeout=60)
        assert working.returncode == 75
        assert said == "", "rank 0, on the same machine, has said it"
