"""Segmenter (Strudel et al. 2021, arXiv 2105.05633): a plain vision transformer, and a decoder that lets class embeddings
attend to the patches.

The parts are named like the published checkpoints. B images, T = h * w patches, D width, K outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from timm.layers import trunc_normal_
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

from segdet.errors import InvalidOption
from segdet.models.backbones import Backbone, Tokens
from segdet.models.common import pad_to_multiple, resized

_EPS = 1e-5  # the published code uses nn.LayerNorm's default; timm's transformers 1e-6


class Segmenter(nn.Module):
    """`[N, 3, H, W]` normalised images -> logits `[N, K, H, W]`.

    decoder: "mask" (the mask transformer) or "linear" (one linear layer on the patches).
    """

    def __init__(self, backbone: Backbone, outputs: int, decoder: Literal["mask", "linear"] = "mask") -> None:
        super().__init__()
        if not isinstance(backbone, Tokens):
            raise InvalidOption(
                "backbone",
                backbone.name,
                "Segmenter reads the tokens of a plain vision transformer",
                "use for instance vit_tiny_patch16_224 or deit_small_patch16_224, or another architecture (unet, "
                "deeplabv3plus) on this backbone",
            )
        if decoder not in ("mask", "linear"):
            raise InvalidOption("decoder", decoder, "must be mask or linear")
        self.encoder = backbone
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = _EPS
        dim = backbone.channels[-1]
        self.decoder = MaskTransformer(dim, outputs) if decoder == "mask" else LinearDecoder(dim, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` -> `[N, K, H, W]`; the image is padded with zeros after normalisation, as published."""
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, self.encoder.strides[-1], mode="constant", counted=True)
        masks = self.decoder(self.encoder(padded)[-1])
        return resized(masks, padded.shape[-2:])[..., :height, :width]


class LinearDecoder(nn.Module):
    """One linear layer on each patch: `[B, D, h, w]` -> `[B, K, h, w]`."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, outputs)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, D, h, w]` -> `[B, K, h, w]`."""
        return self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MaskTransformer(nn.Module):
    """Class embeddings and patches attend to each other; a class's mask is its scalar product with every patch."""

    def __init__(self, dim: int, outputs: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.outputs = outputs
        self.proj_dec = nn.Linear(dim, dim)
        self.cls_emb = nn.Parameter(torch.zeros(1, outputs, dim))
        heads = max(1, dim // 64)
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, proj_drop=dropout, attn_drop=dropout) for _ in range(layers)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.proj_classes = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.mask_norm = nn.LayerNorm(outputs) if outputs > 1 else SingleMaskNorm()
        self.apply(_initialise)
        trunc_normal_(self.cls_emb, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, D, h, w]` -> `[B, K, h, w]`."""
        count, _, rows, columns = x.shape
        tokens = self.proj_dec(x.flatten(2).transpose(1, 2))  # [B, T, D]
        tokens = torch.cat([tokens, self.cls_emb.expand(count, -1, -1)], dim=1)  # [B, T + K, D]
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.decoder_norm(tokens)
        patches = tokens[:, : -self.outputs] @ self.proj_patch
        classes = tokens[:, -self.outputs :] @ self.proj_classes
        patches, classes = F.normalize(patches, dim=-1), F.normalize(classes, dim=-1)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # [B, T, K]
        return masks.transpose(1, 2).reshape(count, self.outputs, rows, columns)


class SingleMaskNorm(nn.Module):
    """Scale and shift for a single class, where a norm over the class axis would turn every value into zero.

    A cosine lies in -1..1; the scale starts at 10, so that probabilities can leave the middle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([10.0]))
        self.bias = nn.Parameter(torch.tensor([-2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., 1]` -> `[..., 1]`."""
        return x * self.weight + self.bias


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
