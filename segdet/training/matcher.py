"""Which prediction answers for which object: the assignment of least cost (Kuhn 1955), image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, generalized_box_iou

from segdet.models.detection import Predictions, Target

Pairs = tuple[torch.Tensor, torch.Tensor]  # int64 indices of queries and of the objects they answer for


def corners_of(boxes: torch.Tensor) -> torch.Tensor:
    """cxcywh `[..., 4]` -> xyxy `[..., 4]`."""
    return box_convert(boxes, "cxcywh", "xyxy")


@dataclass(frozen=True)
class Matcher:
    """Costs of class, L1 and GIoU. focal: sigmoid probabilities and the focal cost (D-FINE), else softmax (DETR)."""

    label: float = 1.0
    l1: float = 5.0
    giou: float = 2.0
    focal: bool = False

    def __call__(self, predictions: Predictions, targets: Sequence[Target]) -> list[Pairs]:
        """The pairs of each image; as many as it has objects (or queries, if there are fewer)."""
        logits, boxes = predictions.logits.detach().float(), predictions.boxes.detach().float()
        costs = [self._cost(*each) for each in zip(logits, boxes, targets, strict=True)]
        # One copy from the device and one back for all images: each copy waits until the device has done its work.
        here = torch.cat([cost.flatten() for cost in costs]).cpu().split([cost.numel() for cost in costs])
        found = [linear_sum_assignment(part.view(cost.shape).numpy()) for part, cost in zip(here, costs, strict=True)]
        indices = torch.cat([torch.as_tensor(part) for pair in found for part in pair]).to(boxes.device)
        parts = indices.split([len(part) for pair in found for part in pair])
        return list(zip(parts[::2], parts[1::2], strict=True))

    def _cost(self, logits: torch.Tensor, boxes: torch.Tensor, target: Target) -> torch.Tensor:
        """`[Q, objects]`; a prediction that is NaN is matched last instead of ending the run, and the loss then shows it."""
        cost = (
            self.label * self._label_cost(logits, target.labels)
            + self.l1 * torch.cdist(boxes, target.boxes, p=1)
            - self.giou * generalized_box_iou(corners_of(boxes), corners_of(target.boxes))
        )
        return cost.nan_to_num(nan=1e9, posinf=1e9, neginf=1e9)

    def _label_cost(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`[Q, objects]`."""
        if not self.focal:
            return -logits.softmax(-1)[:, labels]
        probs = logits.sigmoid()[:, labels]
        missed = 0.25 * (1.0 - probs) ** 2 * -(probs + 1e-8).log()
        wrong = 0.75 * probs**2 * -(1.0 - probs + 1e-8).log()
        return missed - wrong
