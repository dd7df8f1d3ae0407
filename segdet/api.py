"""The functions of `import segdet`. Their settings are the fields of the classes that declare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segdet.inference.config import PredictConfig
from segdet.settings import Settings

if TYPE_CHECKING:
    from segdet.data.records import Dataset
    from segdet.inference.batch.job import JobResult
    from segdet.inference.predict.predictor import Predictor
    from segdet.validation.evaluate import EvaluationResult

F = TypeVar("F", bound=Callable[..., Any])

LOADED = ("threshold", "tile", "device", "threads", "imgsz", "multiscale_to")  # settings of an open model


def settings_of(name: str) -> tuple[type[Settings], tuple[str, ...]]:
    """The class that declares the settings of a public function, and the names it takes; all of them when empty."""
    if name == "train":
        from segdet.training.config import TrainConfig

        return TrainConfig, ()
    if name == "evaluate":
        from segdet.validation.config import ValConfig

        return ValConfig, ()
    if name == "export":
        from segdet.exporting.config import ExportConfig

        return ExportConfig, ()
    return PredictConfig, LOADED if name == "load" else ()


def _with_settings(function: F) -> F:
    """Give a function the signature and the documentation of its settings."""
    config, names = settings_of(function.__name__)
    own = [one for one in signature(function).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    positional = {one.name for one in own}
    declared = [one for one in config.declared() if one.name not in positional and (not names or one.name in names)]
    parameters = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=one.annotation) for one in declared
    ]
    function.__signature__ = Signature(  # type: ignore[attr-defined]
        [*own, *parameters], return_annotation=signature(function).return_annotation
    )
    lines = []
    for one in declared:
        default = f" Default: {one.shown_default}." if one.shown_default else ""
        lines.append(f"        {one.name}: {one.help}{default}")
    head, marker, rest = (function.__doc__ or "").partition("        **settings: see below.\n")
    function.__doc__ = head + "\n".join(lines) + "\n" + rest if marker else function.__doc__
    return function


@_with_settings
def train(arch: str = "unet", data: str = "crack-demo", **settings: Any) -> Path:
    """Train a model.

    Args:
        arch: fcn, unet, deeplabv3, deeplabv3plus, segmenter, dfine or detr.
        data: dataset name, folder or COCO file.
        **settings: see below.

    Returns:
        The run folder.

    Raises:
        InputError: a setting, dataset or file that cannot be used.
        SegdetError: training itself failed, for instance because there is nothing to learn.

    Example:
        >>> import segdet
        >>> segdet.train("unet", "no-such-data")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        segdet.errors.InvalidOption: data=no-such-data: ...
    """
    from segdet.training.config import TrainConfig
    from segdet.training.run import train as run

    return run(TrainConfig.from_options(arch=arch, data=data, **settings))


@_with_settings
def evaluate(source: str | Path, **settings: Any) -> EvaluationResult:
    """Measure a model at the images' own resolution, with confidence intervals.

    Args:
        source: run folder, weights (.safetensors) or exported model (.onnx).
        **settings: see below.

    Returns:
        The scores: `metrics` is the content of `metrics.json`.

    Raises:
        InputError: no such model or dataset, or settings that exclude each other.

    Example:
        >>> import segdet
        >>> segdet.evaluate("exports/crack.onnx", limit=0)
        Traceback (most recent call last):
        ...
        segdet.errors.InvalidOption: limit=0: must be at least 1
    """
    from segdet.validation.config import ValConfig
    from segdet.validation.evaluate import evaluate as run

    return run(source, ValConfig.from_options(**settings))


@_with_settings
def export(source: str | Path, **settings: Any) -> Path:
    """Export a run or weights to one ONNX file and prove that it agrees with its source on real images.

    Args:
        source: run folder or weights (.safetensors).
        **settings: see below.

    Returns:
        The ONNX file. Its parity report, worst cases and model card are beside it.

    Raises:
        InputError: no such weights, or no images to compare on.
        SegdetError: the file does not agree with its source; no file is left behind.

    Example:
        >>> import segdet
        >>> segdet.export("runs/unet-crack", precision="int4")
        Traceback (most recent call last):
        ...
        segdet.errors.InvalidOption: precision=int4: must be fp32, fp16 or int8; did you mean "int8"?
    """
    from segdet.exporting.config import ExportConfig
    from segdet.exporting.job import export as run

    return run(source, ExportConfig.from_options(**settings))


@_with_settings
def load(path: str | Path | None = None, **settings: Any) -> Predictor:
    """Open an exported model; `segdet.load().predict("photo.jpg")` returns a `SegmentationResult` or `DetectionResult`.

    Args:
        path: the ONNX file; None for the model that `segdet predict` would take.
        **settings: see below.

    Returns:
        A predictor for images of any size.

    Raises:
        InputError: a file, device or setting that cannot be used.

    Example:
        >>> import numpy as np
        >>> import segdet
        >>> model = segdet.load("exports/crack.onnx", threshold=0.4)
        >>> model.predict(np.zeros((64, 64, 3), np.uint8)).mask.shape
        (64, 64)
        >>> segdet.load("exports/crack.onnx", threshold=2)
        Traceback (most recent call last):
        ...
        segdet.errors.InvalidOption: threshold=2: must be between 0 and 1
    """
    from segdet.inference.locate_model import find_model
    from segdet.inference.predict.predictor import open_predictor

    return open_predictor(find_model(path), **settings)


@_with_settings
def predict(sources: str | Path | Sequence[str | Path], **settings: Any) -> JobResult:
    """Predict images, videos and folders, and write the results into a folder.

    Args:
        sources: one or several images, videos, folders, patterns or lists (.txt).
        **settings: see below.

    Returns:
        The folder, and a row for each image.

    Raises:
        InputError: a source, model or setting that cannot be used, or no image that could be read.

    Example:
        >>> import segdet
        >>> segdet.predict("no-such-photo.jpg")
        Traceback (most recent call last):
        ...
        segdet.errors.InputError: no-such-photo.jpg: no such file or folder
    """
    from segdet.inference.batch.job import predict_sources

    several = [sources] if isinstance(sources, str | Path) else sources
    return predict_sources(several, PredictConfig.from_options(**settings))


def open_dataset(data: str | Path) -> Dataset:
    """Read a dataset in any layout that segdet knows.

    Args:
        data: a name (see `segdet data list`), a folder, or a COCO file.

    Returns:
        Its records by split, classes, and what could not be used.

    Raises:
        InputError: no such dataset, or a layout that is not recognised.

    Example:
        >>> import segdet
        >>> segdet.open_dataset("crack-demo").classes
        ('crack',)
    """
    from segdet.data.catalog import cards

    return cards.load(str(data))
