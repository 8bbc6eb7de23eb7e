"""Follows the alias that the service was started with: loads the version that it points at, then lets that answer."""

import json
import threading
import time
from collections.abc import Callable

from components.certification.classifier import REQUESTS

SECONDS = 15.0
"""Between two looks at the registry."""
UNKNOWN = "unknown"


class AliasWatch:
    """Looks up the alias in the registry now and then, in a thread.

    The version that answers goes on answering while another one is loaded, and for good where that cannot be loaded.
    """

    def __init__(self, alias: str, served: str, ask: Callable[[], str]) -> None:
        """Args:
        served: the version that answers.
        ask: the version that the alias points at now; may fail in any way.
        """
        self.alias, self.served, self.version = alias, served, served
        self._ask = ask
        self._said = served
        self._stopped = threading.Event()

    @property
    def moved(self) -> bool:
        """Whether the alias is known to point elsewhere than at the version that answers."""
        return self.version not in (self.served, UNKNOWN)

    def look(self, serve: Callable[[str], None]) -> None:
        """Look once.

        Args:
            serve: loads a version and lets it answer, or fails and changes nothing.
        """
        try:
            self.version = self._ask()
        except Exception:  # the server is down or the alias was removed: its version is not known
            self.version = UNKNOWN
        if not self.moved:
            return
        before = self.served
        try:
            serve(self.version)
        except (
            Exception
        ) as error:  # whatever is wrong with that version, this one answers on; the next look tries again
            if self._said != self.version:
                reason = " ".join(f"{error}".split()) or type(error).__name__
                self._say(f"{self.alias} points at version {self.version}, which cannot be served: {reason}")
        else:
            self.served = self.version
            self._say(f"{self.alias} has moved from version {before} to version {self.version}, which answers now")

    def _say(self, message: str) -> None:
        self._said = self.version
        line = {"event": "alias moved", "time": time.time(), "version": self.served, "message": message}
        REQUESTS.warning(json.dumps(line))

    def start(self, serve: Callable[[str], None], seconds: float = SECONDS) -> None:
        """Look every so many seconds until `stop`."""

        def look_again_and_again() -> None:
            while not self._stopped.wait(seconds):
                self.look(serve)

        threading.Thread(target=look_again_and_again, name="alias", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
