"""One ONNX file of the contract (`segdet.contract`), open on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segdet.contract import OUTPUTS
from segdet.errors import InputError, InvalidOption
from segdet.inference.backends.onnxruntime import (
    DEVICES,
    PROVIDERS,
    OnnxRuntime,
    Runtime,
)
from segdet.inference.backends.openvino import OpenVino
from segdet.machine import cores
from segdet.metadata import KEY, Metadata, parse

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)"}  # ONNX Runtime's words


class Session:
    """An open model. `run` maps uint8 images `[N, H, W, 3]` to the outputs of its task, as in `contract.OUTPUTS`.

    Segmentation: mask uint8 and confidence float32, both `[N, H, W]`. Detection: boxes float32 `[N, Q, 4]` (x1, y1, x2, y2
    in pixels of the images), scores float32 `[N, Q]`, falling, and labels int64 `[N, Q]`. May be used from several threads.
    """

    def __init__(self, path: Path, runtime: Runtime, metadata: Metadata, threads: int) -> None:
        self.path = path
        self.metadata = metadata
        self.device = runtime.device
        self.threads = threads
        self._runtime = runtime

    @property
    def one_class(self) -> bool:
        """Whether it segments one class, whose probability is the confidence."""
        return self.metadata.is_binary

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU works, which wants several images at once."""
        return self.device in (PROVIDERS["cuda"], PROVIDERS["tensorrt"])

    def run(self, images: np.ndarray, threshold: float | None = None) -> tuple[np.ndarray, ...]:
        """Predict for RGB uint8 `[N, H, W, 3]`.

        Args:
            threshold: probability from which a pixel is foreground (segmentation of one class only); None = the stored one.

        Raises:
            InputError: no image, or a threshold for a model that takes none.
        """
        if not len(images):
            raise InputError(f"{self.path}: a batch of 0 images; give it at least one")
        feed: dict[str, np.ndarray] = {"image": images}
        if threshold is not None:
            if not self.one_class:
                reason = f"{self.path} has several classes and no threshold to set"
                raise InvalidOption("threshold", threshold, reason, "leave it out")
            if self._runtime.takes_threshold:
                feed["threshold"] = np.array(threshold, np.float32)
        found = self._runtime.run([output.name for output in OUTPUTS[self.metadata.task]], feed)
        if threshold is not None and not self._runtime.takes_threshold:
            found[0] = (found[1] >= np.float32(threshold)).view(np.uint8)
        return tuple(found)


def open_on(path: Path, device: str, threads: int | None = None) -> Session:
    """Open an ONNX file that segdet exported on a named device.

    Args:
        device: cpu, cuda, cuda:N, tensorrt, tensorrt:N, openvino, openvino:bf16 or openvino:f32.
        threads: of one inference (default: all cores).

    Raises:
        InputError: no such file, not ONNX, or not a file of segdet.
        InvalidOption: a device that does not exist or cannot be used.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file; `segdet export RUN` makes one")
    threads = threads or cores()
    kind, _, detail = device.partition(":")
    if kind == "openvino" and detail in ("", "bf16", "f32"):
        runtime: Runtime = OpenVino(path, detail or None, threads)
    elif kind in PROVIDERS and (not detail or (detail.isdigit() and kind != "cpu")):
        runtime = OnnxRuntime(path, kind, int(detail or 0), threads)
    else:
        raise InvalidOption("device", device, "no such device", f"use {DEVICES}")
    metadata = parse(runtime.metadata.get(KEY), path)
    _check_contract(runtime, metadata, path)
    return Session(path, runtime, metadata, threads)


def _check_contract(runtime: Runtime, metadata: Metadata, path: Path) -> None:
    outputs = {name: kind for name, (kind, _) in runtime.outputs.items()}
    if metadata.task not in OUTPUTS:
        raise InputError(f"{path}: a {metadata.task} model, which this segdet cannot run; update segdet")
    required = {output.name: _TYPES[output.dtype] for output in OUTPUTS[metadata.task]}
    if runtime.inputs.get("image") != ("tensor(uint8)", 4) or not required.items() <= outputs.items():
        raise InputError(f"{path}: its inputs or outputs are not those of the segdet contract; export it again")
