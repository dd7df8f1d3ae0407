"""NVIDIA GPUs as the driver reports them, without PyTorch or ONNX Runtime: how many there are, and for which CUDA."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from segdet.errors import InvalidOption

_NAME = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_FILES = ("/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")  # on Linux, and on Linux inside Windows

# What `cuInit` returns where there is no working GPU, and what to do about it.
_FAULTS = {
    100: "the driver shows no GPU: check CUDA_VISIBLE_DEVICES (in a container: run it with --gpus all)",
    802: "the GPUs are not initialised yet: start nvidia-fabricmanager",
    803: "the driver's kernel module and its libraries are of different versions: reboot",
    804: "the CUDA compatibility package does not fit this GPU: remove it from the library path",
    999: "the driver cannot start (error 999): reload the module nvidia_uvm, or reboot",
}


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver says.

    Attributes:
        count: GPUs that this process may use; a MIG instance counts as one.
        cuda: the newest CUDA that the driver runs, as (major, minor); (0, 0) when it does not say.
        fault: why no GPU can be used, and what to do; empty when one can be used.
    """

    count: int = 0
    cuda: tuple[int, int] = (0, 0)
    fault: str = ""


def present() -> bool:
    """Whether this machine has an NVIDIA driver, be it broken or not."""
    return any(Path(file).exists() for file in _FILES) or (os.name == "nt" and driver().count > 0)


def driver() -> Driver:
    """Ask the driver."""
    try:
        library = ctypes.CDLL(_NAME)
        status = library.cuInit(0)
    except (OSError, AttributeError):
        return Driver(fault=f"{_NAME} is missing: install the NVIDIA driver (in a container: run it with --gpus all)")
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value // 1000, number.value % 1000 // 10
    if status:
        return Driver(0, cuda, _FAULTS.get(status, f"the driver cannot start (CUDA error {status})"))
    status = library.cuDeviceGetCount(ctypes.byref(number))
    if status or not number.value:
        return Driver(0, cuda, _FAULTS[100])
    return Driver(number.value, cuda)


def check(device: str, number: int) -> None:
    """Check that the driver has this GPU.

    Args:
        device: what the user said, for the message.
        number: of the GPU, from 0.

    Raises:
        InvalidOption: no working driver, or fewer GPUs.
    """
    here = driver()
    if here.fault:
        raise InvalidOption("device", device, here.fault, "or use the device cpu")
    if number >= here.count:
        raise InvalidOption("device", device, too_few(here.count))


def too_few(count: int) -> str:
    """Why a GPU of a number beyond `count` cannot be used."""
    if count == 1:
        return "this process can use 1 GPU, number 0; MIG instances and CUDA_VISIBLE_DEVICES count too"
    return f"this process can use {count} GPUs, numbered from 0; MIG instances and CUDA_VISIBLE_DEVICES count too"


def too_old(built_for: str, here: Driver) -> str:
    """Why the driver cannot run a library, and what to do; empty when it can.

    Args:
        built_for: the CUDA that the library was built for, such as "13.0"; empty when it does not say.
        here: the driver.
    """
    major = built_for.partition(".")[0]
    if not major.isdigit() or here.cuda == (0, 0) or here.cuda[0] >= int(major):  # minor versions are compatible
        return ""
    has = f"{here.cuda[0]}.{here.cuda[1]}"
    return f"built for CUDA {built_for}, but the driver runs CUDA {has} at most: update the driver"
