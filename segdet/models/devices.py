"""Where PyTorch computes, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segdet.errors import InvalidOption, setting


def chosen(device: str) -> str:
    """The device for "auto", "cpu", "cuda" or "cuda:N", as PyTorch names it.

    Raises:
        InvalidOption: another word, or a GPU that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device != "cuda" and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise InvalidOption("device", device, "say auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise InvalidOption("device", device, _why_not(), f"use {setting('device', 'cpu')}")
    count = torch.cuda.device_count()
    if device.startswith("cuda:") and int(device[5:]) >= count:
        has = "1 GPU, number 0" if count == 1 else f"{count} GPUs, numbered from 0"
        raise InvalidOption("device", device, f"this process can use {has}")
    return device


def _why_not() -> str:
    """Why PyTorch has no GPU, in its own words where it has some."""
    if not torch.version.cuda:
        return "this PyTorch was built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # the driver is missing, or too old for this PyTorch, or shows no GPU
        reason = str(error).partition(". ")[0].splitlines()[0]
        return f"{reason} (PyTorch is built for CUDA {torch.version.cuda})"
    return "there is no GPU; check CUDA_VISIBLE_DEVICES"


def named(device: torch.device) -> str:
    """The word `chosen` takes for a device that is in use; PyTorch calls a processor shared by several processes "cpu:0"."""
    return "cpu" if device.type == "cpu" else str(device)


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 as float32: without TF32, which PyTorch uses in convolutions by default.

    Scores and references are measured like this, so that they are the same on every device. No algorithms are searched
    for either: photographs come in many sizes, and a search for each would take longer than the work.
    """
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@contextmanager
def algorithm_search(on: bool) -> Iterator[None]:
    """Let cuDNN try all its algorithms on the first input of every shape: worth it only where the same shapes come back."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
