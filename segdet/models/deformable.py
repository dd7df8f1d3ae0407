"""Multi-scale deformable attention (Zhu et al. 2020, arXiv 2010.04159) that exports with any image size.

Published code joins all levels to one sequence and splits it again by Python sizes, which bakes the sizes of the example into
an exported graph; here every level is sampled from its own map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

REACH = 0.5  # offsets are shares of half the reference box (RT-DETRv2, arXiv 2407.17140)


class DeformableAttention(nn.Module):
    """Each query looks at a few learnt points around its box, on every level.

    Args:
        points: how many per head on each level.
    """

    def __init__(self, width: int, heads: int, points: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.points = heads, list(points)
        total = heads * sum(points)
        self.sampling_offsets, self.attention_weights = nn.Linear(width, total * 2), nn.Linear(width, total)
        scale = torch.tensor([1.0 / n for n in points for _ in range(n)])
        self.register_buffer("num_points_scale", scale)
        self._reset()

    def _reset(self) -> None:
        """Heads look in different directions at first, further out with each point; weights are even."""
        turns = torch.arange(self.heads, dtype=torch.float32) * (2.0 * math.pi / self.heads)
        directions = torch.stack([turns.cos(), turns.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1.0, n + 1) for n in self.points]).reshape(1, -1, 1)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((directions.unsqueeze(1) * steps).flatten())

    def forward(self, queries: torch.Tensor, boxes: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """queries `[N, Q, C]`, boxes `[N, Q, 4]` (cxcywh in 0..1), maps `[N, C, h, w]` of each level -> `[N, Q, C]`."""
        count, length, width = queries.shape
        offsets = self.sampling_offsets(queries).reshape(count, length, self.heads, -1, 2)
        weights = self.attention_weights(queries).reshape(count, length, self.heads, -1).softmax(-1)
        around = boxes[:, :, None, None]
        places = around[..., :2] + offsets * self.num_points_scale[:, None] * around[..., 2:] * REACH
        grid = (2.0 * places - 1.0).transpose(1, 2).flatten(0, 1)  # [N * heads, Q, points, 2]
        sampled = [
            F.grid_sample(
                values.reshape(count * self.heads, width // self.heads, *values.shape[-2:]),
                part.to(values.dtype), mode="bilinear", padding_mode="zeros", align_corners=False,
            )
            for values, part in zip(maps, grid.split(self.points, dim=2), strict=True)
        ]  # fmt: skip
        share = weights.transpose(1, 2).reshape(count * self.heads, 1, length, -1)
        mixed = (torch.cat(sampled, dim=-1) * share).sum(-1)  # [N * heads, C / heads, Q]
        return mixed.reshape(count, width, length).transpose(1, 2)
