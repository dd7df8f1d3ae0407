"""FCN (Long et al. 2015, arXiv 1411.4038) in torchvision's layout: a dilated backbone and two small heads."""

from __future__ import annotations

import torch
from torch import nn

from segdet.models.backbones import Backbone
from segdet.models.common import Outputs, resized


class FCNHead(nn.Sequential):
    """`[N, C, h, w]` -> logits `[N, K, h, w]`."""

    def __init__(self, channels: int, outputs: int) -> None:
        middle = max(1, channels // 4)
        super().__init__(
            nn.Conv2d(channels, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(middle, outputs, 1),
        )


class FCN(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`; in training also the auxiliary head's.

    The names of the parts are torchvision's, so `fcn_resnet50` weights load with one prefix changed.
    """

    def __init__(self, backbone: Backbone, outputs: int, aux: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = FCNHead(backbone.channels[-1], outputs)
        self.aux_classifier = FCNHead(backbone.channels[-2], outputs) if aux else None

    def forward(self, x: torch.Tensor) -> Outputs:
        """`[N, 3, H, W]` -> `[N, K, H, W]`, in training a tuple (main, auxiliary)."""
        return dense_outputs(self, x)


def dense_outputs(model: nn.Module, x: torch.Tensor) -> Outputs:
    """What FCN and DeepLabV3 share: heads on the last two maps, answers resized to the input's size."""
    size = x.shape[-2:]
    backbone = model.backbone
    padded = backbone.pad(x) if backbone.needs_padding else x
    maps = backbone(padded)
    area = padded.shape[-2:]
    main = resized(model.classifier(maps[-1]), area)[..., : size[0], : size[1]]
    if model.training and model.aux_classifier is not None:
        return main, resized(model.aux_classifier(maps[-2]), area)[..., : size[0], : size[1]]
    return main
