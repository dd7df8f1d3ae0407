"""Optimisers, learning-rate schedules, freezing, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segdet.errors import InvalidOption, nearest
from segdet.models.backbones import Backbone

Groups = list[dict[str, object]]

OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, fused=True),
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, momentum=0.9),
    "adagrad": lambda groups: torch.optim.Adagrad(groups),
}

# Share of the peak rate after the warm-up, from progress 0..1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)),
    "poly": lambda progress: max(0.01, (1.0 - progress) ** 0.9),
    "step": lambda progress: 1.0 if progress < 2 / 3 else 0.1 if progress < 8 / 9 else 0.01,
    "one-cycle": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)) + 1e-4,
    "constant": lambda progress: 1.0,
}
_ONE_CYCLE_CLIMB = 0.3  # share of the steps (Smith 2018, arXiv 1803.09820)


def build_optimizer(
    name: str, model: nn.Module, backbone: Backbone, lr: float, backbone_lr: float, layer_decay: float, decay: float
) -> torch.optim.Optimizer:
    """An optimiser whose groups know their peak rate.

    Norms and biases are not decayed. The backbone learns at `lr * backbone_lr`; each stage below its last one at
    `layer_decay` times the rate of the stage above.

    Raises:
        InvalidOption: unknown name.
    """
    if name not in OPTIMIZERS:
        raise InvalidOption(
            "optimizer", name, f"no such optimizer{nearest(name, OPTIMIZERS) or '.'} Known: {', '.join(OPTIMIZERS)}"
        )
    stage_of = {id(parameter): backbone.stage_of[key] for key, parameter in backbone.model.named_parameters()}
    deepest = max(stage_of.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            stage = stage_of.get(id(parameter))
            share = 1.0 if stage is None else backbone_lr * layer_decay ** (deepest - stage)
            groups.setdefault((share, 0.0 if parameter.ndim <= 1 else decay), []).append(parameter)
    if not groups:
        raise InvalidOption("freeze", None, "nothing is left to train")
    return OPTIMIZERS[name](
        [
            {"params": parameters, "lr": lr * share, "peak": lr * share, "weight_decay": weight}
            for (share, weight), parameters in sorted(groups.items(), reverse=True, key=lambda item: item[0])
        ]
    )


def schedule(name: str, progress: float, step: float, warmup: float) -> float:
    """Share of the peak learning rate: a linear climb over `warmup` of the training, then the schedule.

    Args:
        progress: share of the training done, 0..1. step: share that one step is; no climb is shorter.

    Raises:
        InvalidOption: unknown name.
    """
    if name not in SCHEDULES:
        raise InvalidOption(
            "schedule", name, f"no such schedule{nearest(name, SCHEDULES) or '.'} Known: {', '.join(SCHEDULES)}"
        )
    climb = max(step, _ONE_CYCLE_CLIMB if name == "one-cycle" else warmup)
    if progress < climb:
        return min(1.0, (progress + step) / climb)
    return SCHEDULES[name](min(1.0, (progress - climb) / max(step, 1.0 - climb)))


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give every group its peak rate times `share`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def freeze(backbone: Backbone, what: str) -> list[nn.Module]:
    """Fix part of the backbone: "none", "backbone" (all of it), or a number N (the stem and its first N - 1 stages).

    Returns:
        The modules whose statistics must stand still too: keep them in evaluation mode while training.

    Raises:
        InvalidOption: another value.
    """
    deepest = max(backbone.stage_of.values(), default=0)
    if what == "backbone":
        below = deepest + 1
    elif what == "none":
        below = 0
    elif what.isdigit() and int(what) <= deepest + 1:
        below = int(what)
    else:
        reason = f"must be none, backbone, or a number up to {deepest + 1} for {backbone.name}"
        raise InvalidOption("freeze", what, reason)
    fixed = set()
    for key, parameter in backbone.model.named_parameters():
        if backbone.stage_of[key] < below:
            parameter.requires_grad_(False)
            fixed.add(key.rpartition(".")[0])
    return [module for name, module in backbone.model.named_modules() if name in fixed]


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
