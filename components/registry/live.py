"""The history of a training, shown in MLflow while it runs. Never stops the training."""

import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from components.training.state import EpochStats


class LiveHistory:
    """Logs each epoch to the training's run. The first failure is printed and ends the logging, but not the training:
    registration logs the missing epochs from the files."""

    def __init__(self, store: Path, experiment: str, training_key: str, facts: dict[str, Any]) -> None:
        """See `tracking.Tracking` and its `start_training_run` for the arguments."""
        self._arguments = (store, experiment, training_key, facts)
        self._run: Any = None
        self._tracking: Any = None

    def __enter__(self) -> "LiveHistory":
        store, experiment, training_key, facts = self._arguments
        try:
            from components.registry import tracking
        except ImportError:
            print("MLflow is not installed here: registration will log this training's history", file=sys.stderr)
            return self
        try:
            self._tracking = tracking.Tracking(store, experiment)
            self._run = self._tracking.start_training_run(training_key, facts)
        except Exception as error:  # whatever a tracking server does, the training goes on
            self._give_up(error)
        return self

    def log(self, stats: EpochStats) -> None:
        if self._run is not None:
            try:
                self._tracking.log_epochs(self._run, [asdict(stats)])
            except Exception as error:
                self._give_up(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            try:
                self._tracking.end_run(self._run, "FINISHED" if kind is None else "KILLED")
            except Exception as failure:
                self._give_up(failure)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        from components.registry.connection import explain, first_line

        remedy = "training goes on, registration will catch up"
        print(explain(error, remedy) or f"MLflow cannot be reached ({first_line(error)}): {remedy}", file=sys.stderr)
