"""From bytes to boxes: the one way that validation and the exported graph share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segdet.metadata import Metadata
from segdet.models import weights
from segdet.models.common import normalise
from segdet.models.detection import Predictions
from segdet.models.duplicates import damped

# Of one image: boxes float32 [Q, 4] (xyxy, in its pixels), scores float32 [Q] (falling), labels int64 [Q].
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Detector(nn.Module):
    """RGB uint8 `[N, H, W, 3]` -> boxes `[N, Q, 4]` (xyxy, in pixels of the input), scores `[N, Q]`, labels `[N, Q]`.

    Sorted by score, with duplicates damped where that was found to be better (`duplicates.damped`). The one way from
    bytes to boxes: validation uses it, and the exported graph is traced from it.
    """

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], damp_duplicates: bool = False
    ) -> None:
        super().__init__()
        self.model, self.mean, self.std, self.damp_duplicates = model, tuple(mean), tuple(std), damp_duplicates

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = image.shape[1:3]
        x = self.model.prepare(normalise(image, self.mean, self.std))
        found = self.model(x)
        boxes, scores, labels = self.model.ranked(Predictions(found.logits.float(), found.boxes.float()))
        lengths = (width, height, width, height)
        scale = torch.stack([torch.full((), float(length), device=boxes.device) for length in lengths])
        corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)
        corners = corners.clamp(0.0, 1.0) * scale
        return damped(corners, scores, labels) if self.damp_duplicates else (corners, scores, labels)


def detect(detector: Detector, images: np.ndarray | torch.Tensor) -> list[Found]:
    """What `detector` finds in RGB uint8 `[N, H, W, 3]`, image by image, in float32 on its own device."""
    device = next(detector.parameters()).device
    with torch.inference_mode():
        parts = [part.cpu().numpy() for part in detector(torch.as_tensor(images).to(device))]
    return [(boxes, scores, labels) for boxes, scores, labels in zip(*parts, strict=True)]


def load_detector(
    path: Path, device: str = "cpu", imgsz: int | None = None
) -> tuple[Callable[[np.ndarray], list[Found]], Metadata]:
    """A function that detects, and the description, from a weights file; `imgsz` as in `weights.load`.

    Raises:
        InputError: as `weights.load`.
    """
    model, metadata = weights.load(path, imgsz)
    detector = Detector(model, metadata.mean, metadata.std, metadata.damp_duplicates).to(device).eval()
    return lambda images: detect(detector, images), metadata
