"""Maps of several strides from backbones that do not offer them."""

from __future__ import annotations

import torch
from timm.layers import LayerNorm2d
from torch import nn

from segdet.models.backbones import Backbone, Tokens
from segdet.models.common import pad_to_multiple


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (Li et al. 2022, arXiv 2203.16527): strides 4, 8, 16 and 32 from the last map.

    The scales are relative to a patch of 16; with another patch size the strides follow.
    """

    def __init__(self, tokens: Tokens, width: int = 256) -> None:
        super().__init__()
        self.tokens = tokens
        dim, patch = tokens.channels[-1], tokens.strides[-1]
        half, quarter = max(width // 2, dim // 2), max(width // 4, dim // 4)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(dim, half, 2, 2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)
        )
        self.up2 = nn.ConvTranspose2d(dim, half, 2, 2)
        self.down2 = nn.MaxPool2d(2)
        self.smooth = nn.ModuleList(_smooth(channels, width) for channels in (quarter, half, dim, dim))
        self.name, self.mean, self.std = tokens.name, tokens.mean, tokens.std
        self.channels, self.strides = [width] * 4, [patch // 4, patch // 2, patch, patch * 2]
        self.multiple = patch * 2

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """As `Backbone.pad`."""
        return pad_to_multiple(x, self.multiple, counted=True)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """`[N, 3, H, W]` -> `[N, width, H / s, W / s]` for s in `strides`."""
        last = self.tokens(x)[-1]
        scaled = (self.up4(last), self.up2(last), last, self.down2(last))
        return [smooth(scale) for smooth, scale in zip(self.smooth, scaled, strict=True)]


class WithDetail(nn.Module):
    """Adds a map of stride 2 in front, made from the image itself, to backbones that begin at stride 4.

    Cracks of one to three pixels do not survive a first map of stride 4; a small convolutional stem beside the backbone
    keeps them (as ViTMatte does for hair, Yao et al. 2023, arXiv 2305.15272).
    """

    def __init__(self, backbone: Backbone | SimplePyramid, width: int = 32) -> None:
        super().__init__()
        self.backbone = backbone
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.name, self.mean, self.std = backbone.name, backbone.mean, backbone.std
        self.channels, self.strides = [width, *backbone.channels], [2, *backbone.strides]

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """As `Backbone.pad`."""
        return self.backbone.pad(x)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """`[N, 3, H, W]` -> the backbone's maps behind one of stride 2."""
        return [self.stem(x), *self.backbone(x)]


def _smooth(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False), LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False), LayerNorm2d(width),
    )  # fmt: skip
