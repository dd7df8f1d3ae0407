"""What a model says about itself: the JSON inside weights files and ONNX files (docs/contract.md, schema 1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segdet.errors import InputError
from segdet.text import printable

KEY = "segdet"  # in safetensors' metadata and ONNX's metadata_props

# Of `metrics.json`: what stands elsewhere in the metadata, or is too long for it.
_LONG = frozenset({"threshold", "operate", "classes", "confusion", "curve", "calibration", "speed", "damp_duplicates"})


# Arguments of architectures in files that were written before they were renamed.
_EARLIER_OPTIONS = {"size": "variant", "queries": "num_queries", "upscale": "input_scale"}


def earlier_option(name: str) -> str:
    """Today's name of an architecture's argument, for files of earlier versions."""
    return _EARLIER_OPTIONS.get(name, name)


class DataSource(BaseModel):
    """The dataset a model was trained on. A name that is not UTF-8 is kept with escapes: JSON readers refuse it otherwise."""

    model_config = ConfigDict(extra="allow")

    name: str
    sha256: str
    licence: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _printable(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {key: printable(value) if isinstance(value, str) else value for key, value in fields.items()}


class Metadata(BaseModel):
    """Everything needed to rebuild, run and judge a model.

    options: further arguments of the architecture (decoder widths and the like).
    mean, std: normalisation in units of 0..1. threshold: probability from which a pixel is foreground, or a box shown.
    operate: the rule that chose it on validation data. metrics: scores there, without tables and curves.
    damp_duplicates: whether a detector lowers the scores of boxes that overlap ones with higher scores (`duplicates.damped`).
    down_to: large images are looked at again at half their size, a quarter, ..., down to a longer side of this many pixels
    (`inference.levels`); None: never.
    opset, source_sha256, precision ("fp32", "fp16" or "int8"), parity: only in ONNX files.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema")
    task: str
    arch: str
    backbone: str
    options: dict[str, Any] = {}
    classes: list[str]
    imgsz: int
    mean: list[float]
    std: list[float]
    threshold: float | None = None
    damp_duplicates: bool = False
    down_to: int | None = Field(default=None, ge=32)
    operate: str | None = None
    data: DataSource
    metrics: dict[str, Any] = {}
    version: str
    opset: int | None = None
    source_sha256: str | None = None
    precision: str | None = None
    parity: dict[str, Any] | None = None

    @field_validator("options", mode="before")
    @classmethod
    def _with_names_of_today(cls, options: Any) -> Any:
        return {earlier_option(key): value for key, value in options.items()} if isinstance(options, dict) else options

    @property
    def is_binary(self) -> bool:
        """Segmentation of one class: a probability for each pixel and a threshold."""
        return self.task == "segmentation" and len(self.classes) == 1

    @property
    def has_threshold(self) -> bool:
        """Whether a threshold decides; with several classes of masks the likeliest class wins instead."""
        return self.is_binary or self.task != "segmentation"

    @property
    def decision_threshold(self) -> float:
        """The stored threshold, or 0.5 when none is stored."""
        return 0.5 if self.threshold is None else self.threshold

    def measured(self, metrics: Mapping[str, Any]) -> Metadata:
        """The description with the threshold and scores of a measurement."""
        brief = {key: value for key, value in metrics.items() if key not in _LONG}
        update: dict[str, Any] = {
            "threshold": metrics["threshold"],
            "operate": metrics.get("operate"),
            "metrics": brief,
        }
        if "damp_duplicates" in metrics:  # chosen while training; a later measurement keeps what was chosen
            update["damp_duplicates"] = metrics["damp_duplicates"]
        return self.model_copy(update=update)

    def to_json(self) -> str:
        """Compact JSON; of the fields that are not set only those that readers look for in every file."""
        content = self.model_dump(by_alias=True, exclude_none=True)
        content.setdefault("threshold", None)
        content["data"].setdefault("licence", None)
        return json.dumps(content, allow_nan=False)


def parse(text: str | None, path: str | Path) -> Metadata:
    """Read the JSON found in `path`.

    Raises:
        InputError: the file carries none, or one of another schema.
    """
    if not text:
        raise InputError(f"{path}: not a segdet model (no `{KEY}` metadata); make one with `segdet export RUN`")
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the metadata"
        raise InputError(
            f"{path}: {where} in its metadata: {first['msg']}; export it again with this segdet"
        ) from error
