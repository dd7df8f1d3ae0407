"""A Triton model repository around an exported file: `<folder>/<name>/config.pbtxt` and `<folder>/<name>/1/model.onnx`.

Everything is inside the graph, so one plain ONNX model is enough and no ensemble is needed.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from segdet.contract import OUTPUTS
from segdet.errors import InputError, InvalidOption, setting
from segdet.files import building, write_text
from segdet.metadata import Metadata

BATCH = 8  # images at most in one run; requests of one size are joined
DELAY = 2000  # microseconds that a request waits for others
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int64": "TYPE_INT64"}  # Triton's words


def place(model: Path, folder: Path) -> Path:
    """Where a model goes in the repository `folder`.

    Raises:
        InputError: a model of that name is there already, or the name cannot be one of Triton's.
    """
    target = folder / model.stem
    if not re.fullmatch(r"[\w.-]+", model.stem, re.ASCII):
        reason = f"{model.stem} cannot be a model's name in a URL"
        raise InvalidOption("triton", folder, reason, f"choose another with {setting('out')}")
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another folder for {setting('triton')}")
    return target


def write_repository(model: Path, metadata: Metadata, folder: Path) -> Path:
    """Write the model into the repository `folder`, beside what stands there already; returns its own folder.

    Raises:
        InputError: as `place`.
    """
    target = place(model, folder)
    with building(target) as made:
        write_text(made / "config.pbtxt", config(model.stem, metadata))
        (made / "1").mkdir()
        shutil.copyfile(model, made / "1" / "model.onnx")
    return target


def config(name: str, metadata: Metadata) -> str:
    """The text of `config.pbtxt`."""
    side = max(32, metadata.imgsz)
    outputs = ",\n".join(
        f"  {{ name: {_quoted(output.name)} data_type: {_TYPES[output.dtype]} dims: {list(output.shape[1:])} }}"
        for output in OUTPUTS[metadata.task]
    )
    about = {
        "task": metadata.task,
        "classes": json.dumps(metadata.classes, ensure_ascii=False),
        "threshold": "" if metadata.threshold is None else str(metadata.threshold),
        "arch": f"{metadata.arch} on {metadata.backbone}",
        "precision": metadata.precision or "fp32",
        "licence_of_data": metadata.data.licence or "",
        "source_sha256": metadata.source_sha256 or "",
        "segdet": metadata.version,
    }
    parameters = "\n".join(
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in about.items()
        if value
    )
    return f"""# Written by segdet. The model takes RGB bytes [N, H, W, 3] of any size and answers in those pixels.
name: {_quoted(name)}
backend: "onnxruntime"
max_batch_size: {BATCH}
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [-1, -1, 3] }}
]
output [
{outputs}
]
# Requests of one image size are joined; a full queue answers 503 instead of growing.
dynamic_batching {{
  max_queue_delay_microseconds: {DELAY}
  default_queue_policy {{ timeout_action: REJECT default_timeout_microseconds: 10000000 max_queue_size: 64 }}
}}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
# Ready only after the first, slow run.
model_warmup [
  {{
    name: "one image" batch_size: 1
    inputs {{ key: "image" value {{ data_type: TYPE_UINT8 dims: [{side}, {side}, 3] zero_data: true }} }}
  }}
]
{parameters}
"""


def _quoted(text: str) -> str:
    """A string in protobuf's text format."""
    return json.dumps(text, ensure_ascii=False)
