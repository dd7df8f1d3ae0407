"""Ways to run an ONNX file on a GPU: plainly, with inputs and outputs kept on the GPU, and as a captured CUDA graph."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segdet.inference.backends import onnxruntime
from segdet.inference.backends.onnxruntime import PROVIDERS, import_onnxruntime, provider_chain, session_options

_DIMS = ("batch", "height", "width")  # names of the first dimensions of `image` in an exported file
_KINDS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}


@dataclass
class Times:
    """Seconds of the parts of one run; `copies` to and from the device, `whole` from array to arrays."""

    whole: float = 0.0
    copies: float | None = None


@dataclass
class Variant:
    """A way to run a file.

    Attributes:
        kind: "cpu", "cuda" or "tensorrt".
        bound: inputs and outputs have fixed places on the device.
        captured: the work is captured once as a CUDA graph and replayed; `bound` then.
        tf32: float32 may be computed as TF32.
    """

    kind: str
    bound: bool = False
    captured: bool = False
    tf32: bool = False
    number: int = 0

    @property
    def name(self) -> str:
        """In the words of the table."""
        parts = [
            self.kind,
            "TF32" if self.tf32 else "",
            "bound" if self.bound else "",
            "graph" if self.captured else "",
        ]
        return " ".join(part for part in parts if part)


@dataclass
class Opened:
    """A file, open in one way for images of one shape `[N, H, W, 3]`."""

    session: Any
    variant: Variant
    names: list[str]
    _binding: Any = None
    _input: Any = None
    _outputs: list[Any] = field(default_factory=list)

    def run(self, images: np.ndarray) -> tuple[list[np.ndarray], Times]:
        """Outputs for uint8 `[N, H, W, 3]`, and what the run took."""
        began = time.perf_counter()
        if not self.variant.bound:
            found = list(self.session.run(self.names, {"image": images}))
            return found, Times(time.perf_counter() - began)
        if self._binding is None:
            self._bind(images)
            began = time.perf_counter()
        self._input.update_inplace(images)  # a copy that has ended when this returns
        copied = time.perf_counter()
        self.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        computed = time.perf_counter()
        found = [output.numpy() for output in self._outputs]
        done = time.perf_counter()
        return found, Times(done - began, copied - began + done - computed)

    def _bind(self, images: np.ndarray) -> None:
        """Reserve places for the inputs and outputs of this shape. A captured graph replays on exactly these."""
        value = import_onnxruntime().OrtValue
        place = "cpu" if self.variant.kind == "cpu" else "cuda"
        self._binding = self.session.io_binding()
        self._input = value.ortvalue_from_numpy(np.ascontiguousarray(images), place, self.variant.number)
        self._binding.bind_ortvalue_input("image", self._input)
        for shape, kind in self._shapes(images):
            self._outputs.append(value.ortvalue_from_shape_and_type(shape, kind, place, self.variant.number))
        for name, output in zip(self.names, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, output)

    def _shapes(self, images: np.ndarray) -> list[tuple[tuple[int, ...], Any]]:
        """Shapes and types of the outputs, whose first dimensions have the names of the image's."""
        (image,) = (entry for entry in self.session.get_inputs() if entry.name == "image")
        lengths = dict(zip(image.shape, images.shape, strict=True))
        return [
            (tuple(lengths.get(dim, dim) for dim in output.shape), _KINDS[output.type])
            for output in self.session.get_outputs()
        ]


def opened(path: Path, variant: Variant, shape: tuple[int, ...]) -> Opened:
    """Open a file in one way, for images of `shape` `[N, H, W, 3]`.

    Raises:
        Exception: what ONNX Runtime raises, for instance when a graph cannot be captured because a node runs on the
            processor.
    """
    runtime = import_onnxruntime()
    options = session_options(runtime, 0 if variant.kind == "cpu" else 1)
    chain = provider_chain(variant.kind, variant.number, path)
    for entry in chain:
        if isinstance(entry, tuple):
            name, settings = entry
            if name == PROVIDERS["cuda"]:
                settings["use_tf32"] = int(variant.tf32)
            if variant.captured:
                key = "enable_cuda_graph" if name == PROVIDERS["cuda"] else "trt_cuda_graph_enable"
                settings[key] = 1
    if variant.captured:  # fixed sizes: what computes them then vanishes, which would run on the processor
        for dim, length in zip(_DIMS, shape, strict=False):
            options.add_free_dimension_override_by_name(dim, length)
    if variant.kind != "cpu" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    session = runtime.InferenceSession(str(path), options, providers=chain, enable_fallback=0)
    if session.get_providers()[0] != PROVIDERS[variant.kind]:
        raise RuntimeError(onnxruntime.missing_library(variant.kind) or f"{variant.kind} could not be started")
    names = [output.name for output in session.get_outputs()]
    return Opened(session, variant, names)
