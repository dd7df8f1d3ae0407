"""Contrastive denoising queries (DINO, Zhang et al. 2022, arXiv 2203.03605): labelled boxes, disturbed, to be put right.

Each group holds every object of an image twice: a slightly moved copy, to be restored, and a far moved one, to be refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from segdet.models.detection import Target, inverse_sigmoid

QUERIES = 100  # about so many, whatever the number of objects
LABEL_NOISE, BOX_NOISE = 0.5, 1.0


@dataclass
class Denoising:
    """D disturbed queries that stand before the others.

    embedded: `[N, D, C]`. boxes: logits of cxcywh `[N, D, 4]`. blocked: bool `[D + Q, D + Q]`, True = must not look.
    matches: per image (query indices, object indices), the pairs to restore. groups: how often each object occurs.
    """

    embedded: torch.Tensor
    boxes: torch.Tensor
    blocked: torch.Tensor
    matches: list[tuple[torch.Tensor, torch.Tensor]]
    groups: int

    @property
    def count(self) -> int:
        """D."""
        return self.embedded.shape[1]


def disturbed(
    targets: Sequence[Target], classes: int, queries: int, embedding: nn.Embedding, wanted: int = QUERIES
) -> Denoising | None:
    """Denoising queries for a batch; None when no image has an object. `embedding` has `classes + 1` rows, the last for none."""
    most = max(len(target.labels) for target in targets)
    if most == 0 or wanted == 0:
        return None
    groups = max(1, wanted // most)
    device = targets[0].boxes.device
    labels = torch.full((len(targets), most), classes, dtype=torch.int64, device=device)
    boxes = torch.zeros(len(targets), most, 4, device=device)
    for row, target in enumerate(targets):
        labels[row, : len(target.labels)] = target.labels
        boxes[row, : len(target.labels)] = target.boxes
    labels, boxes = labels.repeat(1, 2 * groups), boxes.repeat(1, 2 * groups, 1)
    labels = _other_labels(labels, classes)
    far = (torch.arange(2 * most * groups, device=device) // most % 2).float().reshape(1, -1, 1)
    first = torch.arange(groups, device=device)[:, None] * 2 * most
    matches = []
    for target in targets:
        each = torch.arange(len(target.labels), device=device)
        matches.append(((first + each).flatten(), each.repeat(groups)))
    return Denoising(
        embedding(labels), inverse_sigmoid(_moved(boxes, far)), _blocked(most, groups, queries, device), matches, groups
    )


def _other_labels(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Some labels replaced by random ones; rows that only fill up stay "none"."""
    changed = torch.rand(labels.shape, device=labels.device) < LABEL_NOISE * 0.5
    return torch.where(changed & (labels < classes), torch.randint_like(labels, max(1, classes)), labels)


def _moved(boxes: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
    """cxcywh boxes whose corners moved by up to half a side, or between half and a whole one where `far` is 1."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
    sign = torch.randint(0, 2, boxes.shape, device=boxes.device) * 2.0 - 1.0
    part = (torch.rand(boxes.shape, device=boxes.device) + far) * sign
    corners = (corners + part * (size / 2).repeat(1, 1, 2) * BOX_NOISE).clamp(0.0, 1.0)
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def _blocked(most: int, groups: int, queries: int, device: torch.device) -> torch.Tensor:
    """Groups see themselves and the real queries; the real queries must not see the answers."""
    group = torch.arange(2 * most * groups, device=device) // (2 * most)
    group = torch.cat([group, torch.full((queries,), -1, device=device)])
    return (group[:, None] != group[None, :]) & (group[None, :] >= 0)
