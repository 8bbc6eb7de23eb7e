"""How the processes of one stage find each other: in the key-value store of torchrun's agent."""

import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

POLL = 0.05
FIRST_WORD, NEXT_WORDS = 10.0, 600.0
"""After how many seconds of waiting it is said for whom, and how often then."""


def arrival_allowed() -> float:
    """Seconds for all ranks to come, from the first one on."""
    return float(os.environ.get("SMOOTHMIX_ARRIVAL_SECONDS", 600))


class LostRank(ConnectionError):
    """Another rank has ended, or cannot be reached."""


def connect() -> Any:
    """A client of the store, of its own: one in which a thread waits answers no other thread."""
    import torch.distributed as dist

    serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and os.environ["RANK"] == "0"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    limit = timedelta(seconds=arrival_allowed())
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]
            address, port, None, serves, limit, wait_for_workers=False, multi_tenant=True
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostRank(f"torchrun's store at {address}:{port} cannot be reached ({reason})") from None


def call_roll(rank: int, size: int) -> tuple[tuple[str, ...], Any, int]:
    """Wait until all ranks have come; gives the machine of each, their store, and the number of the attempt.

    After a restart the store still holds the keys of those who died. So rank 0 numbers its attempts, and an attempt
    counts for those alone whose own mark is on its list.
    """
    import torch.distributed as dist

    store = connect()
    mine = f"{platform.node()} {uuid.uuid4().hex}"
    attempt = store.add("attempts", int(rank == 0))

    def listed(_: int) -> bool:
        nonlocal attempt
        attempt = store.add("attempts", 0) if rank else attempt
        store.set(f"{attempt}/here/{rank}", mine)
        keys = [f"{attempt}/here/{other}" for other in range(size)]
        if rank == 0 and store.check(keys):
            store.set(f"{attempt}/all", json.dumps([value.decode() for value in store.multi_get(keys)]))
        return store.check([f"{attempt}/all"]) and mine in json.loads(store.get(f"{attempt}/all"))

    def missing(_: int) -> str:
        absent = [str(other) for other in range(size) if not store.check([f"{attempt}/here/{other}"])]
        return f"rank {' and '.join(absent)}" if absent else "rank 0 to begin"

    wait_for_all(listed, [rank], missing, lambda _: None, limit=arrival_allowed())
    hosts = tuple(name.split()[0] for name in json.loads(store.get(f"{attempt}/all")))
    return hosts, dist.PrefixStore(f"attempt {attempt}", store), attempt  # type: ignore[attr-defined]


def wait_for_all(
    is_here: Callable[[int], bool],
    ranks: list[int],
    name: Callable[[int], str],
    check: Callable[[list[int]], None],
    *,
    limit: float = float("inf"),
) -> None:
    """Wait until all of the ranks are here, and say now and then for whom.

    Args:
        check: called with those still waited for; may raise.

    Raises:
        LostRank: after `limit` seconds, naming who has not come.
    """
    start, next_word = time.monotonic(), FIRST_WORD
    while ranks := [rank for rank in ranks if not is_here(rank)]:
        check(ranks)
        waited, names = time.monotonic() - start, ", ".join(map(name, ranks))
        if waited >= limit:
            raise LostRank(f"{names} did not come within {waited:.0f} s: see what was said on that machine")
        if waited >= next_word:
            print(f"waiting for {names} for {waited:.0f} s", file=sys.stderr, flush=True)
            next_word = waited + NEXT_WORDS
        time.sleep(min(0.5, POLL + waited / 20))
