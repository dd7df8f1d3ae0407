"""The settings of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segdet.settings import Settings, option

CALIBRATION = 32  # training images that decide the ranges of int8


class ExportConfig(Settings):
    """The settings of `segdet export`."""

    out: Path | None = option(
        None, "File to write.", group="Output", shown_default="exports/<run>.onnx, <run>-fp16, <run>-int8"
    )
    precision: Literal["fp32", "fp16", "int8"] = option(
        "fp32", "fp32, fp16 (for GPUs, half the size) or int8 (for CPUs, a quarter).", group="Output"
    )
    triton: Path | None = option(None, "Also write a Triton model repository into this folder.", group="Output")
    multiscale_to: int | None = option(
        None,
        "Predict large images also at 1/2, 1/4, ... of their size down to this longer side, to find wider objects "
        "than in training; 0 turns it off.",
        group="Output",
    )
    data: str | None = option(
        None, "Dataset to compare on.", group="Agreement with the source", shown_default="the one it was trained on"
    )
    tolerance: float | None = option(
        None,
        "fp32: largest fraction of differing pixels on an image (0.0005), or pixels a box may move (0.5). fp16 and "
        "int8: largest loss of IoU (0.001, 0.01) or AP (0.005, 0.01).",
        group="Agreement with the source",
        ge=0,
    )
    limit: int | None = option(
        None,
        "Validation images to compare on.",
        group="Agreement with the source",
        shown_default="50; fp16 and int8 200",
        ge=1,
    )
    calibration: int = option(
        CALIBRATION, "Training images that decide the ranges of int8.", group="Agreement with the source", ge=1
    )
