"""What values flow through a network: measured on real images, for quantisation and for finding what overflows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from segdet.exporting.surgery import copy_of

_SAMPLE = 200_000  # values looked at to find a percentile of a tensor in one image
_RARE = 1e-4  # share of values that the clipped range leaves out at each end


@dataclass(frozen=True)
class Range:
    """Values of one tensor. low, high: over all images; clipped_*: without the rarest 0.01 % at each end, mean over images."""

    low: float
    high: float
    clipped_low: float
    clipped_high: float

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


def measure(
    proto: onnx.ModelProto,
    images: Iterable[np.ndarray],
    tensors: Sequence[str],
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Range]:
    """Run the model on RGB uint8 images `[H, W, 3]` and look at float32 `tensors`.

    Tensors that a path does not reach or that are empty are left out. Infinities count as they are.
    """
    if not tensors:
        return {}
    probe = copy_of(proto)
    known = {value.name: value for value in (*probe.graph.value_info, *probe.graph.output)}
    present = {value.name for value in probe.graph.output}
    probe.graph.output.extend(known[name] for name in tensors if name not in present)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen: dict[str, list[tuple[float, float, float, float]]] = {}
    for image in images:
        for name, values in zip(tensors, session.run(list(tensors), {"image": image[None]}), strict=True):
            if values.size:
                seen.setdefault(name, []).append(_ends(values))
        advance(1)
    return {name: _joined(np.array(rows)) for name, rows in seen.items()}


def _ends(values: np.ndarray) -> tuple[float, float, float, float]:
    """Lowest, highest, and both percentiles."""
    flat = values.reshape(-1)
    some = flat[:: max(1, len(flat) // _SAMPLE)]
    rare = int(len(some) * _RARE)
    if rare:
        ordered = np.partition(some, (rare, len(some) - 1 - rare))
        low, high = ordered[rare], ordered[len(some) - 1 - rare]
    else:
        low, high = some.min(), some.max()
    return float(flat.min()), float(flat.max()), float(low), float(high)


def _joined(rows: np.ndarray) -> Range:
    low, high, clipped_low, clipped_high = rows.T
    return Range(float(low.min()), float(high.max()), float(clipped_low.mean()), float(clipped_high.mean()))
