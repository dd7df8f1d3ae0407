"""Depthwise convolutions in bfloat16 on a processor, with a backward pass made of the operations that are fast there.

oneDNN's own bfloat16 backward takes a slow path (measured: 3 to 40 times a float32 one) unless stride is 1 and the kernel 3x3, and
in EfficientNet-like backbones these layers are half of a training step. The gradient of the input is therefore a forward
convolution with the kernel turned around (of the gradient spread out by the stride), and a 5x5 kernel's gradient is put together
from four overlapping 3x3 ones. Other kernels go backward in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def fast_backward(model: nn.Module) -> int:
    """Give every depthwise convolution of `model` the fast backward pass; returns how many there were.

    Only the classes change: parameters, buffers and their names stay as they are.
    """
    found = [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1 and module.padding_mode == "zeros"
    ]
    for module in found:
        module.__class__ = _DepthwiseConv2d
    return len(found)


class _DepthwiseConv2d(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_autocast_enabled("cpu") or isinstance(self.padding, str):
            return super().forward(x)
        settings = (self.stride, self.padding, self.dilation, self.groups)
        out: torch.Tensor = _Mixed.apply(x.to(torch.bfloat16), self.weight.to(torch.bfloat16), settings)
        return out if self.bias is None else out + self.bias.to(out.dtype).view(1, -1, 1, 1)


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, settings: tuple[Any, ...]) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        stride, padding, dilation, groups = settings
        return torch.ops.aten.convolution(x, weight, None, stride, padding, dilation, False, [0, 0], groups)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        side, step, margin = weight.shape[-1], stride[0], padding[0]
        usual = (
            tuple(weight.shape) == (groups, 1, side, side)
            and side in (3, 5)
            and stride[0] == stride[1]
            and tuple(padding) == (side // 2, side // 2)
            and tuple(dilation) == (1, 1)
        )
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        if not usual:
            wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(
                gradient.float(), x.float(), weight.float(), None,
                stride, padding, dilation, False, [0, 0], groups, wanted,
            )  # fmt: skip
        else:
            of_x = _of_input(gradient, x, weight, step, margin) if ctx.needs_input_grad[0] else None
            of_weight = _of_weight(gradient, x, side, step, margin) if ctx.needs_input_grad[1] else None
        return (
            None if of_x is None else of_x.to(x.dtype),
            None if of_weight is None else of_weight.to(weight.dtype),
            None,
        )


def _of_input(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """`[N, C, h, w]` -> `[N, C, H, W]`: what the transposed convolution gives, as a forward one."""
    if stride > 1:
        spread = torch.zeros_like(x)
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return torch.ops.aten.convolution(
        gradient, weight.flip(2, 3), None, [1, 1], [padding, padding], [1, 1], False, [0, 0], weight.shape[0]
    )


def _of_weight(gradient: torch.Tensor, x: torch.Tensor, side: int, stride: int, padding: int) -> torch.Tensor:
    """-> `[C, 1, side, side]`."""
    if side == 3:
        return _of_3x3(gradient, x, stride, padding)
    height, width = (stride * (length - 1) + 3 for length in gradient.shape[-2:])
    padded = F.pad(x, (padding, padding, padding, padding))
    out = gradient.new_empty((x.shape[1], 1, side, side))
    for i in (0, 2):
        for j in (0, 2):
            part = padded[:, :, i : i + height, j : j + width].contiguous(memory_format=torch.channels_last)
            out[:, :, i : i + 3, j : j + 3] = _of_3x3(gradient, part, stride, 0)
    return out


def _of_3x3(gradient: torch.Tensor, x: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    channels = x.shape[1]
    shape = x.new_empty((channels, 1, 3, 3))
    _, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, shape, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels, [False, True, False]
    )
    return of_weight
