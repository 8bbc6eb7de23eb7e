"""The processes ("ranks") that torchrun started for one stage: they find each other, compare what they work on, hear of
each other while they live, and end together.

All of it goes through the key-value store of torchrun's agent, by short questions: a rank that waits here goes on
hearing signals, and may wait for hours for one that is slower, as long as that one gives signs of life.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

from components.tools.roll_call import POLL, LostRank, call_roll, wait_for_all

BEAT = 1.0
"""Seconds between two signs of life."""
ALIKE = 2.0
"""Seconds for others to say the same, so that it is said once."""
CAUSE = 5.0
"""Seconds for a rank that closed its connections to say why."""
BY_ITSELF = 10.0
"""Seconds for a rank to end by itself once another one has ended, or once it was asked to."""
ASKED = 20.0
"""Seconds for a rank to end once it was interrupted because another one had ended."""


def silence_allowed() -> float:
    """Seconds without a sign of life after which a rank counts as lost."""
    return float(os.environ.get("SMOOTHMIX_SILENCE_SECONDS", 60))


class End(NamedTuple):
    """How a rank ended: its exit code, its sentence, and the rank that this was the fault of."""

    code: int
    line: str
    of: int


class World:
    """The ranks as one of them sees them; a single one talks to nobody."""

    def __init__(self, rank: int = 0, hosts: tuple[str, ...] = ("",), store: Any = None, attempt: int = 0) -> None:
        """Args:
        hosts: the machine of each rank.
        attempt: tells the keys of this world from those of one before a restart.
        """
        self.rank, self.size, self.hosts, self.attempt = rank, len(hosts), hosts, attempt
        self._store = store
        self._others = [other for other in range(self.size) if other != rank]
        self._meetings = self._collectives = 0
        self._in_collective = self._interrupted = False
        self._end: End | None = None
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._watch, daemon=True)

    def name(self, rank: int) -> str:
        """For people."""
        return f"rank {rank} on {self.hosts[rank]}"

    # --- what stages ask for

    def meet(self, message: str = "") -> list[str]:
        """Wait until all ranks have come here, and give the message of each.

        Raises:
            LostRank: one of them has ended instead.
        """
        if self.size == 1:
            return [message]
        self._meetings += 1
        keys = [f"meeting {self._meetings}/{rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], message)
        wait_for_all(lambda rank: self._store.check([keys[rank]]), self._others, self.name, self._refuse_ended)
        return [value.decode() for value in self._store.multi_get(keys)]

    def compare(self, facts: dict[str, Any], remedy: str) -> None:
        """Refuse ranks that are not at work on the same thing.

        Args:
            facts: by name, JSON-able; the same in all ranks where all is well.

        Raises:
            ValueError: in every rank alike, naming what differs, where, and the remedy.
        """
        everyone = [json.loads(message) for message in self.meet(json.dumps(facts))]
        names = dict.fromkeys(name for those in everyone for name in those)
        differing = [name for name in names if any(those.get(name) != everyone[0].get(name) for those in everyone)]
        if differing:
            told = [self._difference(name, [those.get(name) for those in everyone]) for name in differing[:3]]
            more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise ValueError(f"the ranks are not at work on the same thing: {'; '.join(told)}{more}: {remedy}")

    def _difference(self, name: str, values: list[Any]) -> str:
        other = next(rank for rank, value in enumerate(values) if value != values[0])
        one, two = (f"{str(values[rank])[:40]} on {self.name(rank)}" for rank in (0, other))
        return f"{name} is {one} and {two}"

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective operation of torch.distributed, in which no Python code runs.

        Raises:
            LostRank: instead of what torch says when a connection is closed or times out.
        """
        self._collectives += 1
        self._in_collective = True
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LostRank(f"the connection to another rank is lost ({reason})") from None
        finally:
            self._in_collective = False

    # --- the end

    def last_words(self, code: int, line: str, *, lost: bool = False) -> tuple[int, str]:
        """Tell the others how this rank ends; gives the exit code, and what this rank has to print.

        What all say alike is printed once per machine; what one says alone, with its name.

        Args:
            lost: whether it ends because another one did, which then is what is told.
        """
        if self.size == 1:
            return code, line
        end = End(code, line, self.rank)
        if lost or self._interrupted:
            end = self._cause() or end
        self._say_end(end)
        ends = self._ends() if code else {}
        until = time.monotonic() + ALIKE
        while code and len(ends) < len(self._others) and time.monotonic() < until:
            time.sleep(POLL)
            ends = self._ends()
        ends[self.rank] = end
        alike = len(ends) == self.size and all(other[:2] == end[:2] and other.of == r for r, other in ends.items())
        guilty = end.of == self.rank
        here = [rank for rank in ends if self.hosts[rank] == self.hosts[self.rank]]
        same = [rank for rank in here if ends[rank][:2] == end[:2] and (ends[rank].of == rank) == guilty]
        said_there = not guilty and self.hosts[end.of] == self.hosts[self.rank]
        if not end.line or min(same) < self.rank or said_there:
            return end.code, ""
        return end.code, end.line if alike else f"{self.name(end.of)}: {end.line}"

    def _say_end(self, end: End) -> None:
        self._end = end
        with suppress(RuntimeError):  # the store has gone with its machine: nobody is left to hear it
            self._store.set(f"end/{self.rank}", json.dumps(end))

    def _ends(self) -> dict[int, End]:
        """Of the other ranks, those that have ended."""
        with suppress(RuntimeError):
            ended = [rank for rank in self._others if self._store.check([f"end/{rank}"])]
            return {rank: End(*json.loads(self._store.get(f"end/{rank}"))) for rank in ended}
        return {}

    def _cause(self) -> End | None:
        """The end of another rank that this one ends for; None if nobody says a word."""
        until = time.monotonic() + CAUSE
        while time.monotonic() < until:
            for end in self._ends().values():
                if end.code and end.of != self.rank:
                    return end
            time.sleep(POLL)
        return None

    def _refuse_ended(self, waited_for: list[int]) -> None:
        for rank in self._ends().keys() & set(waited_for):
            raise LostRank(f"{self.name(rank)} has ended")

    # --- signs of life, in a thread of their own

    def open(self) -> None:
        """Begin to give signs of life, and to look for those of the others."""
        if self.size == 1:
            return
        self._store.set(f"pulse/{self.rank}", "0")
        self._signals, other_end = socket.socketpair()
        for end in (self._signals, other_end):
            end.setblocking(False)
        self._written_by_signals = other_end
        self._wakeup_before = signal.set_wakeup_fd(other_end.fileno(), warn_on_full_buffer=False)
        wait_for_all(lambda rank: self._store.check([f"pulse/{rank}"]), self._others, self.name, self._refuse_ended)
        self._pulse.start()

    def close(self) -> None:
        if self.size == 1:
            return
        if self._end is None:
            self._say_end(End(0, "", self.rank))
        self._over.set()
        signal.set_wakeup_fd(self._wakeup_before)

    def _watch(self) -> None:
        """Every BEAT seconds: give a sign of life, look for those of the others, and see to it that this rank ends once
        another one has, or once it is asked to and cannot hear it. Time is counted in own beats: a machine that slept
        does not take the others for dead."""
        beats, seen, silent = 0, dict.fromkeys(self._others, b""), dict.fromkeys(self._others, 0.0)
        ended_for = stopping_for = 0.0
        stopped_in = None
        while not self._over.wait(BEAT):
            beats += 1
            try:
                self._store.set(f"pulse/{self.rank}", str(beats))
                pulses = self._store.multi_get([f"pulse/{rank}" for rank in self._others])
            except RuntimeError:
                self._give_up("error: the machine of rank 0, or torchrun there, does not answer any more")
            ends = self._ends()
            for rank, pulse in zip(self._others, pulses, strict=True):
                silent[rank] = 0.0 if pulse != seen[rank] or rank in ends else silent[rank] + BEAT
                seen[rank] = pulse
                self._judge_silence(rank, silent[rank])
            ended_for = ended_for + BEAT if self._end is None and any(end.code for end in ends.values()) else 0.0
            if ended_for >= BY_ITSELF and not self._interrupted:
                self._interrupted = True
                os.kill(os.getpid(), signal.SIGINT)
            if ended_for >= BY_ITSELF + ASKED:
                self._end_with(next(end for end in ends.values() if end.code))
            if self._asked_to_stop():
                stopped_in, stopping_for = self._collectives, 0.0
            stopping_for += BEAT
            stuck = self._in_collective and self._collectives == stopped_in
            if stuck and stopping_for >= BY_ITSELF:  # the handler of the signal cannot run there
                print("stopped while it waited for another rank; what is finished is kept", file=sys.stderr)
                os._exit(75)

    def _judge_silence(self, rank: int, seconds: float) -> None:
        allowed = silence_allowed()
        if seconds == max(BEAT, allowed // (3 * BEAT) * BEAT):
            print(f"{self.name(rank)} has given no sign of life for {seconds:.0f} s", file=sys.stderr, flush=True)
        if seconds >= allowed:
            self._give_up(f"error: {self.name(rank)} has given no sign of life for {seconds:.0f} s: see what it does")

    def _asked_to_stop(self) -> bool:
        with suppress(BlockingIOError):
            return bool({signal.SIGINT, signal.SIGTERM} & set(self._signals.recv(1000)))
        return False

    def _give_up(self, line: str) -> NoReturn:
        self._end_with(End(1, line, self.rank))

    def _end_with(self, end: End) -> NoReturn:
        """End this process now, like a crash, which an agent that may restart it all takes for one."""
        code, line = (
            self.last_words(*end[:2]) if end.of == self.rank else (end.code, f"{self.name(end.of)}: {end.line}")
        )
        if line:
            print(line, file=sys.stderr, flush=True)
        os._exit(code)


_CURRENT = World()


def current() -> World:
    """The world that this process has joined; itself alone where it has joined none."""
    return _CURRENT


@contextmanager
def joined() -> Iterator[World]:
    """The ranks that torchrun started together with this one, once all have come; this one alone where it did not.

    Raises:
        LostRank: naming the ranks that have not come in time.
    """
    global _CURRENT
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World()
        return
    rank = int(os.environ["RANK"])
    world = _CURRENT = World(rank, *call_roll(rank, size))
    world.open()
    try:
        yield world
    finally:
        world.close()
        _CURRENT = World()
