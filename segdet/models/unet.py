"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597): an encoder, and a decoder that climbs back to full resolution.

The decoder is segmentation-models-pytorch's, over any timm backbone whose maps shrink step by step. It ends at the
input's own resolution, which is what keeps cracks of one to three pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from segdet.errors import InputError
from segdet.models.backbones import Backbone
from segdet.models.common import pad_to_multiple

DECODER_CHANNELS = (256, 128, 64, 32, 16)


class UNet(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`, any H and W."""

    def __init__(self, backbone: Backbone, outputs: int, decoder_channels: Sequence[int] = DECODER_CHANNELS) -> None:
        super().__init__()
        _check(backbone)
        depth = len(backbone.strides)
        if len(decoder_channels) < depth:
            raise InputError(f"decoder_channels: {len(decoder_channels)} given, but {backbone.name} has {depth} levels")
        widths = list(decoder_channels)[-depth:] if depth < len(decoder_channels) else list(decoder_channels)
        self.stride = backbone.strides[-1]
        self.encoder = backbone
        self.decoder = UnetDecoder([3, *backbone.channels], widths, n_blocks=depth)
        self.segmentation_head = SegmentationHead(widths[-1], outputs, kernel_size=3)
        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` -> `[N, K, H, W]`."""
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.stride)
        logits = self.segmentation_head(self.decoder([x, *self.encoder(x)]))
        return logits[..., :height, :width]


def _check(backbone: Backbone) -> None:
    """U-Net needs maps that shrink step by step; plain vision transformers keep one size throughout."""
    if any(fine >= coarse for fine, coarse in zip(backbone.strides, backbone.strides[1:], strict=False)):
        raise InputError(
            f"--backbone {backbone.name}: its maps all have stride {backbone.strides[0]}, and U-Net needs a pyramid; "
            "use a convolutional or hierarchical backbone, for instance efficientnet_lite0, resnet18 or convnext_atto"
        )
