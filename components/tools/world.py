"""The processes ("ranks") that torchrun started for one stage: they find each other, compare what they work on, hear of
each other while they live, and end together.

All of it goes through the key-value store of torchrun's agent, by short questions: a rank that waits here goes on
hearing signals, and may wait for hours for one that is slower, as long as that one gives signs of life.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, NoReturn

from components.tools.provenance import versions
from components.tools.roll_call import POLL, LostRank, call_roll, wait_for_all

BEAT = 1.0
"""Seconds between two signs of life."""
TALK = 3.0
"""Seconds for the others to say how they end, where this rank ends for one of them, or may say the same as they do."""
BY_ITSELF = 10.0
"""Seconds for a rank to end by itself once it was asked to, or once another one has ended: it is interrupted then, and
has twice as long again."""


def silence_allowed() -> float:
    """Seconds without a sign of life after which a rank counts as lost."""
    return float(os.environ.get("SMOOTHMIX_SILENCE_SECONDS", 20))


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
        self._meetings = 0
        self._collective: object = None
        """The one under way: each is another object."""
        self._interrupted = False
        self._end: End | None = None
        self._over = threading.Event()
        self._deaf = False
        """Whether the store has gone with its machine: it will not come back, and torch prints a page per question."""

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
            facts: by name, JSON-able; the same in all ranks where all is well, as the versions of what computes are.

        Raises:
            ValueError: in every rank alike, naming what differs, where, and the remedy.
        """
        everyone = [json.loads(message) for message in self.meet(json.dumps(facts | versions()))]
        told = []
        for name in dict.fromkeys(name for those in everyone for name in those):
            values = [those.get(name) for those in everyone]
            other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
            if other is not None:
                both = (f"{str(values[rank])[:40]} on {self.name(rank)}" for rank in (0, other))
                told.append(f"{name} is {' and '.join(both)}")
        if told:
            more = f", and {len(told) - 3} more" if len(told) > 3 else ""
            raise ValueError(f"the ranks are not at work on the same thing: {'; '.join(told[:3])}{more}: {remedy}")

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective operation of torch.distributed, in which no Python code runs.

        Raises:
            LostRank: instead of what torch says when a connection is closed or times out.
        """
        self._collective = object()
        try:
            yield
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise LostRank(f"the connection to another rank is lost ({reason})") from None
        finally:
            self._collective = None

    # --- the end

    def last_words(self, code: int, line: str, *, lost: bool = False) -> tuple[int, str]:
        """Tell the others how this rank ends; gives the exit code, and what this rank has to print.

        What all say alike is printed once per machine; what one says alone, with its name.

        Args:
            lost: whether it ends because another one did, which then is what is told.
        """
        if self.size == 1:
            return code, line
        for number in (signal.SIGINT, signal.SIGTERM):  # it ends already, and an agent that restarts all asks it to
            signal.signal(number, signal.SIG_IGN)
        end = End(code, line, self.rank)
        if lost or self._interrupted:
            end = self._cause(self._hear(self._cause)) or end
        return self._tell(end)

    def _tell(self, end: End) -> tuple[int, str]:
        """Tell the others; gives the exit code, and what this rank has to print."""
        self._end = end
        if not self._deaf:
            try:
                self._store.set(f"end/{self.rank}", json.dumps(end))
            except RuntimeError:
                self._deaf = True
        if not end.code:
            return end.code, ""
        ends = self._hear(lambda ends: len(ends) == len(self._others)) | {self.rank: end}
        here = [rank for rank in ends if self.hosts[rank] == self.hosts[self.rank] and ends[rank][:2] == end[:2]]
        speaker = min(here, key=lambda rank: (ends[rank].of != rank, rank))  # the one at fault, if it is here
        if speaker != self.rank:
            return end.code, ""
        all_alike = all(ends.get(rank) == end._replace(of=rank) for rank in range(self.size))
        return end.code, end.line if all_alike else f"{self.name(end.of)}: {end.line}"

    def _ends(self) -> dict[int, End]:
        """Of the other ranks, those that have ended."""
        if self._deaf:
            return {}
        try:
            ended = [rank for rank in self._others if self._store.check([f"end/{rank}"])]
            return {rank: End(*json.loads(self._store.get(f"end/{rank}"))) for rank in ended}
        except RuntimeError:
            self._deaf = True
            return {}

    def _hear(self, enough: Callable[[dict[int, End]], object]) -> dict[int, End]:
        """The ends of the others, as soon as they are enough, after TALK seconds, or once the store has gone."""
        until = time.monotonic() + TALK
        while not enough(ends := self._ends()) and not self._deaf and time.monotonic() < until:
            time.sleep(POLL)
        return ends

    def _cause(self, ends: dict[int, End]) -> End | None:
        """The end of another rank that this one ends for."""
        return next((end for end in ends.values() if end.code and end.of != self.rank), None)

    def _refuse_ended(self, waited_for: list[int]) -> None:
        for rank in self._ends().keys() & set(waited_for):
            raise LostRank(f"{self.name(rank)} has ended")

    # --- signs of life, in a thread of their own

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Within it, give signs of life, and look for those of the others.

        Raises:
            LostRank: another one has ended before it began.
        """
        self._store.set(f"pulse/{self.rank}", "0")
        self._signals, written_by_signals = os.pipe()
        for end in (self._signals, written_by_signals):
            os.set_blocking(end, False)
        self.meet()
        before = signal.set_wakeup_fd(written_by_signals, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
        finally:
            if self._end is None:
                self._tell(End(0, "", self.rank))
            self._over.set()
            signal.set_wakeup_fd(before)

    def _watch(self) -> None:
        """Every BEAT seconds: give a sign of life, look for those of the others, and see to it that this rank ends once
        another one has, or once it is asked to and cannot hear it. Time is counted in own beats: a machine that slept
        does not take the others for dead."""
        lasted: Counter[Any] = Counter()
        pulses, asked_in = [b""] * len(self._others), None

        def lasts(what: Any, holds: bool) -> float:
            """For how many seconds it has held."""
            lasted[what] = lasted[what] + 1 if holds else 0
            return BEAT * lasted[what]

        while not self._over.wait(BEAT):
            before, pulses = pulses, self._exchange_pulses()
            ends = self._ends()
            for rank, pulse, pulse_before in zip(self._others, pulses, before, strict=True):
                self._judge_silence(rank, lasts(rank, pulse == pulse_before and rank not in ends))

            cause = self._cause(ends) if self._end is None else None
            left = lasts("left", cause is not None)
            if left >= BY_ITSELF and not self._interrupted:
                self._interrupted = True
                os.kill(os.getpid(), signal.SIGINT)

            if self._asked_to_stop():
                asked_in = self._collective
            stuck = lasts("stuck", asked_in is not None and asked_in is self._collective)  # there no handler can run
            if left >= 3 * BY_ITSELF or stuck >= BY_ITSELF:
                stopped = End(75, "stopped while it waited for another rank; what is finished is kept", self.rank)
                self._end_now(cause or stopped)

    def _exchange_pulses(self) -> list[bytes]:
        """Give a sign of life, and take those of the others."""
        try:
            self._store.add(f"pulse/{self.rank}", 1)
            return self._store.multi_get([f"pulse/{rank}" for rank in self._others])
        except RuntimeError:
            self._deaf = True
            line = "error: the machine of rank 0, or torchrun there, does not answer any more"
            self._end_now(End(1, line, self.rank))

    def _judge_silence(self, rank: int, seconds: float) -> None:
        told = f"{self.name(rank)} has given no sign of life for {seconds:.0f} s"
        if 0 <= seconds - silence_allowed() / 3 < BEAT:
            print(told, file=sys.stderr, flush=True)
        if seconds >= silence_allowed():
            self._end_now(End(1, f"error: {told}: see what it does", self.rank))

    def _asked_to_stop(self) -> bool:
        with suppress(BlockingIOError):
            return bool({signal.SIGINT, signal.SIGTERM} & set(os.read(self._signals, 1000)))
        return False

    def _end_now(self, end: End) -> NoReturn:
        """End this process like a crash, which an agent that may restart it all takes for one."""
        code, line = self._tell(end)
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
    try:
        with world.alive():
            yield world
    finally:
        _CURRENT = World()
