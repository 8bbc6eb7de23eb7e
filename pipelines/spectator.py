"""Shows a training to people while it runs. Nothing here changes its result."""

from contextlib import ExitStack
from typing import Any

from components.registry.live import LiveHistory
from components.tools.progress import Progress
from components.training.schedule import REPORT
from components.training.state import Training


class Spectator:
    """Shows a training: a line of progress, and its history in MLflow."""

    def __init__(self, training: Training, title: str, epochs: int, images_per_epoch: int, live: LiveHistory) -> None:
        self._training, self._epochs = training, epochs
        self._shown, self._note = training.epoch, ""
        total, done = epochs * images_per_epoch, training.epoch * images_per_epoch + training.images
        self._progress, self._live = Progress(title, total, "images", done), live
        self._open = ExitStack()

    def __enter__(self) -> "Spectator":
        self._open.enter_context(self._progress)
        self._open.enter_context(self._live)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)

    def after_step(self, images: int, due: int) -> None:
        """Count a step's images; where a report is due, read the figures, which waits for the device."""
        for stats in self._training.history[self._shown :]:
            self._live.log(stats)
        self._shown = self._training.epoch
        if due >= REPORT:
            self._note = self._training.position(self._epochs)
            if self._training.prepared is None:
                loss, accuracy = self._training.running()
                self._note += f", loss {loss:.3f}, accuracy under noise {accuracy:.3f}"
        self._progress.advance(images, self._note)


class NoSpectator(ExitStack):
    """For all ranks but the main one: shows nothing."""

    def after_step(self, images: int, due: int) -> None:
        pass
