"""Fixtures shared by all rooms: a tiny trained model is made once and used by many tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # several tests import onnxruntime themselves
os.environ["SEGDET_CACHE"] = tempfile.mkdtemp(prefix="segdet-tests-")  # nothing of the user's is read or written

from tests.drawn import yolo_dataset

ROOT = Path(__file__).parents[1]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Runs the real command in a process of its own: `cli("predict", "x.jpg", cwd=folder)`."""

    def run(
        *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        return subprocess.run(
            [sys.executable, "-m", "segdet", *map(str, arguments)],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small YOLO-polygon dataset of drawn cracks, 24 training and 6 validation pictures of 96x96."""
    return yolo_dataset(tmp_path_factory.mktemp("data") / "walls", train=24, val=6)


@pytest.fixture(scope="session")
def trained(walls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny U-Net trained on `walls` until it sees the cracks."""
    import segdet

    return segdet.train("unet", str(walls), **TINY, epochs=12, out=str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of `trained`."""
    import segdet

    return segdet.export(trained, out=tmp_path_factory.mktemp("exports") / "walls.onnx")


# timm's smallest network; everything that costs time is small.
TINY = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "options": {"decoder_channels": [32, 24, 16, 12, 8]},
    "imgsz": 64,
    "batch": 4,
    "lr": 5e-3,
    "precision": "fp32",
    "device": "cpu",
    "workers": 0,
    "ema": 0.9,
}
