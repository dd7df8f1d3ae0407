"""The architectures by name: one dict, no decorators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn

from segdet.errors import InputError, InvalidOption, nearest, setting
from segdet.models.backbones import Backbone, Tokens, create_backbone
from segdet.models.common import Upscaled
from segdet.models.deeplab import DeepLabV3, DeepLabV3Plus
from segdet.models.detr import DETR
from segdet.models.dfine import DFINE
from segdet.models.fcn import FCN
from segdet.models.segmenter import Segmenter
from segdet.models.unet import UNet

MOST_TOKENS = (
    4096  # that a plain transformer looks at: 1024x1024 pixels in patches of 16, 200 MB of attention for three heads
)


@dataclass(frozen=True)
class Arch:
    """build(backbone, outputs, **options) -> module that maps `[N, 3, H, W]` to its task's outputs.

    backbone: the default. output_stride: what the backbone is dilated to, None = not at all.
    """

    task: str
    build: Callable[..., nn.Module]
    backbone: str
    output_stride: int | None = None


ARCHS: dict[str, Arch] = {
    "fcn": Arch("segmentation", FCN, "resnet50", 8),
    "unet": Arch("segmentation", UNet, "efficientnet_lite0"),
    "deeplabv3": Arch("segmentation", DeepLabV3, "resnet50", 8),
    "deeplabv3plus": Arch("segmentation", DeepLabV3Plus, "resnet50", 16),
    "segmenter": Arch("segmentation", Segmenter, "vit_tiny_patch16_224"),
    "detr": Arch("detection", DETR, "resnet50"),
    "dfine": Arch("detection", DFINE, "efficientnet_lite0"),
}


def arch_named(name: str) -> Arch:
    """Look an architecture up.

    Raises:
        InputError: unknown; the nearest known name is suggested.
    """
    if name not in ARCHS:
        raise InputError(f"{name}: no such architecture{nearest(name, ARCHS) or '.'} Known: {', '.join(ARCHS)}")
    return ARCHS[name]


def outputs_for(task: str, classes: Sequence[str]) -> int:
    """Channels of the logits. Segmentation: 1 for a single class (sigmoid), else background + classes (softmax)."""
    if task == "detection":
        return len(classes)
    return 1 if len(classes) == 1 else len(classes) + 1


def build_model(
    arch: str,
    backbone: str | None,
    classes: Sequence[str],
    weights: str = "none",
    options: dict[str, Any] | None = None,
    imgsz: int = 224,
) -> tuple[nn.Module, Backbone]:
    """The model and its backbone (which knows the normalisation).

    A segmentation model's `most_pixels` says how many pixels of an image it may see (`common.bounded`), None = any number.

    Args:
        weights: of the backbone, "imagenet" or "none".
        options: further arguments of the architecture (`decoder_channels`, `decoder`, `atrous_rates`, `aux`), and
            `output_stride` (8, 16, 32) and `upscale` (enlarge the image first) for all.
        imgsz: side of the training crops; decides the grid of a transformer's position embeddings.

    Raises:
        InputError: an unknown name or option, or a combination that cannot work.
    """
    entry = arch_named(arch)
    given = dict(options or {})
    stride = given.pop("output_stride", entry.output_stride)
    upscale = given.pop("upscale", 1)
    known = [name for name in list(signature(entry.build).parameters)[2:] if name != "imgsz"]
    for option in given:
        if option not in known:
            raise InputError(f"{option}: no option of {arch}{nearest(option, known)}")
    if given.get("queries") is not None and given["queries"] < 1:
        reason = "must be at least 1: the largest number of objects in an image"
        raise InvalidOption("queries", given["queries"], reason)
    if stride not in (None, 8, 16, 32):
        raise InvalidOption("output_stride", stride, "must be 8, 16 or 32")
    if not 1 <= upscale <= 4:
        raise InvalidOption("upscale", upscale, "must be a factor from 1 to 4")
    encoder = create_backbone(backbone or entry.backbone, weights, stride, imgsz)
    if "output_stride" in (options or {}) and stride is not None and encoder.strides[-1] != stride:
        reason = f"{encoder.name} keeps a stride of {encoder.strides[-1]}"
        raise InvalidOption("output_stride", stride, reason, "leave it out")
    if entry.task == "detection":
        if upscale != 1:
            hint = f"use a larger {setting('imgsz')}"
            raise InvalidOption("upscale", upscale, f"{arch} resizes images itself", hint)
        given["imgsz"] = imgsz
    model = entry.build(encoder, outputs_for(entry.task, classes), **given)
    if upscale != 1:
        model = Upscaled(model, upscale)
    model.most_pixels = (
        int(MOST_TOKENS * encoder.strides[-1] ** 2 / upscale**2) if isinstance(encoder, Tokens) else None
    )
    return model, encoder
