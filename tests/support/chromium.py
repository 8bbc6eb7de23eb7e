"""A real browser: headless Chromium, driven by its DevTools protocol over the locked websockets library."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
PATIENCE = 60


class Page:
    """A tab. Events that the browser sends are kept in `events`."""

    def __init__(self, socket):
        self._socket, self._numbers, self.events = socket, itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def run(self, script):
        """The value of a script, promises awaited."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script):
        """Wait until a script is true; where a page is being left, it fails for a moment."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):
                if self.run(script):
                    return
            time.sleep(0.05)
        raise AssertionError(f"not in time: {script}; the page says: {self.run('document.body.innerText')}")

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def look(self, width, height=900, *, dark=False):
        """As on a screen of this size, in light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def choose(self, selector, path):
        """Give a file to an input, as its dialog does."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def middle(self, selector):
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        return self.run(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")

    def drop(self, selector, path):
        """Drag a file from outside and let it go over an element."""
        x, y = self.middle(selector)
        for kind in ("dragEnter", "dragOver", "drop"):
            data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def drag(self, points):
        """Press the mouse at the first point, move along and let go."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1)]
        for kind, (x, y) in [*zip(kinds, points, strict=True), ("mouseReleased", points[-1])]:
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def press(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path):
        done = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(done["data"]))

    def complaints(self):
        """What the console says: errors, exceptions, what the policy has blocked. A refused request is no complaint."""
        self.run("0")
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        thrown = [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        return [entry for entry in logged if entry["source"] != "network"] + thrown

    def requested(self):
        """The addresses that were asked for."""
        self.run("0")
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]


@contextlib.contextmanager
def browsing(folder):
    """A tab of a fresh browser, whose profile lies in `folder`; skips where there is no Chromium."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: install the package chromium")
    command = [program, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with connect(_address(folder, process), max_size=None, compression=None) as browser:
            target = _ask(browser, "Target.createTarget", url="about:blank")["targetId"]
            port = browser.remote_address[1]
            with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, compression=None) as tab:
                yield Page(tab)
    finally:
        process.terminate()
        process.wait(60)


def _ask(socket, method, **params):
    socket.send(json.dumps({"id": 1, "method": method, "params": params}))
    while (message := json.loads(socket.recv(timeout=PATIENCE))).get("id") != 1:
        pass
    return message["result"]


def _address(folder, process):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "chromium.log").read_text()
        with contextlib.suppress(OSError, ValueError):
            port, path = (folder / "DevToolsActivePort").read_text().splitlines()
            return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")
