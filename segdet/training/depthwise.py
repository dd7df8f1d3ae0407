"""Depthwise convolutions in bfloat16 on a processor: the forward pass stays in bfloat16, the backward runs in float32.

oneDNN has no fast bfloat16 backward for them (measured: 3 to 14 times slower than float32 in channels-last), and in
EfficientNet-like backbones they are half of a training step. With this, a step takes three quarters of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def float32_backward(model: nn.Module) -> int:
    """Give every depthwise convolution of `model` the mixed pass; returns how many there were.

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
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(), x.float(), weight.float(), None,
            stride, padding, dilation, False, [0, 0], groups, wanted,
        )  # fmt: skip
        return (
            None if of_x is None else of_x.to(x.dtype),
            None if of_weight is None else of_weight.to(weight.dtype),
            None,
        )
