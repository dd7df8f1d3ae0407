"""Storing an operating point: the threshold inside weights or an ONNX file, replaced without touching anything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segdet.files import replacing, write_text
from segdet.metadata import KEY, Metadata


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
    from segdet.exporting.card import with_threshold

    if file.is_file():
        text = file.read_text(encoding="utf-8")
        changed = with_threshold(text, metadata)
        if changed != text:
            write_text(file, changed)
