"""The contract of exported files, version 1: inputs and outputs by task (docs/contract.md describes it).

Shapes: N images, H x W pixels, Q detections. -1 stands for a size that the input decides.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 1
INPUT = "image"  # uint8 [N, H, W, 3], RGB
THRESHOLD = "threshold"  # optional float32 scalar with a default, for segmentation of one class
OPSET = 18  # understood by every runtime of the last years; from 20 on GridSample is wrong in TensorRT 10.13


@dataclass(frozen=True)
class Output:
    """One output of a file.

    Attributes:
        name: in the ONNX graph.
        dtype: as numpy calls it: uint8, float32 or int64.
        shape: with the batch first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


OUTPUTS: dict[str, tuple[Output, ...]] = {
    "segmentation": (
        Output("mask", "uint8", (-1, -1, -1)),
        Output("confidence", "float32", (-1, -1, -1)),
    ),
    "detection": (
        Output("boxes", "float32", (-1, -1, 4)),
        Output("scores", "float32", (-1, -1)),
        Output("labels", "int64", (-1, -1)),
    ),
}
