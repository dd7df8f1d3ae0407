"""Where PyTorch computes."""

from __future__ import annotations

import torch

from segdet.errors import InputError


def chosen(device: str) -> str:
    """The device for "auto", "cpu", "cuda" or "cuda:N", as PyTorch names it.

    Raises:
        InputError: another word, or a GPU that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device != "cuda" and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise InputError(f"--device {device}: say auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no GPU or no working driver was found" if built else "this PyTorch was built without CUDA"
        raise InputError(f"--device {device}: {why}; use --device cpu")
    if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
        raise InputError(f"--device {device}: this machine has {torch.cuda.device_count()} GPUs, numbered from 0")
    return device


def named(device: torch.device) -> str:
    """The word `chosen` takes for a device that is in use; PyTorch calls a processor shared by several processes "cpu:0"."""
    return "cpu" if device.type == "cpu" else str(device)
