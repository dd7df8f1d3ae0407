"""What detectors share. Shapes: N images, Q queries, K classes, H x W pixels; boxes are cxcywh in 0..1 inside the networks.

A detector maps normalised images `[N, 3, H, W]` to `Predictions`; `detector.Detector` turns those into boxes in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Target:
    """The objects of one image. boxes: float32 `[K, 4]`, cxcywh as shares of the image; labels: int64 `[K]`."""

    boxes: torch.Tensor
    labels: torch.Tensor


@dataclass
class Predictions:
    """What a detector says, and while training what it said on the way.

    logits: `[N, Q, K]` (plus no-object as the last class for `detr`). boxes: `[N, Q, 4]`.
    aux: the same after earlier layers. extra: what the architecture's own loss needs besides.
    """

    logits: torch.Tensor
    boxes: torch.Tensor
    aux: list[Predictions] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class DetectionModel(Protocol):
    """What `Detector` and training need of an architecture. square: it sees images stretched to a square."""

    square: bool

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised images `[N, 3, H, W]` of one size -> at the size the network works at."""
        ...

    def ranked(self, predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes cxcywh `[N, Q, 4]`, scores `[N, Q]` (falling) and labels int64 `[N, Q]`."""
        ...


class MLP(nn.Module):
    """Linear layers with an activation between: `[..., inner]` -> `[..., outer]`."""

    def __init__(self, inner: int, hidden: int, outer: int, depth: int) -> None:
        super().__init__()
        widths = [inner, *[hidden] * (depth - 1), outer]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def inverse_sigmoid(x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """Logit of values in 0..1, kept finite."""
    x = x.clamp(0.0, 1.0)
    return torch.log(x.clamp(min=eps) / (1.0 - x).clamp(min=eps))


def prior_bias(probability: float) -> float:
    """Bias of a classifier that predicts `probability` at first (Lin et al. 2017, arXiv 1708.02002)."""
    return -math.log((1.0 - probability) / probability)


class HoldsNorms(nn.Module):
    """A network that can keep its backbone's batch norms as they came."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[nn.Module] = []

    def hold_norms(self, backbone: nn.Module) -> None:
        """Fix weight, bias and statistics of every batch norm in `backbone` from now on."""
        self._held = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in self._held:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> HoldsNorms:
        """As `nn.Module.train`; held norms stay in evaluation mode."""
        super().train(mode)
        for module in self._held:
            module.eval()
        return self
