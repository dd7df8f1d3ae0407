"""DETR (Carion et al. 2020, arXiv 2005.12872), layer for layer and name for name as its published checkpoints.

Shapes: N images, Q queries, K classes, C the transformer's width, S = h * w places of the backbone's last map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from segdet.models.backbones import Backbone
from segdet.models.detection import MLP, HoldsNorms, Predictions

LONGEST = 1333 / 800  # the longer side may be so many times the size of the shorter one


class DETR(HoldsNorms):
    """One map, a transformer, and a fixed set of queries: no anchors, no suppression of doubles.

    Args:
        classes: K; the logits have K + 1, the last one is "no object".
        imgsz: images are resized to this shorter side (the longer one to at most 1333/800 of it), for plain and windowed
            transformers to a square of this side.
        num_queries: Q, the largest number of objects in an image.
        frozen_norm: batch norms of the backbone keep their statistics, as published; off for a random start.
    """

    def __init__(
        self, backbone: Backbone, classes: int, imgsz: int = 800, width: int = 256, heads: int = 8, layers: int = 6,
        feedforward: int = 2048, dropout: float = 0.1, num_queries: int = 100, frozen_norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.imgsz, self.classes = backbone, imgsz, classes
        # Networks that cut the image into patches or windows see squares: traced graphs need sizes they can divide.
        self.square = backbone.needs_padding
        self.input_proj = nn.Conv2d(backbone.channels[-1], width, 1)
        self.transformer = Transformer(width, heads, layers, feedforward, dropout)
        self.query_embed = nn.Embedding(num_queries, width)
        self.class_embed = nn.Linear(width, classes + 1)
        self.bbox_embed = MLP(width, width, 4, 3)
        # While evaluating, images of different sizes pass the backbone one by one: convolutions would otherwise see the
        # padding beside the smaller one, and its boxes would depend on its neighbours.
        self.apart = True
        if frozen_norm:
            self.hold_norms(backbone)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` resized to a shorter side of `imgsz` (to a square of it, see `square`), antialiased."""
        height, width = x.shape[-2:]
        size: tuple[int, ...] = (self.imgsz,) * 2
        if not self.square:
            size = tuple(_resized(length, height, width, self.imgsz) for length in (height, width))
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, targets: object = None) -> Predictions:
        """`[N, 3, H, W]` and a mask bool `[N, H, W]` (True = padding) -> logits `[N, Q, K + 1]`, boxes `[N, Q, 4]`.

        All decoder layers answer while training; `targets` are not looked at.
        """
        features = self._features(x, mask)
        if mask is not None:
            mask = F.interpolate(mask[None].float(), size=features.shape[-2:]).to(torch.bool)[0]
        positions = sine_positions(features, mask, self.input_proj.out_channels // 2)
        hidden = self.transformer(self.input_proj(features), mask, self.query_embed.weight, positions)
        if not self.training:
            hidden = hidden[-1:]
        logits, boxes = self.class_embed(hidden), self.bbox_embed(hidden).sigmoid()
        each = [Predictions(*pair) for pair in zip(logits, boxes, strict=True)]
        return Predictions(logits[-1], boxes[-1], aux=each[:-1])

    def ranked(self, predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes `[N, Q, 4]`, scores `[N, Q]` and labels `[N, Q]`: each query's best class, the highest score first."""
        scores, labels = predictions.logits.softmax(-1)[..., :-1].max(-1)
        scores, order = scores.sort(dim=1, descending=True)
        boxes = predictions.boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        return boxes, scores, labels.gather(1, order)

    def _features(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The backbone's last map `[N, D, h, w]`."""
        if mask is None or self.training or not self.apart or not bool(mask.any()):
            return self._last(x)
        rows, columns = (~mask).any(2).sum(1).tolist(), (~mask).any(1).sum(1).tolist()
        maps = [self._last(x[i : i + 1, :, : rows[i], : columns[i]]) for i in range(len(x))]
        stride = self.backbone.strides[-1]
        height, width = (-(-length // stride) for length in x.shape[-2:])
        return torch.cat([F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in maps])

    def _last(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(self.backbone.pad(x) if self.backbone.needs_padding else x)[-1]


def _resized(length: int, height: int, width: int, shorter: int) -> int:
    """`length` (of an image height x width) after the resize rule, in whole numbers so that it can be traced."""
    longest = int(shorter * LONGEST)
    short, long = torch.sym_min(height, width), torch.sym_max(height, width)
    by_short, by_long = (length * shorter + short // 2) // short, (length * longest + long // 2) // long
    size = torch.sym_max(1, torch.sym_min(by_short, by_long))
    if torch.compiler.is_exporting():  # read back as a value: the tracer need not reason about nested roundings
        size = torch.full((), size, dtype=torch.int64).item()
        torch._check(size >= 1)
        torch._check(size <= longest)
    return int(size) if isinstance(size, int) else size


def sine_positions(features: torch.Tensor, mask: torch.Tensor | None, half: int) -> torch.Tensor:
    """Sine embeddings `[N, 2 * half, h, w]` of the row, then the column, counted from 1 and scaled to the valid part.

    Args:
        features: `[N, D, h, w]`, for the size. mask: bool `[N, h, w]`, True = padding.
    """
    count, _, height, width = features.shape
    valid = torch.ones(count, height, width, device=features.device) if mask is None else (~mask).float()
    axes = []
    powers = torch.arange(half, dtype=torch.float32, device=features.device)
    scales = 10000.0 ** (2.0 * torch.div(powers, 2, rounding_mode="floor") / half)
    for axis in (1, 2):
        place = valid.cumsum(axis)
        end = place[:, -1:, :] if axis == 1 else place[:, :, -1:]
        angle = (place / (end + 1e-6) * 2.0 * math.pi).unsqueeze(-1) / scales
        axes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(3))
    return torch.cat(axes, dim=-1).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """Six encoder and six decoder layers, norms behind (post-norm); positions go to queries and keys, never to values."""

    def __init__(self, width: int, heads: int, layers: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout) for _ in range(layers))
        self.decoder.layers = nn.ModuleList(DecoderLayer(width, heads, feedforward, dropout) for _ in range(layers))
        self.decoder.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, queries: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """`[N, C, h, w]`, mask `[N, h, w]`, queries `[Q, C]` -> all decoder layers' states `[L, N, Q, C]`."""
        count = x.shape[0]
        memory, positions = (t.flatten(2).transpose(1, 2) for t in (x, positions))  # [N, S, C]
        ignored = None if mask is None else mask.flatten(1)
        for layer in self.encoder.layers:
            memory = layer(memory, positions, ignored)
        places = queries.unsqueeze(0).expand(count, -1, -1)
        state, states = torch.zeros_like(places), []
        for layer in self.decoder.layers:
            state = layer(state, places, memory, positions, ignored)
            states.append(self.decoder.norm(state))
        return torch.stack(states)


class EncoderLayer(nn.Module):
    """Self-attention over the map, then a feed-forward network."""

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout, self.activation = nn.Dropout(dropout), activation()

    def forward(self, x: torch.Tensor, positions: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
        """`[N, S, C]` -> `[N, S, C]`; `ignored` bool `[N, S]` are places not to look at."""
        placed = x + positions
        seen, _ = self.self_attn(placed, placed, x, key_padding_mask=ignored, need_weights=False)
        x = self.norm1(x + self.dropout(seen))
        thought = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return self.norm2(x + self.dropout(thought))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, attention to the image, then a feed-forward network."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, places: torch.Tensor, memory: torch.Tensor, positions: torch.Tensor,
        ignored: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Queries `[N, Q, C]` and their embeddings, memory `[N, S, C]` and its positions -> queries `[N, Q, C]`."""
        placed = x + places
        seen, _ = self.self_attn(placed, placed, x, need_weights=False)
        x = self.norm1(x + self.dropout(seen))
        seen, _ = self.multihead_attn(
            x + places, memory + positions, memory, key_padding_mask=ignored, need_weights=False
        )
        x = self.norm2(x + self.dropout(seen))
        thought = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return self.norm3(x + self.dropout(thought))
