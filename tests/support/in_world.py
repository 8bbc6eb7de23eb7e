"""What one rank of a small world does, started by torchrun or alone with its variables: in_world.py CASE."""

import sys
import time
from collections.abc import Callable

import torch

from components.tools.world import current
from components.training.ranks import connected
from pipelines.cli import guard


def stage(case: str) -> None:
    world = current()
    world.meet()
    if case == "other facts":
        world.compare({"learning_rate": [0.05, 0.01][world.rank], "seed": 0}, "mend it")
    if case == "one fails" and world.rank == 1:
        raise ValueError("models/0.5 is missing")
    if case == "one waits in a meeting":
        wait_for_rank_1(world.rank, world.meet)
    if case == "one waits in a collective":
        with connected(torch.device("cpu")) as ranks:
            wait_for_rank_1(world.rank, lambda: ranks.largest(0))
    world.meet()


def wait_for_rank_1(rank: int, wait: Callable[[], object]) -> None:
    """Rank 1 does not come for longer than any test waits."""
    print("waits", flush=True)
    wait() if rank == 0 else time.sleep(600)


if __name__ == "__main__":
    sys.exit(guard(stage, sys.argv[1]))
