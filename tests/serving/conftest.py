"""A real server in a process of its own, as `segdet serve` starts it."""

from __future__ import annotations

import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.detectors import blob_model, blob_picture
from tests.drawn import crack_picture


class Server:
    """A running server: where it is, what it logs, and how it ends."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "segdet", "serve", "--port", "0", "--log", "json", *map(str, arguments)],
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.address = self._wait_for_address()
        self.client = httpx.Client(base_url=self.address, timeout=60)
        for _ in range(600):
            try:
                if self.client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the server does not get ready")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            self.lines.put(line)

    def _wait_for_address(self) -> str:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            try:
                line = self.lines.get(timeout=0.5)
            except queue.Empty:
                if ended:
                    break
                continue
            if '"address"' in line:
                return str(json.loads(line)["address"])
        raise AssertionError(f"no address: {''.join(self.log)}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def good(self) -> bool:
        """Whether an ordinary request is answered."""
        return self.client.post("/v1/predict", files={"image": ("a.png", wall(1))}).status_code == 200


StartServer = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Starts servers that end with the test: `start("--model", file, "--queue", 1)`."""
    running: list[Server] = []

    def run(*arguments: object, env: dict[str, str] | None = None) -> Server:
        running.append(Server(*arguments, env=env))
        return running[-1]

    yield run
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def models(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A segmenter of one class, and a detector."""
    return {"walls": exported, "blobs": blob_model(tmp_path_factory.mktemp("blobs") / "blobs.onnx")}


@pytest.fixture(scope="session")
def server(models: dict[str, Path]) -> Iterator[Server]:
    """A server with both models for all tests that leave it as it is."""
    named = [word for name, file in models.items() for word in ("--model", f"{name}={file}")]
    running = Server(*named, "--max-body", 4, "--max-pixels", 8, "--drain-delay", 0)
    yield running
    assert running.stop() == 0


def wall(seed: int, height: int = 96, width: int = 128) -> bytes:
    """A drawn wall as a file (PNG, so that nothing is lost)."""
    return encoded(crack_picture(seed, height, width)[0])


def blobs() -> bytes:
    """A picture in which the detector finds two boxes."""
    return encoded(blob_picture({"red": (10, 20, 60, 70), "blue": (100, 30, 150, 90)}))


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    """The array as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()
