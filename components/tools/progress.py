"""Progress of long loops on stderr: a bar on a terminal, a line now and then in a log."""

import sys
import time

from components.tools.wording import counted

LOG_EVERY_SECONDS = 10.0
REDRAW_EVERY_SECONDS = 0.2


class Progress:
    """Counts `total` units of work; use as a context manager."""

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        """Args:
        unit: in the plural.
        done: units finished by an earlier run; they count as done but not for the rate.
        """
        self._what, self._total, self._unit = what, total, unit
        self._before = self._done = done
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            print(file=sys.stderr)

    def advance(self, units: int = 1, note: str = "") -> None:
        self._done += units
        now = time.monotonic()
        wait = REDRAW_EVERY_SECONDS if self._terminal else LOG_EVERY_SECONDS
        if now - self._shown >= wait or self._done >= self._total:
            self._shown = now
            self._show(now, note)

    def _show(self, now: float, note: str) -> None:
        rate = (self._done - self._before) / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        line = f"{self._what}: {self._done}/{counted(self._total, self._unit)}, {pace(rate)}, {left:.0f} s left"
        line += f", {note}" if note else ""
        if self._terminal:
            width = 20
            filled = width * self._done // self._total
            print(f"\r[{'#' * filled}{'.' * (width - filled)}] {line}\033[K", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)


def pace(rate: float) -> str:
    """Units per second as text; for slow work, seconds per unit."""
    if rate >= 10:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 0.95 or not rate else f"{1 / rate:,.1f} s each"
