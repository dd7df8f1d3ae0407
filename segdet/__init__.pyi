# Written by scripts/make_derived.py; do not edit.
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segdet.console import on_progress as on_progress
from segdet.data.records import Dataset as Dataset
from segdet.errors import InputError as InputError
from segdet.errors import InvalidOption as InvalidOption
from segdet.errors import SegdetError as SegdetError
from segdet.inference.batch.job import JobResult as JobResult
from segdet.inference.predict.predictor import Predictor as Predictor
from segdet.inference.predict.results import DetectionResult as DetectionResult
from segdet.inference.predict.results import Result as Result
from segdet.inference.predict.results import SegmentationResult as SegmentationResult
from segdet.metadata import Metadata as Metadata
from segdet.validation.evaluate import EvaluationResult as EvaluationResult
from segdet.version import __version__ as __version__

def train(
    arch: str = "unet",
    data: str = "crack-demo",
    *,
    mix: dict[str, float] = {},
    fold: str | None = None,
    limit: int | None = None,
    cache: Literal["auto", "ram", "disk", "off"] = "auto",
    augment: Literal["none", "standard", "robust"] = "standard",
    clean_fraction: float = 0.0,
    max_scale: float | None = None,
    quarter_turns: bool | None = None,
    backbone: str | None = None,
    weights: str = "imagenet",
    freeze: str = "none",
    freeze_epochs: int = 0,
    output_stride: int | None = None,
    input_scale: float | None = None,
    variant: str | None = None,
    num_queries: int | None = None,
    decoder: str | None = None,
    epochs: int = 30,
    time_budget: str | None = None,
    patience: int | None = None,
    val_every: int = 1,
    save_every: str = "2m",
    imgsz: int | None = None,
    batch: int | Literal["auto"] = 8,
    accumulate: int = 1,
    loss: str = "bce+dice",
    class_weights: list[float] | None = None,
    optimizer: str = "adamw",
    schedule: str = "cosine",
    lr: float = 0.001,
    backbone_lr: float = 0.5,
    layer_decay: float = 1.0,
    weight_decay: float = 0.02,
    warmup: float = 0.05,
    clip: float = 5.0,
    ema: float = 0.998,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    compile: bool = False,
    sync_bn: bool = False,
    fsdp: bool = False,
    workers: int | None = None,
    seed: int = 0,
    logger: str | None = None,
    out: str = "runs",
    name: str | None = None,
) -> Path: ...
def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    split: str = "val",
    exclude_leaks: bool = False,
    limit: int | None = None,
    degrade: str | None = None,
    threshold_rule: str | None = None,
    imgsz: int | None = None,
    device: str = "cpu",
    workers: int | None = None,
    out: Path | None = None,
    report: Path | None = None,
) -> EvaluationResult: ...
def export(
    source: str | Path,
    *,
    out: Path | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    triton: Path | None = None,
    multiscale_to: int | None = None,
    data: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    calibration: int = 32,
) -> Path: ...
def load(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    threshold: float | None = None,
    tile: str = "auto",
    imgsz: int | None = None,
    multiscale_to: int | None = None,
) -> Predictor: ...
def predict(
    sources: str | Path | Sequence[str | Path],
    *,
    model: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    threshold: float | None = None,
    tile: str = "auto",
    imgsz: int | None = None,
    multiscale_to: int | None = None,
    smooth: float = 0.0,
    bands: str | None = None,
    out: Path | None = None,
    save: str | None = None,
    coco_ids: Path | None = None,
    skip_done: bool = False,
) -> JobResult: ...
def open_dataset(
    data: str | Path,
) -> Dataset: ...

__all__ = [
    "Dataset",
    "DetectionResult",
    "EvaluationResult",
    "InputError",
    "InvalidOption",
    "JobResult",
    "Metadata",
    "Predictor",
    "Result",
    "SegdetError",
    "SegmentationResult",
    "__version__",
    "evaluate",
    "export",
    "load",
    "on_progress",
    "open_dataset",
    "predict",
    "train",
]
