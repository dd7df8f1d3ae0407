"""Weights on disk: safetensors with the model's description inside, and starting points from other files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from segdet.errors import InputError, InvalidOption
from segdet.files import replacing
from segdet.metadata import KEY, Metadata, parse
from segdet.models import published
from segdet.models.backbones import Backbone
from segdet.models.registry import build_model


def save(path: Path, state: Mapping[str, torch.Tensor], metadata: Metadata) -> None:
    """Write a state dict and its description to `path`, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={KEY: metadata.to_json()})


def find(source: str | Path, which: str = "best") -> Path:
    """The weights file behind a run folder or a path.

    Raises:
        InputError: nothing there.
    """
    path = Path(source)
    if path.is_dir():
        file = path / "weights" / f"{which}.safetensors"
        if not file.is_file():
            raise InputError(
                f"{path}: no weights/{which}.safetensors; not a run folder, or its training saved nothing yet"
            )
        return file
    if not path.is_file():
        raise InputError(f"{path}: no such run folder or weights file; `segdet train` makes one under runs/")
    return path


def read_metadata(path: Path) -> Metadata:
    """The description inside a weights file.

    Raises:
        InputError: not a safetensors file, or not one of segdet's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return parse((file.metadata() or {}).get(KEY), path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a weights file of segdet ({str(error).splitlines()[0]})") from error


def load(path: Path, imgsz: int | None = None) -> tuple[nn.Module, Metadata]:
    """Rebuild the model of a weights file, in evaluation mode, on the CPU.

    Args:
        imgsz: side of images a detector works at, instead of the one it was trained with.

    Raises:
        InputError: as `read_metadata`, or tensors that do not fit.
    """
    metadata = read_metadata(path)
    if imgsz is not None:
        metadata = metadata.model_copy(update={"imgsz": imgsz})
    model, _ = build_model(metadata.arch, metadata.backbone, metadata.classes, "none", metadata.options, metadata.imgsz)
    try:
        model.load_state_dict(safetensors.torch.load_file(path))
    except RuntimeError as error:
        raise InputError(
            f"{path}: its tensors do not fit a {metadata.arch} on {metadata.backbone}; train it again"
        ) from error
    return model.eval(), metadata


def describe(path: Path, metadata: Metadata) -> None:
    """Replace what a weights file says about itself; its tensors stay as they are."""
    save(path, safetensors.torch.load_file(path), metadata)


def start_from(path: Path, model: nn.Module, backbone: Backbone) -> str:
    """Copy what fits from another file into `model`: a segdet model, or a backbone's state dict (timm, torchvision).

    Returns:
        One line that says how many tensors were taken and what was left.

    Raises:
        InputError: unreadable, or nothing in it fits.
    """
    theirs = _read_state(path)
    classes = getattr(model, "classes", 0)
    candidates: list[tuple[str, nn.Module, Mapping[str, torch.Tensor]]] = [
        ("model", model, _with_our_grid(published.for_coco(published.renamed(theirs, table), classes), backbone))
        for table in published.TABLES
    ]
    for prefix in ("", "model.", "backbone.", "encoder.model.", "encoder.", "module."):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in theirs.items() if name.startswith(prefix)}
        candidates.append(("backbone", backbone.model, _with_our_grid(stripped, backbone)))
    part, target, state = max(candidates, key=lambda c: len(_fitting(c[1], c[2])))
    fitting = _fitting(target, state)
    if not fitting:
        raise InputError(f"{path}: none of its {len(theirs)} tensors fit this model; is it for another backbone?")
    if part == "backbone" and len(fitting) < 0.9 * len(target.state_dict()):
        raise InputError(
            f"{path}: only {len(fitting)} of the backbone's {len(target.state_dict())} tensors are in it; "
            f"is it for another backbone than {backbone.name}?"
        )
    target.load_state_dict(fitting, strict=False)
    return f"{path}: {len(fitting)} of {len(target.state_dict())} tensors of the {part} loaded, {len(theirs) - len(fitting)} not used"


def _with_our_grid(state: Mapping[str, torch.Tensor], backbone: Backbone) -> Mapping[str, torch.Tensor]:
    """Position embeddings resampled to the backbone's grid, when only their number differs."""
    name = next((n for n in state if n == "pos_embed" or n.endswith(".model.pos_embed")), None)
    ours = backbone.model.state_dict().get("pos_embed")
    if ours is None or name is None:
        return state
    theirs = state[name]
    prefix = 0 if backbone.model.no_embed_class else backbone.model.num_prefix_tokens
    side = round((theirs.shape[1] - prefix) ** 0.5)
    if theirs.shape == ours.shape or theirs.shape[-1] != ours.shape[-1] or side * side != theirs.shape[1] - prefix:
        return state
    grid = theirs[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=backbone.model.patch_embed.grid_size, mode="bilinear")
    resampled = torch.cat([theirs[:, :prefix], grid.flatten(2).transpose(1, 2)], dim=1)
    return {**state, name: resampled}


def _fitting(target: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ours = target.state_dict()
    return {name: t for name, t in state.items() if name in ours and ours[name].shape == t.shape}


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InvalidOption("weights", path, "no such file", "use imagenet, none, or the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds on foreign files
        reason = f"cannot be read safely ({str(error).splitlines()[0][:120]})"
        raise InvalidOption("weights", path, reason) from error
    for key in ("ema", "module", "state_dict", "model"):  # D-FINE keeps the averaged weights in ema.module
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        hint = "save one with torch.save(model.state_dict(), path)"
        raise InvalidOption("weights", path, "has no state dict", hint)
    return content
