"""What one rank of a small world does, started by torchrun: in_world.py CASE."""

import sys

from components.tools.world import current
from pipelines.cli import guard


def stage(case: str) -> None:
    world = current()
    world.meet()
    if case == "other facts":
        world.compare({"learning_rate": [0.05, 0.01][world.rank], "seed": 0}, "mend it")
    if case == "one fails" and world.rank == 1:
        raise ValueError("models/0.5 is missing")
    world.meet()


if __name__ == "__main__":
    sys.exit(guard(stage, sys.argv[1]))
