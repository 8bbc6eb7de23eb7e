"""What every command line shares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]
TALKATIVE = """
import sys
from pipelines.cli import guard
def talk():
    for number in range(100_000):
        print(number)
sys.exit(guard(talk))
"""


def test_a_reader_that_has_enough_is_no_error():
    read, write = os.pipe()
    command = [sys.executable, "-c", TALKATIVE]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    os.close(write)
    os.close(read)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
