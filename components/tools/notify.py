"""Tell a webhook what happened. Never fails, never waits long, never tells the same thing twice."""

import json
import os
import sys
import threading
import urllib.request
from pathlib import Path

URL = "SMOOTHMIX_WEBHOOK_URL"
"""Environment variable that names the webhook; without it nothing is sent."""
SECONDS = 5.0
"""Longest wait for the webhook."""


def send(event: str, facts: dict[str, object], key: str, markers: Path) -> bool:
    """POST {"event": ..., ...facts} as JSON, unless something with this `key` was sent before.

    After a refused connection or an error status, the next call sends the same key again. After a timeout it does not,
    because the webhook may have received the event.

    Returns:
        False if the webhook did not receive the event and a later call should send it again; else True.

    Args:
        key: identity of what happened, such as a hash of it.
        markers: folder that remembers which keys were sent.
    """
    url = os.environ.get(URL)
    if not url:
        return True
    try:
        if not url.startswith(("http://", "https://")):  # urllib would open files too
            raise ValueError(f"{URL} is {url!r}: must begin with http:// or https://")
        body = json.dumps({"event": event, **facts}, default=str).encode()
        marker = markers / "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{event}-{key}")[:200]
        markers.mkdir(parents=True, exist_ok=True)
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return True
        problem = _post(url, body)
    except Exception as error:  # a full disk, facts that are no JSON: whatever it is, the run goes on
        print(f"the webhook was not told of {event}: {error}", file=sys.stderr)
        return False
    if problem is not None:
        print(f"the webhook was not told of {event}: {problem}", file=sys.stderr)
        if not isinstance(problem, TimeoutError):
            marker.unlink(missing_ok=True)
            return False
    return True


def _post(url: str, body: bytes) -> Exception | None:
    """The error, or None. Runs in a thread, because urllib limits each read but not the whole request."""
    problem: list[Exception | None] = [TimeoutError(f"no answer within {SECONDS:g} s")]

    def post() -> None:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=SECONDS):
                problem[0] = None
        except Exception as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, TimeoutError):  # of which `problem` speaks already
                problem[0] = reason if isinstance(reason, Exception) else error

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return problem[0]
