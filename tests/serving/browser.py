"""A real headless Chromium, driven over its own DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect


def chromium() -> str | None:
    """The browser's command, if there is one."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    return None


class Browser:
    """One window. Everything that a user would not want to see is collected: errors on the console, outside requests."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self._profile = tempfile.mkdtemp(prefix="chromium-", dir=folder)
        self._process = subprocess.Popen(
            [str(chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
             "--remote-debugging-port=0", f"--user-data-dir={self._profile}", "--window-size=1400,900", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._socket = connect(self._address(), max_size=None, proxy=None)
        threading.Thread(target=self._listen, daemon=True).start()
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = None
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    _session: str | None = None

    def _address(self) -> str:
        file = Path(self._profile) / "DevToolsActivePort"
        for _ in range(1200):
            if file.exists() and len(lines := file.read_text().splitlines()) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if self._process.poll() is not None:
                raise AssertionError(f"the browser ended with {self._process.returncode}")
            time.sleep(0.05)
        raise AssertionError("the browser does not start")

    def _listen(self) -> None:
        try:
            for message in self._socket:
                told = json.loads(message)
                if "id" in told:
                    self._answers.pop(told["id"]).put(told)
                else:
                    self._event(told["method"], told["params"])
        except Exception as error:  # the browser was closed
            for waiting in self._answers.values():
                waiting.put({"error": repr(error)})

    def _event(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", {}).get("description")))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str([argument.get("value") for argument in told["args"]]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the browser."""
        number = next(self._ids)
        self._answers[number] = answer = queue.Queue()
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        told = answer.get(timeout=120)
        if "error" in told:
            raise AssertionError(f"{method}: {told['error']}")
        return dict(told["result"])

    def run(self, script: str) -> Any:
        """The value of an expression in the page (promises are waited for)."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"]["exception"].get("description"))
        return told["result"].get("value")

    def open(self, address: str) -> None:
        """Go there, and wait until the page has loaded."""
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, script: str, seconds: float = 90) -> Any:
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        while True:
            try:
                if value := self.run(script):
                    return value
            except AssertionError:  # in the middle of going elsewhere
                pass
            if time.monotonic() > end:
                raise AssertionError(f"never true: {script}; errors: {self.errors}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A real click on the middle of an element."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, times: int = 1) -> None:
        """A key, with what holds the focus."""
        for _ in range(times):
            text = key if len(key) == 1 else ""
            codes = {
                "ArrowLeft": 37,
                "ArrowUp": 38,
                "ArrowRight": 39,
                "ArrowDown": 40,
                "Tab": 9,
                "Enter": 13,
                "Home": 36,
            }
            self.send(
                "Input.dispatchKeyEvent",
                type="keyDown",
                key=key,
                code=key,
                text=text,
                windowsVirtualKeyCode=codes.get(key, 0),
            )
            self.send(
                "Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=codes.get(key, 0)
            )

    def drop(self, selector: str, files: Sequence[Path]) -> None:
        """Drag files from outside over an element and let go."""
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Put files into a file field, as its dialog would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def downloaded(self, name: str, act: Callable[[], None]) -> bytes:
        """What arrives in the download folder under that name once `act` was done."""
        file = self.downloads / name
        file.unlink(missing_ok=True)
        act()
        for _ in range(1800):
            if file.exists() and not list(self.downloads.glob("*.crdownload")):
                return file.read_bytes()
            time.sleep(0.05)
        raise AssertionError(f"{name} was not downloaded; there are {list(self.downloads.iterdir())}; {self.errors}")

    def window(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """The window's size, the system's colours, and whether it is a phone."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def picture(self, file: Path, whole: bool = False) -> None:
        """A screenshot."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))

    def outside(self, address: str) -> list[str]:
        """Requests that went anywhere but to `address`."""
        home = urlsplit(address)
        return [
            url
            for url in self.requests
            if urlsplit(url).scheme in ("http", "https", "ws", "wss") and urlsplit(url)[:2] != home[:2]
        ]

    def close(self) -> None:
        """End the browser and remove its profile."""
        try:
            self.send("Browser.close")
        except Exception:
            self._process.kill()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _middle(self, selector: str) -> tuple[float, float]:
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return float(found[0]), float(found[1])
