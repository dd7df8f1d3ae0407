"""An NVIDIA driver and an ONNX Runtime for GPUs that exist in tests only."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from segdet.inference.backends import nvidia

GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class Driver:
    """The functions of libcuda that segdet calls."""

    def __init__(self, count: int = 1, cuda: int = 13000, status: int = 0) -> None:
        self.count, self.cuda, self.status = count, cuda, status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = self.cuda
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        ctypes.cast(number, ctypes.POINTER(ctypes.c_int))[0] = self.count
        return 0


class GpuRuntime:
    """What the fake session was opened with, and what was done with it.

    Attributes:
        calls: names of what happened, in order.
        opened: (providers, keyword arguments, session options) of every session on a GPU.
        fails: called with the image's shape before every run; may raise what ONNX Runtime would.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.opened: list[tuple[list[Any], dict[str, Any], Any]] = []
        self.fails: Callable[[tuple[int, ...]], None] = lambda shape: None
        self.start: Callable[[], None] = lambda: None


class _Value:
    """An `OrtValue`: its array lies on "the device"."""

    log: GpuRuntime

    def __init__(self, array: np.ndarray, device: str, number: int) -> None:
        self.array, self.device, self.number = array.copy(), device, number

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray, device: str = "cpu", number: int = 0) -> _Value:
        assert array.flags.c_contiguous
        cls.log.calls.append(("place", array.shape, device, number))
        return cls(array, device, number)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Sequence[int], kind: Any, device: str, number: int) -> _Value:
        cls.log.calls.append(("reserve", tuple(shape), device, number))
        return cls(np.zeros(shape, kind), device, number)

    def update_inplace(self, array: np.ndarray) -> None:
        assert array.shape == self.array.shape and array.dtype == self.array.dtype
        self.log.calls.append(("update", array.shape))
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        self.log.calls.append(("fetch", self.array.shape))
        return self.array.copy()


class _Binding:
    def __init__(self, session: _Session) -> None:
        self.session, self.inputs, self.outputs = session, {}, {}  # type: ignore[var-annotated]

    def bind_ortvalue_input(self, name: str, value: _Value) -> None:
        self.inputs[name] = value.array

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.inputs[name] = array

    def bind_output(self, name: str, device: str = "cpu", number: int = 0) -> None:
        self.outputs[name] = device

    def bind_ortvalue_output(self, name: str, value: _Value) -> None:
        self.outputs[name] = value

    def synchronize_inputs(self) -> None:
        self.session.log.calls.append(("synchronize inputs",))

    def synchronize_outputs(self) -> None:
        self.session.log.calls.append(("synchronize outputs",))

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return self.found


class _Session:
    """Runs on the processor and reports to be on the first provider that was asked for."""

    log: GpuRuntime

    def __init__(self, path: str, options: Any = None, providers: Sequence[Any] = (), **more: Any) -> None:
        first = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
        self.real = _REAL(path, providers=["CPUExecutionProvider"])
        self.provider = first
        if first != "CPUExecutionProvider":
            self.log.opened.append((list(providers), more, options))
            self.log.start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run(self, names: Sequence[str], feed: dict[str, np.ndarray], options: Any = None) -> list[np.ndarray]:
        if self.provider != "CPUExecutionProvider":
            self.log.calls.append(("run", feed["image"].shape))
        return list(self.real.run(names, feed))

    def io_binding(self) -> _Binding:
        return _Binding(self)

    def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
        shape = binding.inputs["image"].shape
        self.log.calls.append(("run bound", shape))
        self.log.fails(shape)
        binding.found = self.real.run(list(binding.outputs), binding.inputs)
        for value, array in zip(binding.outputs.values(), binding.found, strict=True):
            if isinstance(value, _Value):
                value.array[...] = array


_REAL = onnxruntime.InferenceSession


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> GpuRuntime:
    """A machine with two GPUs, as far as segdet can see."""
    log = GpuRuntime()
    monkeypatch.setattr(nvidia, "driver", lambda: nvidia.Driver(2, (13, 0)))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PROVIDERS)
    monkeypatch.setattr(onnxruntime, "InferenceSession", type("Session", (_Session,), {"log": log}))
    monkeypatch.setattr(onnxruntime, "OrtValue", type("Value", (_Value,), {"log": log}))
    return log


def loaded(library: Driver | None) -> SimpleNamespace:
    """A stand-in for `ctypes` that finds this driver, or none."""

    def load(name: str, mode: int = 0) -> Driver:
        if library is None:
            raise OSError(f"{name}: cannot open shared object file")
        return library

    return SimpleNamespace(CDLL=load, c_int=ctypes.c_int, byref=ctypes.byref)
