"""Whether the alias that the service was started with still points at the version that answers."""

import json
import threading
import time
from collections.abc import Callable

from components.certification.classifier import REQUESTS

SECONDS = 60.0
"""Between two looks at the registry."""
UNKNOWN = "unknown"


class AliasWatch:
    """Looks up the alias in the registry now and then, in a thread; the service keeps answering, whatever it finds.

    Only a restart loads another version: answers should not change unasked.
    """

    def __init__(self, alias: str, served: str, ask: Callable[[], str]) -> None:
        """Args:
        served: the version that answers.
        ask: the version that the alias points at now; may fail in any way.
        """
        self.alias, self.served, self.version = alias, served, served
        self._ask = ask

    @property
    def moved(self) -> bool:
        """Whether the alias is known to point elsewhere."""
        return self.version not in (self.served, UNKNOWN)

    def look(self) -> None:
        before = self.version
        try:
            self.version = self._ask()
        except Exception:  # the server is down or the alias was removed: its version is not known
            self.version = UNKNOWN
        if self.moved and self.version != before:
            message = f"{self.alias} points at version {self.version} now: start the service again to serve it"
            line = {"event": "alias moved", "time": time.time(), "version": self.served, "message": message}
            REQUESTS.warning(json.dumps(line))

    def start(self, seconds: float = SECONDS) -> None:
        """Look every so many seconds until the process ends."""

        def look_for_ever() -> None:
            while True:
                time.sleep(seconds)
                self.look()

        threading.Thread(target=look_for_ever, name="alias", daemon=True).start()
