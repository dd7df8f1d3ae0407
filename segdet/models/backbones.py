"""Backbones: any timm network as a list of feature maps.

Two kinds. A `Pyramid` (convolutional or hierarchical) gives maps that shrink step by step; its deep stages can be
dilated instead (`output_stride`), as torchvision and the published checkpoints do it (smp's own encoders do not).
`Tokens` (plain vision transformers) gives maps of one size from four depths, for any input size.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from segdet.errors import InvalidOption, nearest
from segdet.models.common import pad_to_multiple, pad_to_windows
from segdet.models.pretrained import comes_by_pip, imagenet_state

# The pip weights were converted from TensorFlow: batch norm eps 1e-3 and inputs in -1..1 (timm's defaults differ; with
# them the classifier is measurably less confident on real photographs: mean top probability .328 against .376).
_LITE_EPS, _LITE_MEAN, _LITE_STD = 1e-3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """What heads see of a backbone.

    Attributes:
        name: timm's name. model: the timm network.
        channels, strides: of each map that `forward` returns, finest (or shallowest) first.
        multiple: of the coarsest map. needs_padding: whether height and width of the input must be divisible by it.
        mean, std: the normalisation the weights expect, in units of 0..1.
        stage_of: depth of every parameter of `model` by name, 0 = stem, for freezing and layer-wise learning rates.
    """

    def __init__(self, name: str, model: nn.Module, channels: list[int], strides: list[int], stages: list[str]) -> None:
        super().__init__()
        self.name, self.model = name, model
        self.channels, self.strides = channels, strides
        self.stage_of: dict[str, int] = {}
        depth = 0  # parameters between two stages (transitions, norms) belong to the one before
        for parameter, _ in model.named_parameters():
            depth = next((i for i, stage in enumerate(stages, 1) if parameter.startswith(stage + ".")), depth)
            self.stage_of[parameter] = depth
        self.multiple = max(strides)
        self.needs_padding = False
        config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
        self.mean: tuple[float, ...] = tuple(config.get("mean", _IMAGENET_MEAN))
        self.std: tuple[float, ...] = tuple(config.get("std", _IMAGENET_STD))

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` extended to the right and below to a multiple of `multiple`."""
        return pad_to_multiple(x, self.multiple)


class Pyramid(Backbone):
    """`[N, 3, H, W]` -> maps `[N, channels[i], H / strides[i], W / strides[i]]` that shrink step by step."""

    def __init__(self, name: str, output_stride: int | None = None) -> None:
        model = _features(name, output_stride)
        keep = [i for i, stride in enumerate(model.feature_info.reduction()) if stride > 1]  # VGG has one at full size
        info = model.feature_info
        channels, strides = ([values[i] for i in keep] for values in (info.channels(), info.reduction()))
        # Feature networks may be flattened, which turns the first dot of a module's name into an underscore.
        forms = [form for entry in info.get_dicts() for form in (entry["module"], entry["module"].replace(".", "_", 1))]
        super().__init__(name, model, channels, strides, [s for s in dict.fromkeys(forms) if _has(model, s)])
        self.keep = keep
        windows = [int(m.window_size[0]) for m in model.modules() if isinstance(getattr(m, "window_size", None), tuple)]
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self.needs_padding = self.windowed = bool(windows)
        if windows:  # so that every stage is a whole number of windows
            self.multiple *= max(windows)
        if comes_by_pip(name):
            self.mean, self.std = _LITE_MEAN, _LITE_STD
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = _LITE_EPS

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = self.model(x)
        maps = [maps[i] for i in self.keep]
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps] if self.channels_last else list(maps)

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """As `Backbone.pad`; windows have a way of their own."""
        return pad_to_windows(x, self.multiple) if self.windowed else super().pad(x)


class Tokens(Backbone):
    """`[N, 3, H, W]` -> four maps `[N, D, H / patch, W / patch]`, from a quarter, half, three quarters and all of the depth.

    All maps have passed the final norm. Position embeddings are resampled bilinearly to the input's grid, as the published
    Segmenter does it.
    """

    def __init__(self, name: str, image_size: int) -> None:
        patch = int(timm.create_model(name, pretrained=False, num_classes=0).patch_embed.patch_size[0])
        size = max(patch, image_size // patch * patch)
        self.options: dict[str, Any] = {"num_classes": 0, "img_size": size, "dynamic_img_size": True}
        model = timm.create_model(name, pretrained=False, **self.options)
        if isinstance(model, VisionTransformer):
            model._pos_embed = MethodType(_bilinear_positions, model)
        depth = len(model.blocks)
        super().__init__(name, model, [model.embed_dim] * 4, [patch] * 4, [f"blocks.{i}" for i in range(depth)])
        self.needs_padding = True
        self.depths = [depth * (i + 1) // 4 - 1 for i in range(4)]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(self.model.forward_intermediates(x, indices=self.depths, norm=True, intermediates_only=True))

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """As `Backbone.pad`; the number of patches becomes a value of its own while exporting."""
        return pad_to_multiple(x, self.multiple, counted=True)


def create_backbone(
    name: str, weights: str = "imagenet", output_stride: int | None = None, image_size: int = 224
) -> Backbone:
    """Build a backbone.

    Args:
        name: a timm model name, for instance "efficientnet_lite0", "resnet18" or "vit_tiny_patch16_224".
        weights: "imagenet", or "none" for random weights.
        output_stride: 8, 16 or 32: dilate instead of shrinking further (convolutional backbones only).
        image_size: side of the training crops; decides the grid of a transformer's position embeddings.

    Raises:
        InputError: unknown name, no feature maps, or weights that cannot be had (never a silent random start).
    """
    if not timm.is_model(name):
        close = nearest(name, timm.list_models()) or "; see timm.list_models()"
        raise InvalidOption("backbone", name, f"not a timm model{close}")
    if _is_plain_transformer(name):
        backbone: Backbone = Tokens(name, image_size)
        options = backbone.options
    else:
        backbone, options = Pyramid(name, output_stride), {}
    if weights == "imagenet":
        missing, _ = backbone.model.load_state_dict(
            imagenet_state(name, **options), strict=False
        )  # the classifier is left over
        if missing:
            reason = f"the ImageNet weights lack {len(missing)} tensors ({missing[0]}, ...)"
            raise InvalidOption("backbone", name, reason)
    elif weights != "none":
        raise ValueError(weights)
    return backbone


def _has(model: nn.Module, module: str) -> bool:
    return any(parameter.startswith(module + ".") for parameter, _ in model.named_parameters())


def _is_plain_transformer(name: str) -> bool:
    """Plain transformers keep one stride throughout: the meta device makes looking cheap."""
    try:
        with torch.device("meta"):
            strides = timm.create_model(name, features_only=True, pretrained=False).feature_info.reduction()
    except Exception:  # whatever this network dislikes is reported by the real construction
        return False
    return len(strides) > 1 and len(set(strides)) == 1


def _features(name: str, output_stride: int | None) -> Any:
    options: dict[str, Any] = {} if output_stride in (None, 32) else {"output_stride": output_stride}
    if name.startswith(("swin_", "swinv2_")):
        options = {"strict_img_size": False, "always_partition": True}
    try:
        return timm.create_model(name, features_only=True, pretrained=False, **options)
    except (TypeError, AssertionError, RuntimeError, AttributeError, ValueError) as error:
        if "output_stride" in options:
            return _features(name, None)  # it cannot be dilated: heads then work on its own, coarser maps
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise InvalidOption("backbone", name, f"has no feature maps ({first})", "try resnet18") from error


def _bilinear_positions(self: VisionTransformer, x: torch.Tensor) -> torch.Tensor:
    """Patch tokens `[N, h, w, D]` -> all tokens with positions `[N, P + h * w, D]`, P = prefix tokens (class, registers)."""
    count, height, width, dim = x.shape
    prefix = 0 if self.no_embed_class else self.num_prefix_tokens
    grid = self.pos_embed[:, prefix:]
    rows, columns = self.patch_embed.grid_size
    grid = grid.reshape(1, rows, columns, dim).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    grid = grid.flatten(2).transpose(1, 2)
    tokens = x.reshape(count, height * width, dim) + grid
    fixed = [
        token for token in (self.cls_token, getattr(self, "dist_token", None), self.reg_token) if token is not None
    ]
    if fixed:
        start = torch.cat(fixed, dim=1)
        start = (start if prefix == 0 else start + self.pos_embed[:, :prefix]).expand(count, -1, -1)
        tokens = torch.cat([start, tokens], dim=1)
    out: torch.Tensor = self.pos_drop(tokens)
    return out
