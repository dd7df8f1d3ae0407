"""What every model shares. Shapes: N images, C channels, K classes, H x W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """RGB uint8 `[N, H, W, 3]` -> float32 `[N, 3, H, W]`, (x / 255 - mean) / std.

    The one normalisation of training, validation and the exported graph. `mean` and `std` are in units of 0..1.
    """
    offset = constants([255.0 * m for m in mean], images.device).view(1, 3, 1, 1)
    scale = constants([1.0 / (255.0 * s) for s in std], images.device).view(1, 3, 1, 1)
    return (images.permute(0, 3, 1, 2).to(torch.float32) - offset) * scale


def constants(values: Sequence[float], device: torch.device) -> torch.Tensor:
    """A float32 vector of a few numbers on a device; on a GPU without a copy, which would wait until the GPU is idle."""
    if device.type == "cpu":
        return torch.tensor(values)
    return torch.stack([torch.full((), value, device=device) for value in values])


# Logits `[N, K, H, W]`; in training, heads with auxiliary outputs give a tuple with the main one first.
Outputs: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


def pad_to_multiple(x: torch.Tensor, multiple: int, mode: str = "replicate", counted: bool = False) -> torch.Tensor:
    """Extend `[N, C, H, W]` to the right and below to a multiple of `multiple`, repeating the last row and column.

    Repeating makes no edge at the border; zeros (`mode="constant"`) would, and edges look like cracks.

    Args:
        counted: for networks that cut the image into patches: while exporting, see `pad_to_windows`.
    """
    height, width = x.shape[-2:]
    if counted and torch.compiler.is_exporting():
        below, right = (_whole(length, multiple) - length for length in (height, width))
        return F.pad(x, (0, right, 0, below), mode=mode)
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode=mode)


def pad_to_windows(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """As `pad_to_multiple`, for networks that cut their maps into windows of a fixed size.

    While exporting, the number of windows is read back as a value: the tracer then knows sizes as `multiple * n` and can
    divide them, where nested roundings would keep it busy for ever.
    """
    rows, columns = (_whole(length, multiple) for length in x.shape[-2:])
    row = torch.arange(rows, device=x.device).clamp(max=x.shape[-2] - 1)
    column = torch.arange(columns, device=x.device).clamp(max=x.shape[-1] - 1)
    return x.index_select(2, row).index_select(3, column)


def _whole(length: int, multiple: int) -> int:
    count = (length + multiple - 1) // multiple
    if torch.compiler.is_exporting():
        count = torch.full((), count, dtype=torch.int64).item()
        torch._check(count >= 1)
        torch._check(count <= 10_000)
    return count * multiple


def resized(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Logits `[N, K, h, w]` -> `[N, K, *size]`, bilinearly, as torchvision does (corners not aligned)."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


class Upscaled(nn.Module):
    """Runs a model on images enlarged `factor` times and shrinks its logits back.

    For heads that end at stride 4 to 16 and would lose thin cracks: the stride becomes `factor` times finer.
    """

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: torch.Tensor) -> Outputs:
        """`[N, 3, H, W]` -> what the model gives, at `[N, K, H, W]`."""
        size = x.shape[-2:]
        large = F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)
        out = self.model(large)
        if isinstance(out, tuple):
            return tuple(resized(part, size) for part in out)
        return resized(out, size)


def bounded(model: nn.Module, x: torch.Tensor, most: int | None) -> torch.Tensor:
    """`model(x)` with the logits at x's own size; of images with more than `most` pixels the model sees smaller ones.

    Every token of a plain transformer looks at every other: memory grows with the square of the pixels, and 1920x1080
    would take gigabytes. Validation, prediction and the exported graph share this.

    Args:
        most: pixels of an image that the model sees at most (`most_pixels` of a model), None = any number.
    """
    height, width = x.shape[-2:]
    exporting = torch.compiler.is_exporting()
    if most is None or (not exporting and height * width <= most):
        logits: torch.Tensor = model(x)
        return logits
    pixels = torch.full((), height * width, dtype=torch.int64).to(torch.float32)
    scale = (most / pixels).sqrt().clamp(max=1.0)
    size: list[Any] = [(length * scale).floor().clamp(min=1.0).to(torch.int64).item() for length in (height, width)]
    if exporting:
        for length in size:
            torch._check(length >= 1)
            torch._check(length <= most)
    seen = F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return resized(model(seen), (height, width))


def answer(logits: torch.Tensor) -> np.ndarray:
    """Logits float `[N, K, H, W]` -> probabilities float32 `[N, H, W]` (K = 1) or class indices uint8 `[N, H, W]`."""
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid().cpu().numpy()
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()


def predict(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`answer` of a model in evaluation mode for RGB uint8 `[N, H, W, 3]`, in float32 on the model's device."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return answer(bounded(model, normalise(images.to(device), mean, std), getattr(model, "most_pixels", None)))
