"""Where and in which arithmetic a run computes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from segdet.errors import InputError
from segdet.models import devices


def accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator on the device that was asked for.

    Raises:
        InputError: a GPU was asked for and there is none, or arithmetic that the device lacks.
    """
    chosen = devices.chosen(device)
    if chosen.startswith("cuda:"):
        torch.cuda.set_device(chosen)
    if chosen != "cpu":
        torch.set_float32_matmul_precision("high")  # TF32: what is left in float32 runs on tensor cores
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True  # training crops and validation images come in few sizes
    mode = _precision(precision, chosen)
    # A backbone may have more than the head uses, or stand still for a while: such parameters get no gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=chosen == "cpu",
        mixed_precision="no" if mode == "fp32" else mode,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[unused],
    )


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
