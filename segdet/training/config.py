"""The settings of a training run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator

from segdet.errors import InputError, InvalidOption, setting
from segdet.metadata import earlier_option
from segdet.settings import Settings, option

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


# Settings that architectures with a set loss cannot use, and why.
_NOT_OF_SETS = {
    "clean_fraction": "turns augmentation off at the end of training by itself",
    "max_scale": "chooses the scale of each batch",
    "class_weights": "is trained with its own set loss",
}

# Settings that are arguments of the architecture.
ARCH_OPTIONS = ("output_stride", "input_scale", "variant", "num_queries", "decoder")

# Keys in `config.yaml` of runs that were made before a setting was renamed.
_EARLIER_NAMES = {"calm": "clean_fraction", "enlarge": "max_scale"}


class TrainConfig(Settings):
    """The settings of `segdet train`; saved as `config.yaml` in the run folder."""

    arch: str = option(..., "Architecture: fcn, unet, deeplabv3, deeplabv3plus, segmenter, dfine, detr.", argument=True)
    data: str = option(..., "Dataset: a name (see `segdet data list`), a folder, or a COCO file.", group="Data")
    mix: dict[str, float] = option(
        {},
        "Additional dataset and its fraction of each epoch, e.g. crack-drawn=0.3. Repeatable.",
        group="Data",
        metavar="NAME=SHARE",
    )
    fold: str | None = option(None, "Use fold K of N as the validation set.", group="Data", metavar="K/N")
    limit: int | None = option(None, "Use at most this many images per split.", group="Data", ge=1)
    cache: Literal["auto", "ram", "disk", "off"] = option(
        "auto", "Where to keep decoded images; auto keeps them in memory if they fit.", group="Data"
    )

    augment: Literal["none", "standard", "robust"] = option(
        "standard", "Augmentation; robust adds stronger light, shadow, blur and scale changes.", group="Augmentation"
    )
    clean_fraction: float = option(
        0.0,
        "Fraction of training samples that get only flips and rotations, no scale, light or blur changes.",
        group="Augmentation",
        ge=0,
        le=1,
    )
    max_scale: float | None = option(
        None,
        "Largest magnification of a training sample.",
        group="Augmentation",
        shown_default="1.4; robust 2",
        ge=1,
        le=16,
    )
    quarter_turns: bool | None = option(
        None,
        "Flip and rotate samples by multiples of 90 degrees.",
        group="Augmentation",
        shown_default="for data with one class",
    )

    backbone: str | None = option(None, "timm backbone.", group="Model", shown_default="the architecture's")
    weights: str = option("imagenet", "Initial weights of the backbone: imagenet, none, or a file.", group="Model")
    freeze: str = option(
        "none", "Freeze parameters: none, backbone, or N (the stem and the first N - 1 stages).", group="Model"
    )
    freeze_epochs: int = option(0, "Freeze the whole backbone for the first N epochs.", group="Model", ge=0)
    output_stride: int | None = option(
        None, "Stride of the last backbone stage, 8, 16 or 32; smaller strides use dilation.", group="Model"
    )
    input_scale: float | None = option(
        None, "Enlarge the input by this factor, up to 4, for finer masks from coarse heads.", group="Model"
    )
    variant: str | None = option(None, "Size of dfine: n, s, m, l or x.", group="Model", shown_default="n")
    num_queries: int | None = option(
        None, "Largest number of objects in an image, for dfine and detr.", group="Model", ge=1
    )
    decoder: str | None = option(None, "Decoder of segmenter: mask or linear.", group="Model", shown_default="mask")
    options: dict[str, Any] = Field({}, description="Further arguments of the architecture, in YAML only")

    epochs: int = option(30, "Passes over the training images.", group="Schedule", ge=1)
    time_budget: str | None = option(
        None, "Train for this long instead of a number of epochs: 90s, 20m, 1.5h.", group="Schedule", metavar="TIME"
    )
    patience: int | None = option(None, "Stop after this many epochs without a better score.", group="Schedule", ge=1)
    val_every: int = option(
        1, "Epochs between two validations. The last epoch is always validated.", group="Schedule", ge=1
    )
    save_every: str = option("2m", "Time between two saved states within an epoch.", group="Schedule", metavar="TIME")

    imgsz: int | None = option(
        None,
        "Side of training crops in pixels, or of a detector's input.",
        group="Optimisation",
        ge=32,
        shown_default="320; dfine 640, detr 800; on a CPU both 256",
    )
    batch: int | Literal["auto"] = option(
        8, "Images per step and process; auto uses what memory allows.", group="Optimisation"
    )
    accumulate: int = option(
        1, "Compute each batch in this many micro-batches: less memory, the same step.", group="Optimisation", ge=1
    )
    loss: str = option(
        "bce+dice", "Segmentation loss: bce+dice, ce, focal, tversky, lovasz or cldice.", group="Optimisation"
    )
    class_weights: list[float] | None = option(
        None,
        "Weights of the classes in cross entropy, background first, e.g. 1,4.",
        group="Optimisation",
        metavar="W,W",
    )
    optimizer: str = option("adamw", "Optimiser: adamw, adam, sgd, rmsprop or adagrad.", group="Optimisation")
    schedule: str = option(
        "cosine", "Learning-rate schedule: cosine, poly, step, one-cycle or constant.", group="Optimisation"
    )
    lr: float = option(1e-3, "Highest learning rate.", group="Optimisation", gt=0)
    backbone_lr: float = option(0.5, "Learning rate of the backbone as a fraction of lr.", group="Optimisation", gt=0)
    layer_decay: float = option(
        1.0, "Learning rate of a backbone stage as a fraction of the next stage's.", group="Optimisation", gt=0, le=1
    )
    weight_decay: float = option(0.02, "Weight decay, not on norms and biases.", group="Optimisation", ge=0)
    warmup: float = option(
        0.05, "Fraction of all steps in which the learning rate rises.", group="Optimisation", ge=0, lt=1
    )
    clip: float = option(5.0, "Largest gradient norm.", group="Optimisation", gt=0)
    ema: float = option(
        0.998, "Decay of the averaged weights (EMA); 0 turns averaging off.", group="Optimisation", ge=0, lt=1
    )

    device: str = option("auto", "auto, cpu, cuda or cuda:N.", group="Hardware")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "Arithmetic of the network.", group="Hardware")
    compile: bool = option(False, "Use torch.compile: slow to start, then faster on a GPU.", group="Hardware")
    sync_bn: bool = option(False, "Synchronise batch norm over all GPUs.", group="Hardware")
    fsdp: bool = option(
        False,
        "Shard parameters, gradients and optimiser state over processes (FSDP2), for what one GPU cannot hold.",
        group="Hardware",
    )
    workers: int | None = option(None, "Loader processes.", group="Hardware", shown_default="from the machine", ge=0)

    seed: int = option(0, "Seed of everything random.", group="Run", ge=0)
    logger: str | None = option(
        None,
        "none, or some of tensorboard,mlflow,wandb.",
        group="Run",
        shown_default="tensorboard where it is installed",
    )
    out: str = option("runs", "Folder for run folders.", group="Run")
    name: str | None = option(None, "Name of the run folder.", group="Run", shown_default="<arch>-<data>")

    @field_validator("batch", mode="before")
    @classmethod
    def _is_batch(cls, value: Any) -> Any:
        text = str(value).strip().lower()
        if text != "auto" and (not text.isdigit() or int(text) < 1):
            raise ValueError("must be auto or a number of at least 1")
        return text if text == "auto" else int(text)

    @field_validator("class_weights", mode="before")
    @classmethod
    def _are_weights(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("mix", mode="before")
    @classmethod
    def _are_pairs(cls, value: Any) -> Any:
        if isinstance(value, list):
            pairs = [str(text).rpartition("=") for text in value]
            if not all(name and share for name, _, share in pairs):
                raise ValueError("must be NAME=SHARE, for instance crack-drawn=0.3")
            value = {name: share for name, _, share in pairs}
        return value

    @field_validator("mix")
    @classmethod
    def _are_shares(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            raise ValueError("must be NAME=SHARE with shares between 0 and 1 whose sum is below 1")
        return shares

    @field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ValueError(f"must be a plain name; {setting('out')} says in which folder")
        return name

    @field_validator("time_budget", "save_every")
    @classmethod
    def _is_duration(cls, text: str | None) -> str | None:
        if text is not None and seconds_of(text) is None:
            raise ValueError("must be a time such as 90s, 20m or 1.5h")
        return text

    @property
    def arch_options(self) -> dict[str, Any]:
        """Arguments of the architecture: those with a setting of their own, and further ones from YAML."""
        named = {name: getattr(self, name) for name in ARCH_OPTIONS}
        return {**self.options, **{name: value for name, value in named.items() if value is not None}}

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
            raise RuntimeError("the automatic batch size is not resolved yet")
        return self.batch

    def side(self, device: str) -> int:
        """`imgsz`, or what fits the architecture and the kind of device ("cpu", "cuda")."""
        if self.imgsz is not None:
            return self.imgsz
        return SIDE_ON_CPU if device == "cpu" and self.arch in SIDES else SIDES.get(self.arch, SIDE)

    @classmethod
    def shown_default(cls, name: str, default: Any, unit: int = 1) -> str:
        """The default, and what the recipes of architectures put in its place."""
        text = super().shown_default(name, default, unit)
        others = [f"{arch} {recipe[name]}" for arch, recipe in RECIPES.items() if name in recipe and name != "loss"]
        return "; ".join([text, ", ".join(others)] if others and text else [text])

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Validate options over the recipe of the architecture; None means that the user said nothing.

        Raises:
            InvalidOption: a value out of range, or one that this architecture cannot use.
            InputError: an unknown key, or no architecture or dataset.
        """
        present = {key: value for key, value in options.items() if value is not None}
        arch = present.get("arch", "")
        recipe = RECIPES.get(arch, {})
        if recipe.get("loss") == "set":
            if present.get("loss", "set") != "set":
                raise InvalidOption(
                    "loss", present["loss"], f"{arch} is trained with its own set loss", "remove the setting"
                )
            for key, why in _NOT_OF_SETS.items():
                if present.get(key):
                    raise InvalidOption(key, present[key], f"{arch} {why}", "remove the setting")
        for key in ("clean_fraction", "max_scale") if present.get("augment") == "none" else ():
            if present.get(key):
                reason = f"{setting('augment', 'none')} turns all scale changes off"
                raise InvalidOption(key, present[key], reason, "remove one of the two")
        return super().from_options(**{**recipe, **present})

    @classmethod
    def from_file(cls, path: Path, **overrides: Any) -> Self:
        """Settings from a YAML file, with `overrides` on top.

        Raises:
            InputError: the file is missing or not YAML, or a key or value in it cannot be used.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: not a mapping of settings; a run's config.yaml shows the keys")
        content = {_EARLIER_NAMES.get(str(key), str(key)): value for key, value in content.items()}
        if isinstance(content.get("options"), dict):
            content["options"] = {earlier_option(key): value for key, value in content["options"].items()}
        present = {key: value for key, value in overrides.items() if value is not None}
        try:
            return cls.from_options(**{**content, **present})
        except InputError as error:
            raise InputError(f"{path}: {error.message}") from error
