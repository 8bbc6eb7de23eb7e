"""What every command line shares."""

import os
import signal
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


OUT_OF_SHARED_MEMORY = """
import sys
import torch
from torch.utils.data import DataLoader
from pipelines.cli import guard
def decode():
    list(DataLoader(torch.zeros(8, 1 << 20), batch_size=4, num_workers=1))
sys.exit(guard(decode))
"""


def test_a_container_with_little_shared_memory_is_one_line():
    own_mounts = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = "mount -t tmpfs -o size=1m none /dev/shm"
    if subprocess.run([*own_mounts, mount], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    command = [*own_mounts, f'{mount} && exec "$@"', "sh", sys.executable, "-c", OUT_OF_SHARED_MEMORY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /dev/shm has 1 MiB, too little for the worker processes that decode images: ")
    assert done.stderr.count("\n") == 1


WAIT = """
import time
from pipelines.cli import guard
def wait():
    print("ready", flush=True)
    time.sleep(60)
raise SystemExit(guard(wait))
"""


def test_a_stage_listens_to_an_interrupt_that_its_starter_ignores():
    """As what `nohup ... &` starts does; a flow and DVC's watcher stop stages by it."""
    command = f"trap '' INT; exec '{sys.executable}' -c '{WAIT}'"
    pipe = subprocess.PIPE
    stage = subprocess.Popen(["sh", "-c", command], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert stage.stdout.readline() == "ready\n"
    stage.send_signal(signal.SIGINT)
    _, said = stage.communicate(timeout=20)
    assert (stage.returncode, said.startswith("stopped; what is finished is kept")) == (75, True)
