"""The machine: versions, devices, and how busy the device is while something runs."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from gpu_kit.record import Log
from segdet import machine
from segdet.inference.backends import nvidia

PACKAGES = (
    "torch", "torchvision", "timm", "accelerate", "numpy", "opencv-python-headless", "pillow", "albumentations",
    "segmentation-models-pytorch", "pycocotools", "faster-coco-eval", "pydantic", "fastapi", "onnx", "onnxscript",
    "onnxruntime", "onnxruntime-gpu", "tensorrt", "nvidia-cudnn-cu13", "triton",
)  # fmt: skip
_BEAT = 0.05  # seconds between two looks at the device


def describe(log: Log, device: str) -> None:
    """Rows about versions, PyTorch's devices and ONNX Runtime's providers."""
    log.step("versions", _versions)
    log.step("driver", lambda: {"driver": _driver()})
    log.step("torch", lambda: _torch(device))
    log.step("onnxruntime", _onnxruntime)


def _versions() -> dict[str, Any]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    about = f"{machine.processor()}, {machine.cores()} cores"
    return {"python": platform.python_version(), "processor": about, "packages": found}


def _driver() -> str:
    here = nvidia.driver()
    return here.fault or f"{here.count} GPUs, CUDA {here.cuda[0]}.{here.cuda[1]}"


def _torch(device: str) -> dict[str, Any]:
    import torch

    row: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": device, "gpu": None}
    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(device)
        row.update(
            gpu=about.name,
            gpu_memory_gb=round(about.total_memory / 1e9, 1),
            capability=f"{about.major}.{about.minor}",
            cudnn=torch.backends.cudnn.version(),
            bf16=torch.cuda.is_bf16_supported(),
        )
    return row


def _onnxruntime() -> dict[str, Any]:
    import onnxruntime

    return {
        "onnxruntime": onnxruntime.__version__,
        "built_for_cuda": getattr(onnxruntime, "cuda_version", "") or None,
        "providers": onnxruntime.get_available_providers(),
    }


def synchronise(device: str) -> None:
    """Wait until the device has done everything it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def seconds_of_runs(run: Callable[[], object], seconds: float, device: str, least: int = 5) -> list[float]:
    """Seconds of each of several runs after warm-up, each waited for; `least` of them at least."""
    for _ in range(3):
        run()
    synchronise(device)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return taken


class Meter:
    """Looks at the device while the block runs; `result` then says how busy it was.

    On a GPU: the share of time in which a kernel ran, as the driver counts it, and the memory in use. Else the processor.
    """

    def __init__(self, device: str) -> None:
        self.result: dict[str, Any] = {}
        self._device, self._stop = device, threading.Event()
        self._busy: list[float] = []
        self._memory: list[float] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        name = "gpu_busy" if self._device.startswith("cuda") else "processor_busy"
        self.result[name] = round(statistics.mean(self._busy), 3) if self._busy else None
        if self._memory:
            self.result["memory_mb"] = round(max(self._memory))

    def _look(self) -> None:
        look = _nvml(self._device) if self._device.startswith("cuda") else _processor()
        while look is not None and not self._stop.wait(_BEAT):
            busy, memory = look()
            self._busy.append(busy)
            self._memory.append(memory)


def _processor() -> Callable[[], tuple[float, float]]:
    import psutil

    process = psutil.Process()
    process.cpu_percent()
    return lambda: (process.cpu_percent() / 100 / machine.cores(), process.memory_info().rss / 1e6)


def _nvml(device: str) -> Callable[[], tuple[float, float]] | None:
    """A function that asks the driver; None where it cannot be asked (no package, or an instance of MIG)."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetUtilizationRates(handle)
    except Exception:
        return None
    return lambda: (
        pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        pynvml.nvmlDeviceGetMemoryInfo(handle).used / 1e6,
    )
