"""RT-DETR's hybrid encoder (Zhao et al. 2023, arXiv 2304.08069) with D-FINE's blocks: attention on the coarsest map, then
convolutions down and up the pyramid. Names are those of the published D-FINE files.

Shapes: N images, C the encoder's width; maps `[N, C, h, w]`, finest first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from segdet.models.detr import EncoderLayer


def projection(inner: int, outer: int) -> nn.Sequential:
    """1x1 convolution and batch norm, called `conv` and `norm`."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inner, outer, 1, bias=False), norm=nn.BatchNorm2d(outer)))


class ConvNorm(nn.Module):
    """Convolution and batch norm, with SiLU if wanted."""

    def __init__(
        self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outer)
        self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class RepBlock(nn.Module):
    """A 3x3 and a 1x1 branch (RepVGG, Ding et al. 2021, arXiv 2101.03697)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(width, width, 3), ConvNorm(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.conv1(x) + self.conv2(x))


class CSPLayer(nn.Module):
    """Two paths of one width, added; one of them deep."""

    def __init__(self, inner: int, outer: int, depth: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(inner, outer, 1, act=True), ConvNorm(inner, outer, 1, act=True)
        self.bottlenecks = nn.Sequential(*(RepBlock(outer) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)


class RepNCSPELAN4(nn.Module):
    """GELAN block (Wang et al. 2024, arXiv 2402.13616): a map, two deeper and deeper versions of its half, joined."""

    def __init__(self, inner: int, width: int, expansion: float, depth: int) -> None:
        super().__init__()
        deep = round(expansion * width // 2)
        self.cv1 = ConvNorm(inner, 2 * width, 1, act=True)
        self.cv2 = nn.Sequential(CSPLayer(width, deep, depth), ConvNorm(deep, deep, 3, act=True))
        self.cv3 = nn.Sequential(CSPLayer(deep, deep, depth), ConvNorm(deep, deep, 3, act=True))
        self.cv4 = ConvNorm(2 * width + 2 * deep, width, 1, act=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.cv1(x).chunk(2, dim=1)
        third = self.cv2(second)
        return self.cv4(torch.cat([first, second, third, self.cv3(third)], dim=1))


class SCDown(nn.Module):
    """Halves a map: 1x1 convolution, then a depthwise one of stride 2 (YOLOv10, arXiv 2405.14458)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = ConvNorm(width, width, 1), ConvNorm(width, width, 3, 2, groups=width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv2(self.cv1(x))


class HybridEncoder(nn.Module):
    """Maps of a backbone -> as many maps `[N, C, h, w]` that have seen each other."""

    def __init__(
        self, channels: Sequence[int], width: int, heads: int, feedforward: int, expansion: float, depth: float
    ) -> None:
        super().__init__()
        levels, blocks = len(channels), round(3 * depth)
        self.input_proj = nn.ModuleList(projection(inner, width) for inner in channels)
        attention = nn.Module()
        attention.layers = nn.ModuleList([EncoderLayer(width, heads, feedforward, 0.0, nn.GELU)])
        self.encoder = nn.ModuleList([attention])
        self.lateral_convs = nn.ModuleList(ConvNorm(width, width, 1) for _ in range(levels - 1))
        self.fpn_blocks = nn.ModuleList(RepNCSPELAN4(2 * width, width, expansion, blocks) for _ in range(levels - 1))
        self.downsample_convs = nn.ModuleList(nn.Sequential(SCDown(width)) for _ in range(levels - 1))
        self.pan_blocks = nn.ModuleList(RepNCSPELAN4(2 * width, width, expansion, blocks) for _ in range(levels - 1))

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """`[N, channels[i], h_i, w_i]` -> `[N, C, h_i, w_i]`, both finest first."""
        maps = [project(feature) for project, feature in zip(self.input_proj, features, strict=True)]
        maps[-1] = self._attend(maps[-1])
        down = [maps[-1]]  # coarsest first
        for lateral, block, finer in zip(self.lateral_convs, self.fpn_blocks, maps[-2::-1], strict=True):
            down[-1] = lateral(down[-1])
            down.append(block(torch.cat([F.interpolate(down[-1], size=finer.shape[-2:]), finer], dim=1)))
        up = [down.pop()]  # finest first
        for shrink, block in zip(self.downsample_convs, self.pan_blocks, strict=True):
            up.append(block(torch.cat([shrink(up[-1]), down.pop()], dim=1)))
        return up

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        count, width, height, columns = x.shape
        positions = grid_positions(height, columns, width, x.device)
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.encoder[0].layers:
            tokens = layer(tokens, positions)
        return tokens.transpose(1, 2).reshape(count, width, height, columns)


def grid_positions(height: int, width: int, channels: int, device: torch.device) -> torch.Tensor:
    """Sine and cosine of row and column: `[1, height * width, channels]`, in the order sin y, cos y, sin x, cos x.

    The papers' code swaps the axes before it flattens; what counts is that the published weights have learnt this order.
    """
    omega = 1.0 / 10000.0 ** (torch.arange(channels // 4, dtype=torch.float32, device=device) / (channels // 4))
    rows = torch.arange(height, dtype=torch.float32, device=device).unsqueeze(1) * omega
    columns = torch.arange(width, dtype=torch.float32, device=device).unsqueeze(1) * omega
    rows = rows.unsqueeze(1).expand(-1, width, -1)
    columns = columns.unsqueeze(0).expand(height, -1, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=-1).flatten(0, 1).unsqueeze(0)
