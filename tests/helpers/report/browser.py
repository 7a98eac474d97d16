"""Headless Chromium by its driver's HTTP interface (W3C WebDriver): no package is needed for it."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
REASON = f"not installed: {', '.join(MISSING)} (Debian's packages chromium and chromium-driver)"
_ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]


class Browser:
    """One session; `width` in CSS pixels, as a phone has it where it is small."""

    def __init__(self, port, width, height=800):
        self._base = f"http://127.0.0.1:{port}"
        options = {
            "args": [*_ARGUMENTS, f"--window-size={max(width, 500)},{height}"],
            "binary": shutil.which("chromium"),
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1, "touch": False}},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{found['sessionId']}"

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self._ask("POST", f"{self._session}/url", {"url": path.absolute().as_uri()})

    def run(self, script):
        """What a script of JavaScript returns, though the page itself may run none."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def press(self, key):
        action = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._ask(
            "POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": action}]}
        )

    def console(self):
        """What the page left in the console."""
        return [entry["message"] for entry in self._ask("POST", f"{self._session}/se/log", {"type": "browser"})]

    def picture(self, path):
        """The whole page, as a PNG."""
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        body = {"cmd": "Page.captureScreenshot", "params": {"clip": clip, "captureBeyondViewport": True}}
        found = self._ask("POST", f"{self._session}/goog/cdp/execute", body)
        path.write_bytes(base64.b64decode(found["data"]))

    def print(self, path, width_cm, height_cm):
        """The page on paper, as a PDF."""
        body = {"page": {"width": width_cm, "height": height_cm}, "shrinkToFit": False, "background": True}
        path.write_bytes(base64.b64decode(self._ask("POST", f"{self._session}/print", body)))

    def close(self):
        self._ask("DELETE", self._session)


@contextmanager
def driver():
    """The port of a driver that runs as long as the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(port):
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("chromedriver does not answer")
