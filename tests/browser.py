"""Headless Chromium without a driver: its debugging protocol is JSON on two pipes, and a test needs little of it."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

__all__ = ["Browser", "browser", "chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The browser's path; the test skips where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no Chromium to open the page in (Debian and Ubuntu: apt-get install chromium)")
    return found


@contextlib.contextmanager
def browser(*, width: int = 1200, height: int = 900, dark: bool = False) -> Iterator[Browser]:
    """A browser with one empty page, which ends with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # the browser reads from its descriptor 3 and writes to 4; the shell puts ours there
    ends = f'exec "$0" "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", ends, chromium(), *flags, f"--user-data-dir={profile}", "--no-first-run"],
            pass_fds=(to_browser[0], from_browser[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            with open(to_browser[1], "wb", buffering=0) as words, open(from_browser[0], "rb") as answers:
                opened = Browser(words, answers)
                opened.size(width, height)
                opened.theme(dark=dark)
                yield opened
                opened.call("Browser.close", session=False)
        finally:
            process.terminate()
            process.wait(30)


class Browser:
    """One page of a browser: what it asked for, what it complained of, what it shows."""

    def __init__(self, words: Any, answers: Any) -> None:
        self._words, self._answers, self._numbers = words, answers, itertools.count(1)
        self._session: str | None = None
        self._rest = b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", session=False, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", session=False, targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, session: bool = True, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = self._session
        self._words.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, path: Path) -> None:
        """Load a file and wait until it is drawn."""
        self.requests.clear()
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._note(self._next(noted=True))
        self.settle()

    def settle(self) -> None:
        """Wait for two frames: what was asked for is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def size(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        """The window in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def theme(self, *, dark: bool) -> None:
        """What the page is told that its reader prefers."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def mouse(self, kind: str, x: float, y: float, *, pressed: bool = False) -> None:
        """ "mouseMoved", "mousePressed" or "mouseReleased" at a place of the window."""
        button = {"button": "left", "clickCount": 1} if pressed or kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=int(pressed), **button)

    def key(self, name: str) -> None:
        """A key such as "ArrowRight" pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def picture(self, *, whole: bool = True) -> bytes:
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pixels(self, canvas: str) -> Any:
        """(height, width, 3) uint8 of the canvas that a selector finds."""
        from matplotlib.image import imread

        url = self.run(f"document.querySelector({canvas!r}).toDataURL()")
        png = imread(io.BytesIO(base64.b64decode(url.split(",")[1])), format="png")
        return np.round(255 * png[..., :3]).astype(np.uint8)

    def _next(self, *, noted: bool = False) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._answers.fileno(), 1 << 16)
            if not more:
                raise RuntimeError("the browser ended")
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        found = dict(json.loads(message))
        if not noted:
            self._note(found)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(params["entry"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(params["args"]))
