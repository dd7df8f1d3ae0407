"""Where and in which arithmetic a run computes."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from segdet.errors import InputError, InvalidOption
from segdet.models import devices


def accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator on the device that was asked for.

    Raises:
        InputError: a GPU was asked for and there is none, or arithmetic that the device lacks.
    """
    chosen = devices.chosen(device)
    if chosen != "cpu":
        _check_processes(device)
    if chosen.startswith("cuda:"):
        torch.cuda.set_device(chosen)
    if chosen != "cpu":
        torch.set_float32_matmul_precision("high")  # TF32: what is left in float32 runs on tensor cores
        torch.backends.cudnn.allow_tf32 = True
    mode = _precision(precision, chosen)
    # A backbone may have more than the head uses, or stand still for a while: such parameters get no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=chosen == "cpu",
        mixed_precision="no" if mode == "fp32" else mode,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[unused],
    )


def _check_processes(device: str) -> None:
    """Each process of several uses the GPU of its own number.

    Raises:
        InvalidOption: more processes than GPUs, or one GPU named for all of them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    if device.startswith("cuda:"):
        raise InvalidOption("device", device, "each of several processes uses a GPU of its own", "say cuda")
    own, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= count:
        hint = f"start at most {count} on this machine: torchrun --nproc_per_node {count}"
        raise InvalidOption("device", device, f"process {own + 1} of this machine has no GPU, there are {count}", hint)


def _precision(precision: str, device: str) -> str:
    if device == "cpu":
        if precision == "fp16":
            raise InputError("--precision fp16: processors are slow at it; use bf16 or fp32 (or auto)")
        # Without instructions for it, bf16 on a processor is emulated and slower than fp32.
        return ("bf16" if _cpu_has_bf16() else "fp32") if precision == "auto" else precision
    return ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if precision == "auto" else precision


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
