"""What each architecture costs on each tested backbone, for `segdet models`."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segdet.errors import InputError
from segdet.models.deeplab import DeepLabV3Plus
from segdet.models.dfine import DFINE
from segdet.models.pretrained import source_of
from segdet.models.registry import ARCHS, arch_named, build_model
from segdet.models.unet import UNet

# Each is built, trained a step and exported with every architecture in tests/models/test_heads.py, or built there.
BACKBONES = (
    "efficientnet_lite0", "resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv3_large_100", "convnext_atto",
    "convnext_tiny", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "vit_small_patch16_224",
    "deit_small_patch16_224",
)  # fmt: skip


def pairs(arch: str | None, backbone: str | None) -> list[tuple[str, str]]:
    """The combinations to look at.

    Raises:
        InputError: unknown architecture.
    """
    archs = [arch] if arch else list(ARCHS)
    for name in archs:
        arch_named(name)
    return [(a, b) for a in archs for b in ((backbone,) if backbone else BACKBONES)]


def measure(arch: str, backbone: str, imgsz: int) -> dict[str, Any] | None:
    """Parameters, GFLOPs (2 per multiply-add) for one image, and the stride at which the head decides.

    Returns None for a combination that does not exist (Segmenter on a backbone without tokens).
    """
    try:
        with torch.device("meta"):
            model, encoder = build_model(arch, backbone, ["object"], "none", {}, imgsz)
    except InputError:
        return None
    model.eval().requires_grad_(False)  # the counter follows gradients where there are any
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, imgsz, imgsz, device="meta"))
    stride = 1 if isinstance(model, UNet) else 4 if isinstance(model, DeepLabV3Plus) else encoder.strides[-1]
    if isinstance(model, DFINE):
        stride = model.backbone.strides[-len(model.encoder.input_proj)]
    return {
        "arch": arch,
        "backbone": backbone,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": counter.get_total_flops() / 1e9,
        "stride": stride,
        "weights": source_of(backbone),
    }
