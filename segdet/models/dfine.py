"""D-FINE (Peng et al. 2024, arXiv 2410.13842): a detector of DETR's family that learns from a few hundred images.

Boxes are refined layer by layer as distributions over edge offsets. Names are those of the published files
(Peterande/D-FINE, Apache-2.0). Shapes: N images, Q queries, K classes, C width, B bins, L decoder layers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from segdet.errors import InvalidOption, nearest
from segdet.models.backbones import Backbone, Tokens
from segdet.models.deformable import DeformableAttention
from segdet.models.denoising import Denoising, disturbed
from segdet.models.detection import MLP, HoldsNorms, Predictions, Target, inverse_sigmoid, prior_bias
from segdet.models.hybrid_encoder import HybridEncoder, projection
from segdet.models.pyramid import SimplePyramid

BINS = 32
_LARGEST = 65504.0  # of float16
_ANCHOR = 0.05  # side of the finest map's anchors, a share of the image; it doubles with each level


@dataclass(frozen=True)
class Size:
    """The published sizes. points: sampled per head on each level, finest first; scale: of the box offsets."""

    encoder: int = 256
    width: int = 256
    feedforward: int = 1024
    layers: int = 6
    expansion: float = 1.0
    depth: float = 1.0
    points: tuple[int, ...] = (3, 6, 3)
    scale: float = 4.0


SIZES = {
    "n": Size(encoder=128, width=128, feedforward=512, layers=3, expansion=0.34, depth=0.5, points=(6, 6)),
    "s": Size(layers=3, expansion=0.5, depth=0.34),
    "m": Size(layers=4, depth=0.67),
    "l": Size(),
    "x": Size(encoder=384, feedforward=2048, scale=8.0),
}


class DFINE(HoldsNorms):
    """Backbone, hybrid encoder, and a decoder whose queries start at the highest-scoring places of the maps.

    Args:
        classes: K. size: n, s, m, l or x. imgsz: images are resized to a square of this side, as published.
        num_queries: Q, the largest number of objects (default: 300 as published, 100 for variant n, which is for small machines).
        denoising: how many disturbed queries to train with, 0 = none.
        frozen_norm: batch norms of the backbone keep their statistics (published for l and x).
    """

    def __init__(
        self, backbone: Backbone, classes: int, variant: str = "n", imgsz: int = 640, num_queries: int | None = None,
        denoising: int = 100, frozen_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if variant not in SIZES:
            raise InvalidOption("variant", variant, f"must be one of {', '.join(SIZES)}{nearest(variant, SIZES)}")
        chosen = SIZES[variant]
        if backbone.name.startswith("hgnetv2_"):  # the published networks take pixels in 0..1 as they are
            backbone.mean, backbone.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        self.imgsz, self.classes, self.square = imgsz, classes, True
        self.backbone = SimplePyramid(backbone) if isinstance(backbone, Tokens) else backbone
        levels = len(chosen.points)
        if len(self.backbone.channels) < levels:
            reason = f"has {len(self.backbone.channels)} feature maps, dfine needs {levels}"
            raise InvalidOption("backbone", backbone.name, reason, "try resnet18")
        self.encoder = HybridEncoder(
            self.backbone.channels[-levels:], chosen.encoder, 8, chosen.feedforward, chosen.expansion, chosen.depth
        )
        self.decoder = DFINETransformer(classes, chosen, num_queries or (100 if variant == "n" else 300), denoising)
        if frozen_norm:
            self.hold_norms(backbone)
        if imgsz % self.backbone.multiple:
            near = max(1, round(imgsz / self.backbone.multiple)) * self.backbone.multiple
            reason = f"dfine on {backbone.name} needs a multiple of {self.backbone.multiple}, for instance {near}"
            raise InvalidOption("imgsz", imgsz, reason)

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` resized to `[N, 3, imgsz, imgsz]`, antialiased."""
        return F.interpolate(x, size=(self.imgsz,) * 2, mode="bilinear", align_corners=False, antialias=True)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, targets: Sequence[Target] | None = None
    ) -> Predictions:
        """`[N, 3, S, S]` -> logits `[N, Q, K]` and boxes `[N, Q, 4]`; images fill their squares, so there is no mask.

        With `targets`, while training, denoising queries are added; `extra` then holds what `DFineLoss` needs.
        """
        assert mask is None, "squares have no padding"
        return self.decoder(self.encoder(self.backbone(x)[-len(self.encoder.input_proj) :]), targets)

    def ranked(self, predictions: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The Q best pairs of query and class: boxes `[N, Q, 4]`, scores `[N, Q]`, labels `[N, Q]`."""
        classes = predictions.logits.shape[-1]
        scores, index = predictions.logits.sigmoid().flatten(1).topk(predictions.logits.shape[1], dim=1)
        place = (index // classes).unsqueeze(-1).expand(-1, -1, 4)
        return predictions.boxes.gather(1, place), scores, index % classes


class DFINETransformer(nn.Module):
    """Chooses the queries and refines them."""

    def __init__(self, classes: int, size: Size, queries: int, denoising: int) -> None:
        super().__init__()
        width = size.width
        self.classes, self.queries, self.denoising = classes, queries, denoising
        self.input_proj = nn.ModuleList(
            nn.Identity() if size.encoder == width else projection(size.encoder, width) for _ in size.points
        )
        self.up = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.reg_scale = nn.Parameter(torch.tensor([size.scale]), requires_grad=False)
        if denoising:
            self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
            nn.init.normal_(self.denoising_class_embed.weight[:-1])
        self.query_pos_head = MLP(4, 2 * width, width, 2)
        self.enc_output = nn.Sequential(OrderedDict(proj=nn.Linear(width, width), norm=nn.LayerNorm(width)))
        self.enc_score_head, self.enc_bbox_head = nn.Linear(width, classes), MLP(width, width, 4, 3)
        self.dec_score_head = nn.ModuleList(nn.Linear(width, classes) for _ in range(size.layers))
        self.dec_bbox_head = nn.ModuleList(MLP(width, width, 4 * (BINS + 1), 3) for _ in range(size.layers))
        self.pre_bbox_head = MLP(width, width, 4, 3)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(
            DecoderLayer(width, 8, size.feedforward, size.points) for _ in range(size.layers)
        )
        self.decoder.lqe_layers = nn.ModuleList(LocationQuality() for _ in range(size.layers))
        self._reset()

    def _reset(self) -> None:
        for head in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(head.bias, prior_bias(0.01))
        for head in (self.enc_bbox_head, self.pre_bbox_head, *self.dec_bbox_head):
            nn.init.zeros_(head.layers[-1].weight)
            nn.init.zeros_(head.layers[-1].bias)
        nn.init.xavier_uniform_(self.enc_output.proj.weight)
        for layer in self.query_pos_head.layers:
            nn.init.xavier_uniform_(layer.weight)

    def expect(self, width: float, height: float) -> None:
        """Let boxes start at a usual size, in shares of the image, instead of the small published anchors.

        For a network that has learnt no boxes yet: growing from 5 % of the image to a crack across all of it took most of
        a short training.
        """
        wanted = torch.tensor([width, height]).clamp(0.02, 0.9)
        usual = sum(_logit(_ANCHOR * 2.0**level) for level in range(len(self.input_proj))) / len(self.input_proj)
        with torch.no_grad():
            self.enc_bbox_head.layers[-1].bias[2:] = wanted.logit() - usual

    def forward(self, maps: Sequence[torch.Tensor], targets: Sequence[Target] | None = None) -> Predictions:
        """maps `[N, C, h, w]`, finest first -> predictions; see `DFINE.forward`."""
        maps = [project(m) for project, m in zip(self.input_proj, maps, strict=True)]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        state, boxes, first = self._choose(tokens, anchors_of(maps))
        noise = None
        if targets is not None and self.training and self.denoising:
            noise = disturbed(targets, self.classes, state.shape[1], self.denoising_class_embed, self.denoising)
            if noise is not None:
                state, boxes = torch.cat([noise.embedded.to(state), state], 1), torch.cat([noise.boxes, boxes], 1)
        steps = self._refine(state, boxes.detach().sigmoid(), maps, None if noise is None else noise.blocked)
        return self._predictions(steps, first, noise)

    def _choose(
        self, tokens: torch.Tensor, anchors: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, Predictions]:
        """The Q highest-scoring places of tokens `[N, S, C]`: states `[N, Q, C]`, boxes as logits `[N, Q, 4]`, first predictions."""
        boxes, inside = anchors
        memory = self.enc_output(tokens * inside.to(tokens.dtype))
        logits = self.enc_score_head(memory)
        _, index = logits.amax(-1).topk(min(self.queries, logits.shape[1]), dim=1)  # small images have fewer places

        def pick(values: torch.Tensor) -> torch.Tensor:
            return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

        state = pick(memory)
        chosen = self.enc_bbox_head(state) + pick(boxes.expand(len(tokens), -1, -1))
        return state.detach(), chosen, Predictions(pick(logits), chosen.sigmoid())

    def _refine(
        self, state: torch.Tensor, reference: torch.Tensor, maps: Sequence[torch.Tensor], blocked: torch.Tensor | None
    ) -> list[dict[str, torch.Tensor]]:
        """Each layer's logits, boxes, edge distributions and the boxes they refer to; in evaluation only the last one's."""
        bins = bin_offsets(self.up, self.reg_scale)
        initial = corners = reference  # both set in the first layer
        detached: torch.Tensor | float = 0.0
        steps: list[dict[str, torch.Tensor]] = []
        for number, layer in enumerate(self.decoder.layers):
            places = self.query_pos_head(reference).clamp(-10.0, 10.0)
            state = layer(state, places, reference, maps, blocked)
            if number == 0:
                before = (self.pre_bbox_head(state) + inverse_sigmoid(reference)).sigmoid()
                initial, corners = before.detach(), torch.zeros_like(state[..., :1])
            corners = self.dec_bbox_head[number](state + detached) + corners
            boxes = moved_edges(initial, expected(corners, bins), self.reg_scale)
            if self.training or number == len(self.decoder.layers) - 1:
                logits = self.dec_score_head[number](state)
                if number == 0 and self.training:
                    steps.append({"logits": logits, "boxes": before})
                logits = self.decoder.lqe_layers[number](logits, corners)
                steps.append({"logits": logits, "boxes": boxes, "corners": corners, "initial": initial})
            reference, detached = boxes.detach(), state.detach()
        return steps

    def _predictions(
        self, steps: list[dict[str, torch.Tensor]], first: Predictions, noise: Denoising | None
    ) -> Predictions:
        """Real queries as predictions with their aux ones; those of the denoising queries in `extra["denoising"]`."""
        start = 0 if noise is None else noise.count
        real, restored = [], []
        for step in steps:
            further = {key: value for key, value in step.items() if key not in ("logits", "boxes")}
            real.append(_part(step, further, slice(start, None)))
            restored.append(_part(step, further, slice(0, start)))
        *earlier, last = real
        out = Predictions(last.logits, last.boxes, earlier, dict(last.extra))
        out.extra |= {"first": first, "up": self.up, "scale": self.reg_scale}
        if noise is not None:
            out.extra["denoising"] = (restored, noise)
        return out


def _part(step: dict[str, torch.Tensor], further: dict[str, torch.Tensor], which: slice) -> Predictions:
    return Predictions(
        step["logits"][:, which],
        step["boxes"][:, which],
        extra={key: value[:, which] for key, value in further.items()},
    )


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the maps behind a gate, a feed-forward network."""

    def __init__(self, width: int, heads: int, feedforward: int, points: Sequence[int]) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, heads, points)
        self.gateway = Gate(width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)

    def forward(
        self, x: torch.Tensor, places: torch.Tensor, boxes: torch.Tensor, maps: Sequence[torch.Tensor],
        blocked: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """Queries `[N, Q, C]`, their positions `[N, Q, C]` and boxes `[N, Q, 4]`, maps -> queries `[N, Q, C]`."""
        placed = x + places
        seen, _ = self.self_attn(placed, placed, x, attn_mask=blocked, need_weights=False)
        x = self.norm1(x + seen)
        x = self.gateway(x, self.cross_attn(x + places, boxes, maps))
        thought = self.linear2(F.relu(self.linear1(x)))
        return self.norm3((x + thought).clamp(-_LARGEST, _LARGEST))


class Gate(nn.Module):
    """Weighs what a query knew against what it has just seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.norm = nn.Linear(2 * width, 2 * width), nn.LayerNorm(width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, known: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        old, new = self.gate(torch.cat([known, seen], dim=-1)).sigmoid().chunk(2, dim=-1)
        return self.norm(old * known + new * seen)


class LocationQuality(nn.Module):
    """Adds to the logits how sharp the edge distributions are: a blurred box is a worse one."""

    def __init__(self, top: int = 4, hidden: int = 64) -> None:
        super().__init__()
        self.top = top
        self.reg_conf = MLP(4 * (top + 1), hidden, 1, 2)
        nn.init.zeros_(self.reg_conf.layers[-1].weight)
        nn.init.zeros_(self.reg_conf.layers[-1].bias)

    def forward(self, logits: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """logits `[N, Q, K]`, corners `[N, Q, 4 * (B + 1)]` -> logits `[N, Q, K]`."""
        sharpest = corners.unflatten(-1, (4, BINS + 1)).softmax(-1).topk(self.top, dim=-1).values
        return logits + self.reg_conf(torch.cat([sharpest, sharpest.mean(-1, keepdim=True)], dim=-1).flatten(2))


def anchors_of(maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Starting boxes of all places as logits `[1, S, 4]`, and bool `[1, S, 1]`: whether they lie inside the image."""
    each = []
    for level, m in enumerate(maps):
        height, width = m.shape[-2:]
        y = ((torch.arange(height, device=m.device) + 0.5) / height).reshape(-1, 1).expand(-1, width)
        x = ((torch.arange(width, device=m.device) + 0.5) / width).reshape(1, -1).expand(height, -1)
        side = torch.full_like(x, _ANCHOR * 2.0**level)
        each.append(torch.stack([x, y, side, side], dim=-1).flatten(0, 1))
    anchors = torch.cat(each).unsqueeze(0)
    inside = ((anchors > 0.01) & (anchors < 0.99)).all(-1, keepdim=True)
    logits = torch.log(anchors / (1.0 - anchors))
    return torch.where(inside, logits, torch.full_like(logits, torch.finfo(torch.float32).max)), inside


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


def bin_offsets(up: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The B + 1 offsets `[33]` that an edge distribution chooses among: fine near 0, growing outwards (equation 3)."""
    bound = up.abs() * scale.abs()
    grown = (bound + 1.0) ** (2.0 / (BINS - 2) * torch.arange(1, BINS // 2, device=up.device)) - 1.0
    return torch.cat([-2.0 * bound, -grown.flip(0), torch.zeros_like(bound), grown, 2.0 * bound])


def expected(corners: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Mean offset of each edge: `[N, Q, 4 * (B + 1)]` -> `[N, Q, 4]`."""
    return (corners.unflatten(-1, (4, BINS + 1)).softmax(-1) * bins).sum(-1)


def moved_edges(boxes: torch.Tensor, offsets: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """cxcywh `[..., 4]` whose left, top, right and bottom edges move outwards by `offsets` (times side / scale)."""
    scale = scale.abs()
    centre, step = boxes[..., :2], boxes[..., 2:] / scale
    low = centre - (0.5 * scale + offsets[..., :2]) * step
    high = centre + (0.5 * scale + offsets[..., 2:]) * step
    return torch.cat([(low + high) / 2, high - low], dim=-1)
