"""`segdet train`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from segdet.cli import output
from segdet.errors import InputError

if TYPE_CHECKING:
    from segdet.training.config import TrainConfig


def train(
    arch: str | None = typer.Argument(
        None, help="Architecture: fcn, unet, deeplabv3, deeplabv3plus, segmenter, dfine, detr", show_default=False
    ),
    data: str | None = typer.Option(None, help="Dataset: a name (see `segdet data list`) a folder, or a COCO file."),
    mix: list[str] | None = typer.Option(
        None, help="A further dataset and the share of every epoch that comes from it: NAME=0.3 (several times)."
    ),
    augment: str | None = typer.Option(
        None, help="none, standard, or robust: stronger light, shadow, blur, scale.  \\[default: standard]"
    ),
    calm: float | None = typer.Option(
        None, help="Share of the samples whose scale, light and sharpness stay as they are.  \\[default: 0]"
    ),
    enlarge: float | None = typer.Option(
        None, help="Largest enlargement of a sample, for pictures with more pixels.  \\[default: 1.4; robust: 2]"
    ),
    backbone: str | None = typer.Option(None, help="timm backbone.  \\[default: the architecture's]"),
    weights: str | None = typer.Option(
        None, help="Start of the backbone: imagenet, none, or a file.  \\[default: imagenet]"
    ),
    freeze: str | None = typer.Option(
        None, help="Keep fixed: none, backbone, or N (the stem and its first N - 1 stages).  \\[default: none]"
    ),
    freeze_epochs: int | None = typer.Option(None, help="Keep the backbone fixed for the first N epochs."),
    epochs: int | None = typer.Option(
        None, help="Times every photograph is seen.  \\[default: 30; dfine 72, detr 300]"
    ),
    time_budget: str | None = typer.Option(None, help="Train for this long instead of --epochs: 90s, 20m, 1.5h."),
    patience: int | None = typer.Option(None, help="Stop after so many epochs without a better score."),
    save_every: str | None = typer.Option(
        None, help="Time between two saved states within an epoch: 30s, 2m.  \\[default: 2m]"
    ),
    val_every: int | None = typer.Option(None, help="Epochs between two validations.  \\[default: 1]"),
    imgsz: int | None = typer.Option(
        None,
        help="Side in pixels of crops, or of what a detector sees.  \\[default: 320; dfine 640, detr 800; on a CPU both 256]",
    ),
    batch: str | None = typer.Option(
        None, help="Images per step and process, or auto: what memory allows.  \\[default: 8; detectors 4]"
    ),
    accumulate: int | None = typer.Option(
        None, help="Compute a batch in so many parts: less memory, the same step.  \\[default: 1]"
    ),
    lr: float | None = typer.Option(None, help="Highest learning rate.  \\[default: 0.001; detr 0.0001]"),
    find_lr: bool = typer.Option(False, "--find-lr", help="Do not train: find a learning rate and plot the test."),
    layer_decay: float | None = typer.Option(
        None, help="Rate of a backbone stage as a share of the next one's.  \\[default: 1]"
    ),
    optimizer: str | None = typer.Option(None, help="adamw, adam, sgd, rmsprop or adagrad.  \\[default: adamw]"),
    schedule: str | None = typer.Option(None, help="cosine, poly, step, one-cycle or constant.  \\[default: cosine]"),
    loss: str | None = typer.Option(
        None, help="bce+dice, ce, focal, tversky, lovasz or cldice.  \\[default: bce+dice]"
    ),
    output_stride: int | None = typer.Option(
        None, help="8, 16 or 32: dilate the backbone instead of shrinking further."
    ),
    upscale: float | None = typer.Option(None, help="Enlarge images so many times first: finer maps for coarse heads."),
    size: str | None = typer.Option(None, help="Of dfine: n, s, m, l or x.  \\[default: n]"),
    queries: int | None = typer.Option(None, help="Of dfine and detr: the largest number of objects in an image."),
    decoder: str | None = typer.Option(None, help="Of segmenter: mask or linear.  \\[default: mask]"),
    device: str | None = typer.Option(None, help="auto, cpu, cuda or cuda:N.  \\[default: auto]"),
    precision: str | None = typer.Option(None, help="auto, fp32, bf16 or fp16.  \\[default: auto]"),
    compile: bool | None = typer.Option(
        None, "--compile", help="torch.compile: slow to start, then faster on a GPU.", show_default=False
    ),
    sync_bn: bool | None = typer.Option(
        None, "--sync-bn", help="Batch norm over the images of all GPUs.", show_default=False
    ),
    fsdp: bool | None = typer.Option(
        None,
        "--fsdp",
        help="Share the network's state between processes, for what one GPU cannot hold.",
        show_default=False,
    ),
    cache: str | None = typer.Option(
        None, help="Keep decoded images: auto (in memory if they are few), ram, disk or off.  \\[default: auto]"
    ),
    workers: int | None = typer.Option(None, help="Loader processes.  \\[default: from the machine]"),
    seed: int | None = typer.Option(None, help="Of everything random.  \\[default: 0]"),
    fold: str | None = typer.Option(None, help="K/N: fold K of N photographs is the validation set."),
    limit: int | None = typer.Option(None, help="At most this many images per split."),
    logger: str | None = typer.Option(
        None, help="none, or some of tensorboard,mlflow,wandb.  \\[default: tensorboard where it is installed]"
    ),
    resume: Path | None = typer.Option(None, help="Go on with this run folder, exactly where it stopped."),
    out: str | None = typer.Option(None, help="Folder for run folders.  \\[default: runs]"),
    name: str | None = typer.Option(None, help="Name of the run folder.  \\[default: <arch>-<data>]"),
    config: Path | None = typer.Option(None, help="YAML with any settings; options given here win."),
) -> None:
    """Train a model: segdet train unet --data crack"""
    began = time.perf_counter()
    given: dict[str, Any] = {
        "arch": arch, "data": data, "backbone": backbone, "weights": weights, "freeze": freeze, "epochs": epochs,
        "time_budget": time_budget, "val_every": val_every, "freeze_epochs": freeze_epochs, "patience": patience,
        "save_every": save_every, "cache": cache, "accumulate": accumulate, "compile": compile or None, "sync_bn": sync_bn or None,
        "imgsz": imgsz, "batch": batch, "lr": lr, "layer_decay": layer_decay, "optimizer": optimizer, "schedule": schedule,
        "loss": loss, "device": device, "precision": precision, "workers": workers, "seed": seed, "fold": fold,
        "limit": limit, "logger": logger, "out": out, "name": name,
    }  # fmt: skip
    given.update(fsdp=fsdp or None, augment=augment, calm=calm, enlarge=enlarge)
    given.update(mix=dict(_share(text) for text in mix) if mix else None)
    options = {"output_stride": output_stride, "upscale": upscale, "decoder": decoder, "size": size, "queries": queries}
    options = {key: value for key, value in options.items() if value is not None}
    if options:
        given["options"] = options
    from segdet.training.config import TrainConfig

    if find_lr and resume is not None:
        raise InputError("--find-lr starts anew; leave --resume out")
    if resume is not None:
        if not resume.is_dir():
            raise InputError(f"--resume {resume}: no such run folder; runs are under runs/ unless --out said otherwise")
        if not (resume / "config.yaml").is_file():
            raise InputError(f"--resume {resume}: not a run folder (no config.yaml in it); train anew")
        settings = TrainConfig.from_file(resume / "config.yaml", device=device, workers=workers, data=data)
        _same(resume, settings, TrainConfig.from_file(resume / "config.yaml", **given))
        if config is not None:
            raise InputError(f"--resume {resume}: a run goes on with its own settings; leave out --config")
    elif config is not None:
        settings = TrainConfig.from_file(config, **given)
    else:
        if arch is None:
            raise InputError("train what? segdet train unet --data crack")
        if data is None:
            raise InputError(f"train on what? segdet train {arch} --data NAME|FOLDER (see `segdet data list`)")
        settings = TrainConfig.from_options(**given)

    from segdet.training.run import find_lr as run_find_lr
    from segdet.training.run import train as run_training

    if find_lr:
        run, found = run_find_lr(settings)
        plot = run / "find-lr.png"
        output.emit({"lr": found.lr, "plot": str(plot)}, f"suggested: --lr {found.lr:g} (see {plot})")
        return
    run = run_training(settings, resume, time.perf_counter() - began)
    output.emit(
        {"run": str(run), "weights": str(run / "weights" / "best.safetensors"), "report": str(run / "report.html")},
        str(run),
    )


def _same(resume: Path, settings: TrainConfig, asked: TrainConfig) -> None:
    """A run goes on as it began: what is asked for besides must be what it has. Its data may have moved.

    Raises:
        InputError: it is not.
    """
    for key in type(settings).model_fields:
        had, wanted = getattr(settings, key), getattr(asked, key)
        if had == wanted or key in ("data", "device", "workers") or (key == "batch" and wanted == "auto"):
            continue
        name = "ARCH" if key == "arch" else f"--{key.replace('_', '-')}"
        raise InputError(f"--resume {resume}: that run has {name} {had}, not {wanted}; it goes on as it began")


def _share(text: str) -> tuple[str, float]:
    """NAME=SHARE."""
    name, _, share = text.rpartition("=")
    try:
        if name:
            return name, float(share)
        raise ValueError
    except ValueError:
        raise InputError(f"--mix {text}: say NAME=SHARE, for instance crack-drawn=0.3") from None
