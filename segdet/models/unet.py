"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597): an encoder, and a decoder that climbs back to full resolution.

The decoder is segmentation-models-pytorch's, over any timm backbone. It ends at the input's own resolution, which is what
keeps cracks of one to three pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from segdet.errors import InputError
from segdet.models.backbones import Backbone, Tokens
from segdet.models.pyramid import SimplePyramid, WithDetail
from segdet.models.upconv import fast_decoder

DECODER_CHANNELS = (256, 128, 64, 32, 16)


class UNet(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`, any H and W.

    decoder_channels: widths from the coarsest level to full resolution.
    """

    def __init__(self, backbone: Backbone, outputs: int, decoder_channels: Sequence[int] = DECODER_CHANNELS) -> None:
        super().__init__()
        self.encoder = _with_all_levels(backbone)
        depth = len(self.encoder.strides)
        if len(decoder_channels) < depth:
            raise InputError(
                f"decoder_channels: {len(decoder_channels)} values, but {backbone.name} has {depth} levels"
            )
        widths = list(decoder_channels)[-depth:]
        self.decoder = fast_decoder(
            UnetDecoder([3, *self.encoder.channels], widths, n_blocks=depth), self.encoder.channels[-1]
        )
        self.segmentation_head = SegmentationHead(widths[-1], outputs, kernel_size=3)
        initialize_decoder(self.decoder)
        initialize_head(self.segmentation_head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` -> `[N, K, H, W]`."""
        height, width = x.shape[-2:]
        x = self.encoder.pad(x)
        features: torch.Tensor = self.decoder([x, *self.encoder(x)])
        head = self.segmentation_head
        exporting = torch.compiler.is_exporting() and head[0].out_channels == 1
        logits: torch.Tensor = to_one_channel(features, head[0]) if exporting else head(features)
        return logits[..., :height, :width]


def to_one_channel(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    """A convolution to one channel as one per channel and their sum: the same numbers, `[N, C, H, W]` -> `[N, 1, H, W]`.

    Runtimes compute 16 output channels at a time, of which 15 are thrown away otherwise: at 416x416 6.1 ms become 1.1 in ONNX
    Runtime and 2.7 become 0.1 in OpenVINO (docs/benchmarks.md).
    """
    each = F.conv2d(x, conv.weight.transpose(0, 1), padding=conv.padding, groups=conv.in_channels)
    return F.conv2d(each, torch.ones_like(conv.weight[:, :, :1, :1]), conv.bias)


def _with_all_levels(backbone: Backbone) -> Backbone | SimplePyramid | WithDetail:
    levels = SimplePyramid(backbone) if isinstance(backbone, Tokens) else backbone
    return WithDetail(levels) if levels.strides[0] > 2 else levels
