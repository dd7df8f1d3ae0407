"""Every setting of a training run, with its default and what it means; unknown keys are refused with a suggestion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segdet.errors import InputError, nearest

# Where an architecture's published recipe differs from the defaults below.
RECIPES: dict[str, dict[str, Any]] = {
    "detr": {
        "epochs": 300, "batch": 4, "lr": 1e-4, "backbone_lr": 0.1, "weight_decay": 1e-4, "clip": 0.1,
        "schedule": "step", "warmup": 0.0, "ema": 0.0, "loss": "set",
    },
    "dfine": {
        "epochs": 72, "batch": 4, "lr": 1e-3, "backbone_lr": 0.5, "weight_decay": 1e-4, "clip": 0.1, "loss": "set",
    },
}  # fmt: skip

# Sides of images when none is given: what the networks were published with, and what two cores can train.
SIDES = {"dfine": 640, "detr": 800}
SIDE, SIDE_ON_CPU = 320, 256  # of segmentation anywhere, of detection on a CPU

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float | None:
    """Seconds in a duration such as "90s", "20m" or "1.5h"; None when it is none, or not longer than zero."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip().lower())
    return (float(match[1]) * _UNITS[match[2]] or None) if match else None


# What training with a set loss does not know, and what it does instead.
_NOT_OF_SETS = {
    "calm": "sees photographs as they are at the end of its training",
    "enlarge": "chooses the scale of each batch",
    "class_weights": "is trained with its own set loss",
}


def _as_typed(value: Any) -> str:
    return " ".join(f"{k}={v:g}" for k, v in value.items()) if isinstance(value, dict) else str(value)


class TrainConfig(BaseModel):
    """What `segdet train` was asked to do; saved as `config.yaml` in the run folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: str = Field(description="Architecture")
    data: str = Field(description="Dataset name or folder")
    backbone: str | None = Field(None, description="timm backbone (default: the architecture's)")
    mix: dict[str, float] = Field({}, description="Further datasets, and the share of every epoch that comes from each")
    weights: str = Field("imagenet", description="Start of the backbone: imagenet, none, or a file")
    options: dict[str, Any] = Field({}, description="Further arguments of the architecture")
    epochs: int = Field(30, ge=1, description="Times every photograph is seen")
    time_budget: str | None = Field(None, description="Train for this long instead of --epochs, for instance 20m")
    val_every: int = Field(1, ge=1, description="Epochs between two validations (the last one is always validated)")
    imgsz: int | None = Field(None, ge=32, description="Side in pixels of training crops, or of what a detector sees")
    batch: int | Literal["auto"] = Field(8, description="Images per step and process; auto = what memory allows")
    accumulate: int = Field(1, ge=1, description="Compute a batch in so many parts: less memory, the same step")
    loss: str = Field("bce+dice", description="bce+dice, ce, focal, tversky, lovasz or cldice")
    class_weights: list[float] | None = Field(
        None, description="Weights of the classes in cross entropy, background first"
    )
    optimizer: str = Field("adamw", description="adamw, adam, sgd, rmsprop or adagrad")
    schedule: str = Field("cosine", description="cosine, poly, step, one-cycle or constant")
    freeze: str = Field("none", description="none, backbone, or N: the stem and the first N - 1 stages")
    freeze_epochs: int = Field(0, ge=0, description="The whole backbone stands still for the first N epochs")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Rate of a backbone stage as a share of the next one's")
    lr: float = Field(1e-3, gt=0, description="Highest learning rate")
    backbone_lr: float = Field(0.5, gt=0, description="The backbone's learning rate as a share of lr")
    weight_decay: float = Field(0.02, ge=0, description="Weight decay (not on norms and biases)")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of all steps that the learning rate climbs")
    clip: float = Field(5.0, gt=0, description="Largest gradient norm")
    ema: float = Field(0.998, ge=0, lt=1, description="Decay of the averaged weights; 0 = no averaging")
    augment: Literal["none", "standard", "robust"] = Field(
        "standard",
        description="none: as they are; robust: stronger light, shadow, blur and scale, for photographs from anywhere",
    )
    calm: float = Field(
        0.0, ge=0, le=1, description="Share of the samples whose scale, light and sharpness stay as they are"
    )
    enlarge: float | None = Field(
        None, ge=1, le=16, description="Largest enlargement of a sample (default: 1.4, and 2 for robust)"
    )
    quarter_turns: bool | None = Field(None, description="Flips and quarter turns (default: for one-class data)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    compile: bool = Field(False, description="torch.compile the network: slow to start, then faster on a GPU")
    sync_bn: bool = Field(False, description="Batch norm over the images of all GPUs")
    fsdp: bool = Field(False, description="Share parameters, gradients and optimiser state between processes (FSDP2)")
    patience: int | None = Field(None, ge=1, description="Stop after so many epochs without a better score")
    save_every: str = Field("2m", description="Time between two saved states within an epoch")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Arithmetic of the network")
    cache: Literal["auto", "ram", "disk", "off"] = Field("auto", description="Keep decoded images for the next epoch")
    workers: int | None = Field(None, ge=0, description="Loader processes (default: from the machine)")
    seed: int = Field(0, ge=0, description="Of everything random")
    fold: str | None = Field(None, description="K/N: use fold K of N as validation")
    limit: int | None = Field(None, ge=1, description="At most this many images per split")
    logger: str | None = Field(None, description="none, or some of tensorboard, mlflow, wandb (default: see --help)")
    out: str = Field("runs", description="Folder for run folders")
    name: str | None = Field(None, description="Name of the run folder (default: <arch>-<data>)")

    @field_validator("batch", mode="before")
    @classmethod
    def _is_batch(cls, value: Any) -> Any:
        text = str(value).strip().lower()
        if text != "auto" and (not text.isdigit() or int(text) < 1):
            raise ValueError("say auto or a number of at least 1")
        return text if text == "auto" else int(text)

    @field_validator("mix")
    @classmethod
    def _are_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            raise ValueError("say NAME=SHARE with shares between 0 and 1 that leave some of every epoch for --data")
        return shares

    @field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ValueError("a plain name; --out says in which folder")
        return name

    @field_validator("time_budget", "save_every")
    @classmethod
    def _is_duration(cls, text: str | None) -> str | None:
        if text is not None and seconds_of(text) is None:
            raise ValueError("write a time such as 90s, 20m or 1.5h")
        return text

    @property
    def budget(self) -> float | None:
        """Seconds that training may take, None when epochs decide."""
        return None if self.time_budget is None else seconds_of(self.time_budget)

    @property
    def save_seconds(self) -> float:
        """Seconds between two saved states within an epoch."""
        return seconds_of(self.save_every) or 0.0

    @property
    def images(self) -> int:
        """`batch`, once it is a number."""
        if self.batch == "auto":
            raise RuntimeError("--batch auto is not resolved yet")
        return self.batch

    def side(self, device: str) -> int:
        """`imgsz`, or what fits the architecture and the kind of device ("cpu", "cuda")."""
        if self.imgsz is not None:
            return self.imgsz
        return SIDE_ON_CPU if device == "cpu" and self.arch in SIDES else SIDES.get(self.arch, SIDE)

    @classmethod
    def from_options(cls, **options: Any) -> TrainConfig:
        """Validate options; None means "not given".

        Raises:
            InputError: an unknown key or a value out of range.
        """
        given = {key: value for key, value in options.items() if value is not None}
        recipe = RECIPES.get(given.get("arch", ""), {})
        if given.get("loss", recipe.get("loss")) != recipe.get("loss", given.get("loss")):
            raise InputError(
                f"--loss {given['loss']}: {given['arch']} is trained with its own set loss; leave --loss out"
            )
        for key, why in _NOT_OF_SETS.items() if recipe.get("loss") == "set" else ():
            if given.get(key):
                raise InputError(f"--{key} {given[key]}: {given['arch']} {why}; leave --{key} out")
        for key in ("calm", "enlarge") if given.get("augment") == "none" else ():
            if given.get(key):
                raise InputError(f"--{key} {given[key]}: --augment none shows photographs as they are; leave one out")
        try:
            return cls(**{**recipe, **given})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise InputError(f"{key}: no such setting{nearest(key, cls.model_fields)}") from error
            told = first["msg"].removeprefix("Value error, ")
            raise InputError(f"--{key.replace('_', '-')} {_as_typed(first.get('input'))}: {told}") from error

    @classmethod
    def from_file(cls, path: Path, **overrides: Any) -> TrainConfig:
        """Settings from a YAML file, with those given on the command line on top.

        Raises:
            InputError: missing, not YAML, or unknown keys.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: not a mapping of settings; a run's config.yaml shows the keys")
        try:
            given = {key: value for key, value in overrides.items() if value is not None}
            if isinstance(content.get("options"), dict) and "options" in given:
                given["options"] = {**content["options"], **given["options"]}
            return cls.from_options(**{**content, **given})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
