"""Ranks that torchrun started: real processes, in which one differs, or fails alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.command

ROOT = Path(__file__).parents[2]


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
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(ROOT / "tests/support/in_world.py"), case],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if re.search(r"(^|: )error: ", line)]
    assert len(lines) == 1, done.stderr
    assert re.fullmatch(said, lines[0])
