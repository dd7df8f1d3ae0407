"""A segmentation network that answers like an exported file: the face that tiles, validation and parity share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from segdet.metadata import Metadata
from segdet.models.common import bounded, normalise


class Network:
    """RGB uint8 `[N, H, W, 3]` -> mask uint8 and confidence float32, both `[N, H, W]`, in float32 on the model's device."""

    def __init__(self, model: nn.Module, metadata: Metadata) -> None:
        self.model, self.metadata = model, metadata
        self.one_class = len(metadata.classes) == 1
        self.threshold = 0.5 if metadata.threshold is None else metadata.threshold

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `Session.run` of a segmentation model."""
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            inputs = normalise(torch.from_numpy(images).to(device), self.metadata.mean, self.metadata.std)
            return outputs(bounded(self.model, inputs, getattr(self.model, "most_pixels", None)), self.threshold)


def outputs(logits: torch.Tensor, threshold: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits float `[N, K, H, W]` -> mask uint8 and confidence float32 `[N, H, W]`, as the exported graph gives them."""
    if logits.shape[1] == 1:
        confidence = logits[:, 0].sigmoid().cpu().numpy()
        return (confidence >= np.float32(threshold)).view(np.uint8), confidence
    best, index = logits.softmax(dim=1).max(dim=1)
    return index.to(torch.uint8).cpu().numpy(), best.cpu().numpy()
