"""Switches off the telemetry of the libraries that segdet uses.

`import segdet` calls `switch_off` before any of them is imported, because several report their own import.
OpenVINO has no variable for this: `inference.openvino.import_openvino` blocks its reporting package.
"""

from __future__ import annotations

import os

# Without the first one, ONNX Runtime writes a device id and an event database into the home folder and uploads them.
OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # asks PyPI for a newer version at every import
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",  # what other libraries agree on
}


def switch_off() -> None:
    """Set the variables that switch telemetry off, for this process and those it starts; variables already set stay."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
