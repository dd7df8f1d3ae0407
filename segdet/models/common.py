"""What every model shares. Shapes: N images, C channels, K classes, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """RGB uint8 `[N, H, W, 3]` -> float32 `[N, 3, H, W]`, (x / 255 - mean) / std.

    The one normalisation of training, validation and the exported graph. `mean` and `std` are in units of 0..1.
    """
    offset = torch.tensor([255.0 * m for m in mean], device=images.device).view(1, 3, 1, 1)
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=images.device).view(1, 3, 1, 1)
    return (images.permute(0, 3, 1, 2).to(torch.float32) - offset) * scale


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend `[N, C, H, W]` to the right and below to a multiple of `multiple`, repeating the last row and column.

    Repeating makes no edge at the border; zeros would, and edges look like cracks.
    """
    if multiple == 1:
        return x
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def answer(logits: torch.Tensor) -> np.ndarray:
    """Logits float `[N, K, H, W]` -> probabilities float32 `[N, H, W]` (K = 1) or class indices uint8 `[N, H, W]`."""
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid().cpu().numpy()
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()


def predict(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`answer` of a model in evaluation mode for RGB uint8 `[N, H, W, 3]`, in float32 on the model's device."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return answer(model(normalise(images.to(device), mean, std)))
