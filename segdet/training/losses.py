"""Losses for segmentation. Shapes: logits `[N, K, H, W]`, targets uint8 `[N, H, W]`."""

from __future__ import annotations

from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from segdet.data.rasterize import IGNORE


class BCEDice(nn.Module):
    """Binary cross entropy + Dice (Milletari et al. 2016, arXiv 1606.04797) for one class, on soft coverage.

    Cross entropy keeps probabilities calibrated; Dice keeps a class of 2 % of the pixels from being ignored.
    Dice is pooled over the batch: a single empty image then gives no wild gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss("binary", smooth=1.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits `[N, 1, H, W]`, targets uint8 coverage 0..255 `[N, H, W]` -> scalar."""
        share = targets.unsqueeze(1).to(logits.dtype) / 255.0
        return F.binary_cross_entropy_with_logits(logits, share) + self.dice(logits, share)


class CrossEntropyDice(nn.Module):
    """Softmax cross entropy + Dice over the classes that are present; pixels of 255 are ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss("multiclass", smooth=1.0, ignore_index=IGNORE)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits `[N, K + 1, H, W]`, targets uint8 class indices `[N, H, W]` -> scalar."""
        index = targets.long()
        if bool((index == IGNORE).all()):
            return logits.sum() * 0.0
        return F.cross_entropy(logits, index, ignore_index=IGNORE) + self.dice(logits, index)


def loss_for(classes: int) -> nn.Module:
    """The default loss for a number of classes."""
    return BCEDice() if classes == 1 else CrossEntropyDice()
