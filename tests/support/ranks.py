"""Ranks of one world without torchrun, which would end one rank for the other."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import TCPStore

from tests.support.workspace import ROOT


@contextmanager
def started(num: int, *command: str, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """The command in `num` ranks, killed at the end; this process holds the store, as torchrun does."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared = os.environ | address | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": str(num)} | variables
    ranks = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()  # also one that is stopped
            rank.communicate()
