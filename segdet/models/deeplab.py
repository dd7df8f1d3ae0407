"""DeepLabV3 (Chen et al. 2017, arXiv 1706.05587) in torchvision's layout, and DeepLabV3+ (2018, arXiv 1802.02611) over
segmentation-models-pytorch's decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import nn
from torch.nn import functional as F

from segdet.errors import InvalidOption
from segdet.models.backbones import Backbone, Tokens
from segdet.models.common import Outputs
from segdet.models.fcn import FCNHead, dense_outputs
from segdet.models.pyramid import SimplePyramid

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # the papers' for 8 and 16: twice the stride, half the rate


class DeepLabV3(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`; in training also the auxiliary head's."""

    def __init__(
        self, backbone: Backbone, outputs: int, atrous_rates: Sequence[int] | None = None, aux: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone
        rates = atrous_rates or RATES.get(backbone.strides[-1], RATES[16])
        self.classifier = nn.Sequential(
            ASPP(backbone.channels[-1], rates, 256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Conv2d(256, outputs, 1),
        )
        self.aux_classifier = FCNHead(backbone.channels[-2], outputs) if aux else None

    def forward(self, x: torch.Tensor) -> Outputs:
        """`[N, 3, H, W]` -> `[N, K, H, W]`, in training a tuple (main, auxiliary)."""
        return dense_outputs(self, x)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: `[N, C, h, w]` -> `[N, width, h, w]`."""

    def __init__(self, channels: int, rates: Sequence[int], width: int) -> None:
        super().__init__()
        branches: list[nn.Module] = [_branch(nn.Conv2d(channels, width, 1, bias=False), width)]
        branches += [_branch(nn.Conv2d(channels, width, 3, padding=r, dilation=r, bias=False), width) for r in rates]
        branches.append(_Pooling(channels, width))
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(
            nn.Conv2d(len(branches) * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Five views of the map, of growing reach, joined."""
        out: torch.Tensor = self.project(torch.cat([branch(x) for branch in self.convs], dim=1))
        return out


class _Pooling(nn.Sequential):
    """The branch that sees the whole image: pooled to one pixel and spread out again."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1, bias=False), LonelyBatchNorm2d(width), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).expand(-1, -1, *x.shape[-2:])


class LonelyBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics when there is a single value per channel (a batch of one, pooled)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class DeepLabV3Plus(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`.

    smp's decoder, with the paper's atrous rates for the stride (smp takes 12, 24, 36 at every stride).
    """

    def __init__(self, backbone: Backbone, outputs: int, atrous_rates: Sequence[int] | None = None) -> None:
        super().__init__()
        self.encoder = SimplePyramid(backbone) if isinstance(backbone, Tokens) else backbone
        strides, channels = self.encoder.strides, self.encoder.channels
        self.low = next(i for i, stride in enumerate(strides) if stride >= 4)
        # The coarsest usable map: the dilated one, or where nothing could be dilated the map of stride 16.
        self.high = max(i for i, stride in enumerate(strides) if stride <= 16)
        stride = strides[self.high]
        if strides[self.low] != 4 or stride not in (8, 16):
            reason = f"DeepLabV3+ needs maps of stride 4 and 16; this has {strides}"
            raise InvalidOption("backbone", backbone.name, reason)
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=[0, 0, channels[self.low], channels[self.high]],
            encoder_depth=4,
            out_channels=256,
            atrous_rates=tuple(atrous_rates or RATES[stride]),
            output_stride=16 if stride == 16 else 8,
            aspp_separable=True,
            aspp_dropout=0.5,
        )
        self.segmentation_head = SegmentationHead(256, outputs, kernel_size=1, upsampling=4)
        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)
        for module in self.decoder.aspp[0].convs[-1].modules():  # the pooled branch
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = LonelyBatchNorm2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` -> `[N, K, H, W]`."""
        height, width = x.shape[-2:]
        maps = self.encoder(self.encoder.pad(x))
        low, high = maps[self.low], maps[self.high]
        logits: torch.Tensor = self.segmentation_head(self.decoder([low, low, low, high]))
        return logits[..., :height, :width]


def _branch(conv: nn.Conv2d, width: int) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
