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
    """Looks at the registry now and then, in a thread; the service answers on, whatever it finds.

    Loading another version is left to a restart: a change of answers should not come unasked.
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
        except Exception:  # a server that is down, an alias that was removed: what it points at is not known
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
