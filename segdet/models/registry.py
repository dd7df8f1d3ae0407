"""The architectures by name: one dict, no decorators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from segdet.errors import InputError, nearest
from segdet.models.backbones import Backbone, create_backbone
from segdet.models.unet import UNet


@dataclass(frozen=True)
class Arch:
    """build(backbone, outputs, **options) -> module that maps `[N, 3, H, W]` to its task's outputs."""

    task: str
    build: Callable[..., nn.Module]
    backbone: str  # the default


ARCHS: dict[str, Arch] = {
    "unet": Arch("segmentation", UNet, "efficientnet_lite0"),
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
    """Channels of the logits: 1 for a single class (sigmoid), else background + classes (softmax)."""
    if task != "segmentation":
        raise ValueError(task)
    return 1 if len(classes) == 1 else len(classes) + 1


def build_model(
    arch: str,
    backbone: str | None,
    classes: Sequence[str],
    weights: str = "none",
    options: dict[str, Any] | None = None,
) -> tuple[nn.Module, Backbone]:
    """The model and its backbone (which knows the normalisation).

    Args:
        weights: of the backbone, "imagenet" or "none".
        options: further arguments of the architecture, for instance `decoder_channels`.
    """
    entry = arch_named(arch)
    encoder = create_backbone(backbone or entry.backbone, weights)
    return entry.build(encoder, outputs_for(entry.task, classes), **(options or {})), encoder
