"""Storing an operating point: the threshold inside weights or an ONNX file, replaced without touching anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segdet.files import replacing, write_text
from segdet.metadata import KEY, Metadata

_THRESHOLD = re.compile(r"The stored threshold is (\d\.\d+)(?: \([^()]* are at (\d\.\d+)\))?")  # written by `_use`


def store(file: Path, metadata: Metadata, metrics: Mapping[str, Any]) -> Metadata:
    """Write the threshold, its rule and the scores of a measurement into `file`, and return its new description.

    The model card beside an ONNX file follows.
    """
    described = metadata.measured(metrics)
    if file.suffix == ".onnx":
        _into_onnx(file, described)
        _onto_card(file.with_suffix(".md"), described)
    else:
        from segdet.models import weights

        weights.describe(file, described)
    return described


def _into_onnx(file: Path, metadata: Metadata) -> None:
    """The default of the graph's `threshold` (segmentation of one class), and the description."""
    import numpy as np
    import onnx

    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name == "threshold":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(metadata.threshold, np.float32), "threshold"))
    for entry in model.metadata_props:
        if entry.key == KEY:
            entry.value = metadata.to_json()
    with replacing(file) as temporary:
        onnx.save(model, temporary)


def _onto_card(file: Path, metadata: Metadata) -> None:
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        changed = _with_threshold(text, metadata)
        if changed != text:
            write_text(file, changed)


def _with_threshold(text: str, metadata: Metadata) -> str:
    """A model card with another threshold; a text without one is returned unchanged."""

    def now(found: re.Match[str]) -> str:
        return (
            f"The stored threshold is {metadata.threshold:.3f} ({metadata.operate}, chosen after the export; "
            f"the scores and the agreement below are at {found[2] or found[1]})"
        )

    return _THRESHOLD.sub(now, text, count=1)
