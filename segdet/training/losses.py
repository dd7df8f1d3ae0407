"""Losses for segmentation, by name. Shapes: logits `[N, K, H, W]`; targets uint8 `[N, H, W]`.

With one class, K = 1 and a target is coverage 0..255; with several, K = classes + 1 and a target is a class index with
255 = ignore. Most are segmentation-models-pytorch's; what is here adapts them to both kinds of target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import segmentation_models_pytorch.losses as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segdet.data.geometry.rasterize import IGNORE
from segdet.errors import InvalidOption, nearest, setting

AUX_WEIGHT = 0.5  # of auxiliary heads, as torchvision trains FCN and DeepLab

_Term = Callable[[Tensor, Tensor], Tensor]  # (logits, target as the term wants it) -> scalar


class SegmentationLoss(nn.Module):
    """The sum of some terms on the main output, plus half of it on every auxiliary output."""

    def __init__(self, terms: Sequence[_Term], classes: int) -> None:
        super().__init__()
        self.terms, self.one = list(terms), classes == 1

    def forward(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """logits `[N, K, H, W]` (or a tuple of them, the main one first), targets uint8 `[N, H, W]` -> scalar."""
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        if self.one:
            prepared = targets.unsqueeze(1).float() / 255.0  # [N, 1, H, W], 0..1
        else:
            prepared = targets.long()
            if bool((prepared == IGNORE).all()):  # nothing to learn from; a mean over no pixels would be NaN
                return main.float().sum() * 0.0
        total = self._sum(main.float(), prepared)
        for logits in auxiliary:
            total = total + AUX_WEIGHT * self._sum(logits.float(), prepared)
        return total

    def _sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([term(logits, targets) for term in self.terms]).sum()


_WEIGHTED = ("bce+dice", "ce", "cldice")  # those with cross entropy


def loss_named(name: str, classes: int, class_weights: Sequence[float] | None = None) -> SegmentationLoss:
    """Build a loss.

    Args:
        name: "bce+dice" (with several classes: cross entropy + Dice), "ce", "focal", "tversky", "lovasz" or "cldice".
        class_weights: one per class (with several classes, background first), for cross entropy; with one class a
            single number weighs foreground pixels.

    Raises:
        InvalidOption: unknown name, a wrong number of weights, or weights for a loss without cross entropy.
    """
    if name not in LOSSES:
        known = f"{nearest(name, LOSSES) or '.'} Known: {', '.join(LOSSES)}"
        raise InvalidOption("loss", name, f"no such loss{known}")
    if class_weights is not None and name not in _WEIGHTED:
        hint = f"leave them out, or use {setting('loss', _WEIGHTED[0])}"
        raise InvalidOption("class_weights", None, f"the loss {name} does not use them", hint)
    wanted = 1 if classes == 1 else classes + 1
    if class_weights is not None and len(class_weights) != wanted:
        reason = f"{len(class_weights)} weights; {wanted} are needed (background first)"
        raise InvalidOption("class_weights", None, reason)
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    return SegmentationLoss(LOSSES[name](classes == 1, weights), classes)


def _cross_entropy(one: bool, weights: Tensor | None) -> _Term:
    """Keeps probabilities calibrated, which a threshold chosen on validation relies on."""

    def term(logits: Tensor, targets: Tensor) -> Tensor:
        placed = None if weights is None else weights.to(logits.device)
        if one:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=placed)
        return F.cross_entropy(logits, targets, weight=placed, ignore_index=IGNORE)

    return term


def _dice(one: bool) -> _Term:
    """Dice (Milletari et al. 2016, arXiv 1606.04797), pooled over the batch: one empty image gives no wild gradient."""
    return smp.DiceLoss("binary", smooth=1.0) if one else smp.DiceLoss("multiclass", smooth=1.0, ignore_index=IGNORE)


def _focal(one: bool) -> _Term:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002), gamma 2; soft coverage is rounded."""
    focal = smp.FocalLoss("binary" if one else "multiclass", gamma=2.0, ignore_index=None if one else IGNORE)
    return lambda logits, targets: focal(logits, targets.round() if one else targets)


def _tversky(one: bool) -> _Term:
    """Focal Tversky (Abraham & Khan 2019, arXiv 1810.07842): misses weigh more than false alarms."""
    kind = "binary" if one else "multiclass"
    return smp.TverskyLoss(kind, smooth=1.0, ignore_index=None if one else IGNORE, alpha=0.3, beta=0.7, gamma=4 / 3)


def _lovasz(one: bool) -> _Term:
    """Lovász hinge / softmax (Berman et al. 2018, arXiv 1705.08790): a surrogate of IoU itself."""
    lovasz = smp.LovaszLoss("binary" if one else "multiclass", ignore_index=None if one else IGNORE)
    return lambda logits, targets: lovasz(logits, targets.round() if one else targets)


def soft_cldice(one: bool, iterations: int = 6) -> _Term:
    """Soft centre-line Dice (Shit et al. 2021, arXiv 2003.07311) of the foreground: rewards unbroken lines.

    It improves connectivity and ruins measured lengths and widths when it stands alone; here Dice stands beside it.
    """

    def term(logits: Tensor, targets: Tensor) -> Tensor:
        if one:
            predicted, true = logits.sigmoid(), targets
        else:
            known = (targets != IGNORE).unsqueeze(1)
            predicted = (1.0 - logits.softmax(dim=1)[:, :1]) * known
            true = ((targets > 0).unsqueeze(1) & known).to(logits.dtype)
        line, true_line = _soft_skeleton(predicted, iterations), _soft_skeleton(true, iterations)
        precision = ((line * true).sum() + 1.0) / (line.sum() + 1.0)
        recall = ((true_line * predicted).sum() + 1.0) / (true_line.sum() + 1.0)
        return 1.0 - 2.0 * precision * recall / (precision + recall)

    return term


def _soft_skeleton(mask: Tensor, iterations: int) -> Tensor:
    """Differentiable skeleton of `[N, 1, H, W]` in 0..1 by repeated erosion and opening (algorithm 1 of the paper)."""
    skeleton = F.relu(mask - _open(mask))
    for _ in range(iterations):
        mask = _erode(mask)
        rest = F.relu(mask - _open(mask))
        skeleton = skeleton + F.relu(rest - skeleton * rest)
    return skeleton


def _erode(mask: Tensor) -> Tensor:
    return -torch.maximum(F.max_pool2d(-mask, (3, 1), 1, (1, 0)), F.max_pool2d(-mask, (1, 3), 1, (0, 1)))


def _open(mask: Tensor) -> Tensor:
    return F.max_pool2d(_erode(mask), 3, 1, 1)


LOSSES: dict[str, Callable[[bool, Tensor | None], list[_Term]]] = {
    "bce+dice": lambda one, weights: [_cross_entropy(one, weights), _dice(one)],
    "ce": lambda one, weights: [_cross_entropy(one, weights)],
    "focal": lambda one, weights: [_focal(one)],
    "tversky": lambda one, weights: [_tversky(one)],
    "lovasz": lambda one, weights: [_lovasz(one)],
    "cldice": lambda one, weights: [_cross_entropy(one, weights), _dice(one), soft_cldice(one)],
}
