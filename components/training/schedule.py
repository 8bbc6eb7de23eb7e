"""When a training reports, saves and stops. All ranks decide alike, by the clock; no result depends on it."""

import time

from components.training.ranks import Ranks

REPORT_EVERY_SECONDS = 1.0
NOTHING, REPORT, SAVE, STOP = range(4)
"""What may be due between two steps; each includes the one before."""


class Schedule:
    """Decides after each step what is due."""

    def __init__(self, ranks: Ranks, deadline: float, checkpoint_seconds: float) -> None:
        """Args:
        deadline: when to stop, on the monotonic clock.
        checkpoint_seconds: time between two checkpoints; a checkpoint is also saved at the end of each epoch.
        """
        self._ranks, self._deadline, self._checkpoint_seconds = ranks, deadline, checkpoint_seconds
        self._reported = self._saved = time.monotonic()

    def due(self, *, stop_asked: bool, epoch_done: bool) -> int:
        """NOTHING, REPORT, SAVE or STOP."""
        now, due = time.monotonic(), NOTHING
        if stop_asked or now >= self._deadline:
            due = STOP
        elif epoch_done or now - self._saved >= self._checkpoint_seconds:
            due = SAVE
        elif now - self._reported >= REPORT_EVERY_SECONDS:
            due = REPORT
        due = self._ranks.largest(due)
        if due >= REPORT:
            self._reported = now
        if due >= SAVE:
            self._saved = now
        return due
