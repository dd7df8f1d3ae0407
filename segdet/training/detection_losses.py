"""Set losses of DETR and D-FINE. Shapes: N images, Q queries, K classes, B bins; boxes cxcywh in 0..1.

A loss maps predictions and targets to named terms, already weighted; their sum is what training lowers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import generalized_box_iou_loss

from segdet.models.detection import Predictions, Target
from segdet.models.dfine import BINS, bin_offsets
from segdet.training.matcher import Matcher, Pairs, corners_of

Terms = dict[str, torch.Tensor]
_NO_OBJECT = 0.1  # weight of queries that answer for nothing, which are most
_TEMPERATURE = 5.0


class DETRLoss(nn.Module):
    """Cross entropy, L1 and generalized IoU after every decoder layer (Carion et al. 2020, section 3.1)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.matcher = classes, Matcher()
        self.weights: torch.Tensor
        self.register_buffer("weights", torch.cat([torch.ones(classes), torch.tensor([_NO_OBJECT])]), persistent=False)

    def forward(self, predictions: Predictions, targets: Sequence[Target], objects: float | None = None) -> Terms:
        """The weighted terms; `objects` is the number of objects to divide by (default: of this batch)."""
        count = _count(targets) if objects is None else objects
        terms: Terms = {}
        for name, layer in (("", predictions), *((f"_aux_{i}", aux) for i, aux in enumerate(predictions.aux))):
            pairs = self.matcher(layer, targets)
            terms[f"ce{name}"] = self.labels(layer, targets, pairs)
            l1, giou = box_losses(layer, targets, pairs, count)
            terms[f"l1{name}"], terms[f"giou{name}"] = 5.0 * l1, 2.0 * giou
        return terms

    def labels(self, predictions: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs]) -> torch.Tensor:
        """Cross entropy over all queries, weighted mean."""
        wanted = torch.full(predictions.logits.shape[:2], self.classes, device=predictions.logits.device)
        wanted[_queries(pairs)] = _objects("labels", targets, pairs)
        return F.cross_entropy(predictions.logits.float().transpose(1, 2), wanted, self.weights)


class DFINELoss(nn.Module):
    """Varifocal, L1, GIoU, fine-grained localisation and self-distillation terms (Peng et al. 2024, section 4).

    Boxes of a layer answer for every object that any layer matched them with (the union of the layers' assignments), classes
    for those of their own layer.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.matcher = classes, Matcher(label=2.0, focal=True)

    def forward(self, predictions: Predictions, targets: Sequence[Target], objects: float | None = None) -> Terms:
        """The weighted terms; `objects` is the number of objects to divide by (default: of this batch)."""
        count = _count(targets) if objects is None else objects
        extra = predictions.extra
        layers = [*predictions.aux, predictions, extra["first"]]
        own = [self.matcher(layer, targets) for layer in layers]
        union = [_united([pairs[i] for pairs in own], own[len(layers) - 2][i]) for i in range(len(targets))]
        united = max(1.0, float(sum(len(rows) for rows, _ in union)) * count / _count(targets))
        names = [f"_{i}" for i in range(len(predictions.aux))] + ["", "_first"]
        terms: Terms = {}
        for name, layer, pairs in zip(names, layers, own, strict=True):
            terms[f"vfl{name}"] = varifocal(layer, targets, pairs, self.classes, count)
            self._boxes(terms, name, layer, targets, union, united)
            if "corners" in layer.extra:
                self._edges(terms, name, layer, predictions, targets, union, united, extra)
        if "denoising" in extra:
            self._restored(terms, targets, count, extra)
        return terms

    def _restored(self, terms: Terms, targets: Sequence[Target], count: float, extra: dict[str, Any]) -> None:
        layers, noise = extra["denoising"]
        for number, layer in enumerate(layers):
            name, share = f"_dn_{number}", count * noise.groups
            terms[f"vfl{name}"] = varifocal(layer, targets, noise.matches, self.classes, share)
            self._boxes(terms, name, layer, targets, noise.matches, share)
            if "corners" in layer.extra:
                self._edges(terms, name, layer, layers[-1], targets, noise.matches, share, extra)

    @staticmethod
    def _boxes(
        terms: Terms, name: str, layer: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs], count: float
    ) -> None:
        l1, giou = box_losses(layer, targets, pairs, count)
        terms[f"l1{name}"], terms[f"giou{name}"] = 5.0 * l1, 2.0 * giou

    @staticmethod
    def _edges(
        terms: Terms, name: str, layer: Predictions, teacher: Predictions, targets: Sequence[Target],
        pairs: Sequence[Pairs], count: float, extra: dict[str, Any],
    ) -> None:  # fmt: skip
        bins = bin_offsets(extra["up"], extra["scale"])
        terms[f"fgl{name}"] = 0.15 * fine_grained(layer, targets, pairs, bins, extra["scale"], count)
        if layer is not teacher:
            terms[f"ddf{name}"] = 1.5 * distilled(layer, teacher, targets, pairs)


def box_losses(
    predictions: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs], count: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """L1 and 1 - GIoU of matched boxes, summed and divided by `count`."""
    found = predictions.boxes[_queries(pairs)].float().clamp(0.0, 1.0)
    wanted = _objects("boxes", targets, pairs)
    giou = generalized_box_iou_loss(corners_of(found), corners_of(wanted), reduction="sum")
    return (found - wanted).abs().sum() / count, giou / count


def iou_of(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """IoU of the i-th with the i-th box: xyxy `[M, 4]` twice -> `[M]`."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0.0).prod(1)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-12)


def varifocal(
    predictions: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs], classes: int, count: float
) -> torch.Tensor:
    """Cross entropy towards the IoU of each matched box, the rest weighted by its confidence (arXiv 2008.13367)."""
    logits = predictions.logits.float()
    score = torch.zeros_like(logits)
    where = _queries(pairs)
    found = predictions.boxes.detach()[where].float().clamp(0.0, 1.0)
    overlap = iou_of(corners_of(found), corners_of(_objects("boxes", targets, pairs)))
    positive = torch.zeros_like(logits)
    labels = _objects("labels", targets, pairs)
    score[(*where, labels)], positive[(*where, labels)] = overlap, 1.0
    weight = 0.75 * logits.detach().sigmoid() ** 2 * (1.0 - positive) + score
    return F.binary_cross_entropy_with_logits(logits, score, weight=weight, reduction="sum") / count


def fine_grained(
    predictions: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs], bins: torch.Tensor,
    scale: torch.Tensor, count: float,
) -> torch.Tensor:  # fmt: skip
    """Cross entropy of edge distributions towards the two bins around the true offset, weighted by IoU (equation 5)."""
    where = _queries(pairs)
    wanted = corners_of(_objects("boxes", targets, pairs))
    left, share = _bins_around(_edge_offsets(predictions.extra["initial"][where].float(), wanted, scale), bins)
    corners = predictions.extra["corners"][where].float().unflatten(-1, (4, BINS + 1)).flatten(0, 1)
    loss = F.cross_entropy(corners, left, reduction="none") * (1.0 - share)
    loss = loss + F.cross_entropy(corners, left + 1, reduction="none") * share
    found = predictions.boxes[where].detach().float().clamp(0.0, 1.0)
    weight = iou_of(corners_of(found), wanted).repeat_interleave(4)
    return (loss * weight).sum() / count


def distilled(
    predictions: Predictions, teacher: Predictions, targets: Sequence[Target], pairs: Sequence[Pairs]
) -> torch.Tensor:
    """Divergence of a layer's edge distributions from the last layer's, matched and other queries apart (equation 6)."""
    corners, goal = (
        p.extra["corners"].float().unflatten(-1, (4, BINS + 1)) / _TEMPERATURE for p in (predictions, teacher)
    )
    divergence = F.kl_div(corners.log_softmax(-1), goal.detach().softmax(-1), reduction="none").sum(-1)  # [N, Q, 4]
    weight = teacher.logits.detach().float().sigmoid().amax(-1)
    where = _queries(pairs)
    found = predictions.boxes[where].detach().float().clamp(0.0, 1.0)
    weight[where] = iou_of(corners_of(found), corners_of(_objects("boxes", targets, pairs)))
    matched = torch.zeros_like(weight, dtype=torch.bool)
    matched[where] = True
    loss = divergence * weight.unsqueeze(-1) * _TEMPERATURE**2
    total, norm = loss.new_zeros(()), loss.new_zeros(())
    for group in (matched, ~matched):
        if group.any():
            root = (4.0 * group.sum() / len(weight)).sqrt()
            total, norm = total + loss[group].mean() * root, norm + root
    return total / norm


def _edge_offsets(boxes: torch.Tensor, wanted: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """How far left, top, right, bottom must move to fit: cxcywh `[M, 4]` and xyxy `[M, 4]` -> `[M * 4]`, in units of side / scale."""
    scale = scale.abs()
    centre, step = boxes[:, :2], boxes[:, 2:] / scale + 1e-16
    return torch.cat([(centre - wanted[:, :2]) / step, (wanted[:, 2:] - centre) / step], -1).flatten() - 0.5 * scale


def _bins_around(offsets: torch.Tensor, bins: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the bin at or below each offset (at most B - 1), and the share of the one above."""
    left = (torch.searchsorted(bins, offsets.detach(), right=True) - 1).clamp(0, BINS - 1)
    share = (offsets - bins[left]) / (bins[left + 1] - bins[left])
    return left, share.clamp(0.0, 1.0).detach()


def _united(each: Sequence[Pairs], last: Pairs) -> Pairs:
    """One object for every query that some layer matched: the one it was matched with most often."""
    pairs = torch.cat([torch.stack(p, dim=1) for p in each])
    if not len(pairs):
        return last
    unique, counts = pairs.unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    chosen: dict[int, int] = {}
    for query, found in unique[order].tolist():
        chosen.setdefault(query, found)
    device = pairs.device
    return torch.tensor(list(chosen), device=device), torch.tensor(list(chosen.values()), device=device)


def _count(targets: Sequence[Target]) -> float:
    return max(1.0, float(sum(len(target.labels) for target in targets)))


def _queries(pairs: Sequence[Pairs]) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (image, query) of all matched queries."""
    rows = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(pairs)])
    return rows, torch.cat([query for query, _ in pairs])


def _objects(what: str, targets: Sequence[Target], pairs: Sequence[Pairs]) -> torch.Tensor:
    """`boxes` or `labels` of all matched objects, in the same order."""
    return torch.cat([getattr(target, what)[index] for target, (_, index) in zip(targets, pairs, strict=True)])
