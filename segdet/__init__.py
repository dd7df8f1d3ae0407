"""segdet: from a folder of labelled images to a segmentation or detection model, and to one ONNX file behind an API.

Nothing heavy is imported until it is used: `import segdet` costs milliseconds. The types are in `__init__.pyi`, which
`scripts/make_stub.py` writes from the classes that declare the settings.

>>> import segdet
>>> segdet.load("exports/crack.onnx").session.metadata.classes
['crack']
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from segdet import telemetry
from segdet.version import __version__

telemetry.switch_off()

# Where each public name is defined; it is imported on first use.
HOMES = {
    "train": "segdet.api",
    "evaluate": "segdet.api",
    "export": "segdet.api",
    "load": "segdet.api",
    "predict": "segdet.api",
    "open_dataset": "segdet.api",
    "on_progress": "segdet.console",
    "Dataset": "segdet.data.records",
    "DetectionResult": "segdet.inference.predict.results",
    "EvaluationResult": "segdet.validation.evaluate",
    "InputError": "segdet.errors",
    "InvalidOption": "segdet.errors",
    "JobResult": "segdet.inference.batch.job",
    "Metadata": "segdet.metadata",
    "Predictor": "segdet.inference.predict.predictor",
    "Result": "segdet.inference.predict.results",
    "SegdetError": "segdet.errors",
    "SegmentationResult": "segdet.inference.predict.results",
}

__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'segdet' has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
