"""Optimiser, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def adamw(model: nn.Module, backbone: nn.Module, lr: float, backbone_share: float, decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) with no decay on norms and biases, and a slower backbone."""
    inside = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in inside, parameter.ndim <= 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": lr * (backbone_share if slow else 1.0),
                "peak": lr * (backbone_share if slow else 1.0),
                "weight_decay": 0.0 if plain else decay,
            }
            for (slow, plain), parameters in groups.items()
        ]
    )


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `total`: a linear climb, then half a cosine down to 1 %."""
    climb = max(1, round(warmup * total))
    if step < climb:
        return (step + 1) / climb
    progress = (step - climb) / max(1, total - climb)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group its peak rate times `share`."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * share


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of weights and buffers; the decay climbs, so that short runs are not left at the start."""

    def average(means: list[torch.Tensor], news: list[torch.Tensor], count: torch.Tensor | int) -> None:
        if not means[0].is_floating_point():  # batch norm's counters
            for mean, new in zip(means, news, strict=True):
                mean.copy_(new)
            return
        share = min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        torch._foreach_lerp_(means, news, 1.0 - share)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
