"""OpenVINO as a runtime on processors: compiled for the size of image that is worked on, and for any size where sizes change."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segdet.errors import InputError, InvalidOption, setting
from segdet.inference.backends.onnxruntime import short
from segdet.places import nameable

_SAME = 32  # images of one size in a row, after which as many more are expected as compiling for it costs


class OpenVino:
    """A model compiled by OpenVINO for the processor.

    A model for one size of image takes 6 to 22 % less time than one for all of them, and as long to compile (docs/benchmarks.md).
    So the first image's size gets its own; when another size comes, the model for all sizes is compiled too, and a size that
    stays for a while gets its own again, in place of the last one.

    precision: "bf16" or "f32". Initializers cannot be overridden, so the caller applies a threshold of its own.
    """

    def __init__(self, path: Path, precision: str | None, threads: int) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        able = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not able:
            hint = "use openvino:f32 or cpu"
            raise InvalidOption("device", "openvino:bf16", "this processor has no bfloat16", hint)
        precision = precision or ("bf16" if able else "f32")
        self._path = path
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = self._model(None)
        except Exception as error:
            reason = f"OpenVINO cannot read it ({short(error)})"
            raise InputError(f"{path}: {reason}; use {setting('device', 'cpu')}") from error
        self._lock = threading.Lock()
        self._own: tuple[tuple[int, ...], Any] | None = None  # a size and the model for it
        self._any: Any = None
        self._last: tuple[tuple[int, ...], int] = (), 0  # the size of the last image, and how many in a row had it
        self._local = threading.local()  # a request belongs to one thread
        self.device = f"OpenVINO {precision}"
        self.takes_threshold = False
        self.inputs: dict[str, tuple[str, int]] = _ports(model.inputs)
        self.outputs: dict[str, tuple[str, int]] = _ports(model.outputs)
        kept = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
        self.metadata: dict[str, str] = {name: str(getattr(value, "value", value)) for name, value in kept.items()}

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `Runtime.run`.

        Raises:
            InputError: OpenVINO cannot run the model, at its first image.
        """
        image = np.ascontiguousarray(feed["image"])
        compiled = self._compiled(image.shape)
        kept = getattr(self._local, "request", None)
        if kept is None or kept[0] is not compiled:
            kept = self._local.request = compiled, compiled.create_infer_request()
        request = kept[1]
        request.infer({"image": image}, share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in names]

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        """The best model there is for images `[N, H, W, 3]` of this shape."""
        with self._lock:
            last, count = self._last
            self._last = shape, count + 1 if shape == last else 1
            if self._own is None or (self._own[0] != shape and self._last[1] >= _SAME):
                self._own = shape, self._compile(shape)
            if self._own[0] == shape:
                return self._own[1]
            if self._any is None:
                self._any = self._compile(None)
            return self._any

    def _compile(self, shape: tuple[int, ...] | None) -> Any:
        try:
            return self._core.compile_model(self._model(shape), "CPU", self._settings)
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            if shape is not None:  # a graph may not bear one size and yet bear all
                return self._compile(None)
            reason = f"OpenVINO cannot run it ({short(error)})"
            raise InputError(f"{self._path}: {reason}; use {setting('device', 'cpu')}") from error

    def _model(self, shape: tuple[int, ...] | None) -> Any:
        with nameable(self._path) as name:
            model = self._core.read_model(name)
        if shape is not None:
            model.reshape({"image": list(shape)})
        return model


def import_openvino() -> Any:
    """OpenVINO, with its telemetry shut out: importing the package would report the import to its maker.

    Raises:
        InputError: not installed.
    """
    # An entry of None makes every import of that name fail; OpenVINO then uses a stub that does nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise InvalidOption("device", "openvino", "not installed", "pip install 'segdet[openvino]'") from error
    return openvino


def _ports(ports: Iterable[Any]) -> dict[str, tuple[str, int]]:
    """OpenVINO's ports in ONNX Runtime's words; a port may have several names."""
    kinds = {"u8": "uint8", "f32": "float", "i64": "int64", "f16": "float16", "i32": "int32"}
    found = {}
    for port in ports:
        kind = port.get_element_type().get_type_name()
        for name in port.get_names():
            found[name] = f"tensor({kinds.get(kind, kind)})", len(port.get_partial_shape())
    return found
