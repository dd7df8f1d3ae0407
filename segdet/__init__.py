"""segdet: from a folder of labelled images to a segmentation or detection model, and to one ONNX file behind an API.

Nothing heavy is imported until it is used: `import segdet` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segdet import export, telemetry
from segdet.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from segdet.inference.predictor import Predictor

telemetry.switch_off()

__all__ = ["__version__", "export", "load", "train"]


def load(path: str | Path | None = None, **options: Any) -> Predictor:
    """Open an exported model; `segdet.load("unet-crack.onnx").predict("photo.jpg")` gives a `Prediction`, or a
    `DetectionResult` when the model finds boxes.

    With no path, the model `segdet predict` would take. Options are those of `inference.predictor.Predictor`.
    """
    from segdet.inference.models import find_model
    from segdet.inference.predictor import Predictor

    return Predictor(find_model(path), **options)


def train(arch: str = "unet", data: str = "crack-demo", **options: Any) -> Path:
    """Train a model and return its run folder; options are the fields of `training.config.TrainConfig`."""
    from segdet.training.config import TrainConfig
    from segdet.training.run import train as run

    return run(TrainConfig.from_options(arch=arch, data=data, **options))
