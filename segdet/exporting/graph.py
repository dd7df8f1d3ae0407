"""The network as the contract wants it (docs/contract.md): raw RGB bytes in, answers in the image's own pixels out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segdet.models.common import bounded, normalise


class OneClassGraph(nn.Module):
    """uint8 `[N, H, W, 3]` and a threshold -> (mask uint8 `[N, H, W]`, foreground probability float32 `[N, H, W]`)."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, tuple(mean), tuple(std)

    def forward(self, image: torch.Tensor, threshold: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        confidence = _logits(self.model, normalise(image, self.mean, self.std))[:, 0].sigmoid()
        return (confidence >= threshold).to(torch.uint8), confidence


class ClassesGraph(nn.Module):
    """uint8 `[N, H, W, 3]` -> (class index uint8 `[N, H, W]`, probability of that class float32 `[N, H, W]`)."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, tuple(mean), tuple(std)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        confidence, index = _logits(self.model, normalise(image, self.mean, self.std)).softmax(dim=1).max(dim=1)
        return index.to(torch.uint8), confidence


def _logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return bounded(model, x, getattr(model, "most_pixels", None))
