"""A 3x3 convolution of an enlarged map, computed on the map before it is enlarged.

Each pixel of a map enlarged twofold (nearest) is there four times, so the nine taps of a 3x3 kernel meet only four different values:
which ones depends on whether row and column are even or odd. Four 2x2 kernels on the small map, made of sums of the 3x3 one's
taps, therefore give the same numbers with 4/9 of the multiplications, and the enlarged map is never written. In a U-Net decoder,
where this is most of the work, a training step takes about half of the time (docs/benchmarks.md). The idea that a convolution after
enlarging is a smaller one before it, then a rearrangement, is Shi et al. 2016, arXiv 1609.07009.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder, UnetDecoderBlock
from torch import nn

_Kernels = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]


def fast_decoder(decoder: UnetDecoder, deepest: int) -> UnetDecoder:
    """Let the blocks of a decoder compute this way. Only their class changes: parameters and their names stay.

    Args:
        deepest: channels of the encoder's last level.
    """
    enlarged = deepest
    for block in decoder.blocks:
        usual = type(block) is UnetDecoderBlock and block.interpolation_mode == "nearest"
        if usual and isinstance(block.conv1[1], nn.BatchNorm2d):
            block.__class__ = _FastBlock
            block.enlarged = enlarged
        enlarged = block.conv2[0].out_channels
    return decoder


def enlarged_conv(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`[N, C, H, W]`, `[O, C, 3, 3]` -> `[N, O, 2H, 2W]`: `conv2d(interpolate(x, scale_factor=2), weight, bias, padding=1)`."""
    return _rearranged(x, *_small(weight, bias))


def _small(weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The four kernels `[4 * O, C, 2, 2]`, (even, odd) rows x (even, odd) columns, and their bias."""
    kernels = torch.cat([two for one in _halves(weight, 2) for two in _halves(one, 3)])
    return kernels, None if bias is None else bias.repeat(4)


def _rearranged(
    x: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor | None, activation: nn.Module | None = None
) -> torch.Tensor:
    height, width = x.shape[-2:]
    found = F.conv2d(x, kernels, bias, padding=1)
    if activation is not None:
        found = activation(found)
    if not torch.compiler.is_exporting():
        out: torch.Tensor = _Interleaved.apply(found)
        return out
    outputs = kernels.shape[0] // 4
    parts = [
        found[:, k * outputs : (k + 1) * outputs, top : top + height, left : left + width]
        for k, (top, left) in enumerate(_CORNERS)
    ]
    return F.pixel_shuffle(torch.stack(parts, dim=2).flatten(1, 2), 2)  # one operator in ONNX


_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # of the rows and columns that even and odd places need


class _Interleaved(torch.autograd.Function):
    """`[N, 4 * O, H + 1, W + 1]` -> `[N, O, 2H, 2W]`. Channels last, as training works: whole pixels are moved, once each way."""

    @staticmethod
    def forward(ctx: Any, found: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = found.shape
        height, width, outputs = height - 1, width - 1, channels // 4
        pixels = found.permute(0, 2, 3, 1)
        out = pixels.new_empty((count, height, 2, width, 2, outputs))
        for k, (top, left) in enumerate(_CORNERS):
            out[:, :, top, :, left] = pixels[
                :, top : top + height, left : left + width, k * outputs : (k + 1) * outputs
            ]
        return out.view(count, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        count, outputs, height, width = gradients[0].shape
        height, width = height // 2, width // 2
        pixels = gradients[0].permute(0, 2, 3, 1).reshape(count, height, 2, width, 2, outputs)
        out = pixels.new_empty((count, height + 1, width + 1, 4 * outputs))
        for k, (top, left) in enumerate(_CORNERS):
            part = out[..., k * outputs : (k + 1) * outputs]
            part[:, top : top + height, left : left + width] = pixels[:, :, top, :, left]
            part[:, 0 if top else height] = 0
            part[:, :, 0 if left else width] = 0
        return out.permute(0, 3, 1, 2)


def _halves(weight: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Along an axis of length 3: the two taps that even places need, and those that odd ones need."""
    first, middle, last = weight.unbind(axis)
    return torch.stack([first, middle + last], axis), torch.stack([first + middle, last], axis)


@contextmanager
def ready_kernels(model: nn.Module) -> Iterator[None]:
    """While an evaluated model is exported: kernels as constants, since exporters leave large sums of constants in the graph."""
    blocks = [module for module in model.modules() if isinstance(module, _FastBlock)]
    try:
        for block in blocks:
            with torch.no_grad():
                block.ready = block.kernels()
        yield
    finally:
        for block in blocks:
            block.ready = None


class _FastBlock(UnetDecoderBlock):  # type: ignore[misc]
    exact = True  # whether the map was enlarged twofold when it was last looked at
    enlarged: int  # channels of the map that is enlarged; those of the skip connection come behind them
    ready: _Kernels | None = None

    def forward(
        self,
        feature_map: torch.Tensor,
        target_height: int,
        target_width: int,
        skip_connection: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As smp's block: `[N, C, H, W]` and `[N, S, 2H, 2W]` -> `[N, O, 2H, 2W]`."""
        if not torch.compiler.is_exporting():  # there sizes are symbols, which cannot be compared
            height, width = feature_map.shape[-2:]
            self.exact = (target_height, target_width) == (2 * height, 2 * width)
        if not self.exact:
            out: torch.Tensor = super().forward(feature_map, target_height, target_width, skip_connection)
            return out
        kernels, bias, beside = self.ready or self.kernels()
        if skip_connection is None and not self.training:  # runtimes fuse it into the convolution
            return self.conv2(_rearranged(feature_map, kernels, bias, self.conv1[2]))
        x = _rearranged(feature_map, kernels, bias)
        if skip_connection is not None:
            x = x + F.conv2d(skip_connection, beside, padding=1)
        _, norm, activation = self.conv1
        return self.conv2(activation(norm(x) if self.training else x))

    def kernels(self) -> _Kernels:
        """For the enlarged map, with its bias, and for the skip connection; in evaluation the norm is in them."""
        conv, norm, _ = self.conv1
        weight, bias = conv.weight, conv.bias
        if not self.training:
            # Between two convolutions that are added, no runtime would fold it into them.
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = weight * scale[:, None, None, None]
            bias = norm.bias - norm.running_mean * scale
        return *_small(weight[:, : self.enlarged], bias), weight[:, self.enlarged :]
