"""The Open Inference Protocol's messages: JSON, and the binary tensor extension."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segdet.errors import InvalidOption
from segdet.serving.refusals import bad_request, too_large

DTYPES = {"UINT8": "<u1", "FP32": "<f4", "INT64": "<i8"}  # of the tensors of segdet's models
NAMES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}
MAX_JSON_VALUES = 1 << 24  # of an answer in JSON; more only in binary
_MAX_IMAGES = 1 << 16


@dataclass(frozen=True)
class InferRequest:
    """A request for inference.

    images: uint8 `[N, H, W, 3]`, or N encoded images. threshold: as the optional input. outputs: names and whether binary,
    in the order asked for.
    """

    id: str | None
    images: np.ndarray | list[bytes]
    threshold: float | None
    outputs: list[tuple[str, bool]]
    parameters: Mapping[str, Any] = field(default_factory=dict)


def parse(
    body: bytes, header_length: str | None, names: Sequence[str], max_pixels: int, max_images: int
) -> InferRequest:
    """Take an inference request apart.

    Args:
        header_length: the header `Inference-Header-Content-Length`; None = all JSON, "0" = the body is one encoded image.
        names: the model's outputs.

    Raises:
        Refused: 400 or 413, with what is wrong.
    """
    if header_length is None:
        text, binary = body, memoryview(b"")
    elif not (header_length.isascii() and header_length.isdigit()) or int(header_length[:18]) > len(body):
        raise bad_request(
            f"Inference-Header-Content-Length {header_length[:20]!r} does not fit a body of {len(body)} bytes"
        )
    elif int(header_length) == 0:
        return InferRequest(None, [body], None, [(name, False) for name in names])
    else:
        text, binary = body[: int(header_length)], memoryview(body)[int(header_length) :]
    message = _object(_json(text), "the request")
    parameters = _object(message.get("parameters", {}), "parameters")
    inputs, rest = _inputs(message.get("inputs"), binary)
    if len(rest):
        raise bad_request(f"{len(rest)} bytes more than the inputs' binary_data_size")
    if "image" not in inputs:
        raise bad_request("no input called image")
    unknown = set(inputs) - {"image", "threshold"}
    if unknown:
        raise bad_request(f"no input called {sorted(unknown)[0][:80]!r}; there are image and threshold")
    images = _images(inputs["image"], max_pixels, max_images)
    request_id = message.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise bad_request("id: a string")
    outputs = _outputs(message.get("outputs"), parameters.get("binary_data_output") is True, names)
    return InferRequest(request_id, images, _threshold(inputs.get("threshold")), outputs, parameters)


def render(
    model: str, version: str, request: InferRequest, tensors: Mapping[str, np.ndarray]
) -> tuple[bytes, dict[str, str], str]:
    """The answer: body, further headers, media type.

    Raises:
        Refused: 400, more values than JSON is good for.
    """
    outputs, chunks = [], []
    for name, binary in request.outputs:
        tensor = np.ascontiguousarray(tensors[name])
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[tensor.dtype.name], "shape": list(tensor.shape)}
        if binary:
            chunk = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
            entry["parameters"] = {"binary_data_size": len(chunk)}
            chunks.append(chunk)
        elif tensor.size > MAX_JSON_VALUES:
            raise bad_request(f"{name} has {tensor.size:,} values, too many for JSON; ask for binary_data")
        else:
            entry["data"] = tensor.ravel().tolist()
        outputs.append(entry)
    message: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if request.id is not None:
        message["id"] = request.id
    text = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if not chunks:
        return text, {}, "application/json"
    return b"".join([text, *chunks]), {"Inference-Header-Content-Length": str(len(text))}, "application/octet-stream"


@dataclass(frozen=True)
class _Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any  # a list from JSON, or the tensor's bytes


def _json(text: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise bad_request(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise bad_request(f"not JSON: {str(error)[:120]}") from error


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{what}: a JSON object")
    return value


def _inputs(entries: Any, binary: memoryview) -> tuple[dict[str, _Tensor], memoryview]:
    """Tensors by name, and what is left of the binary part."""
    if not isinstance(entries, list) or not entries:
        raise bad_request("inputs: a list with at least the input image")
    found: dict[str, _Tensor] = {}
    for entry in entries:
        entry = _object(entry, "an input")
        name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str):
            raise bad_request("an input needs name, datatype and shape")
        name = name[:80]
        if name in found:
            raise bad_request(f"input {name!r} comes twice")
        if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
            raise bad_request(f"{name}: shape is a list of whole numbers, none negative")
        size = _object(entry.get("parameters", {}), f"{name}: parameters").get("binary_data_size")
        if size is None:
            if not isinstance(entry.get("data"), list):
                raise bad_request(
                    f"{name}: data (a list), or parameters.binary_data_size and binary data behind the JSON"
                )
            data: Any = entry["data"]
        elif type(size) is not int or not 0 <= size <= len(binary):
            raise bad_request(f"{name}: binary_data_size {str(size)[:20]} with {len(binary)} bytes left")
        else:
            data, binary = binary[:size], binary[size:]
        found[name] = _Tensor(name, datatype, tuple(shape), data)
    return found, binary


def _images(tensor: _Tensor, max_pixels: int, max_images: int) -> np.ndarray | list[bytes]:
    if tensor.datatype == "BYTES":
        return _encoded(tensor, max_images)
    if tensor.datatype != "UINT8" or len(tensor.shape) != 4 or tensor.shape[3] != 3:
        raise bad_request(
            f"image: UINT8 [N, H, W, 3] in RGB, or BYTES [N] of encoded images; not {tensor.datatype[:20]} {list(tensor.shape)}"
        )
    count, height, width, _ = tensor.shape
    if min(tensor.shape) < 1:
        raise bad_request(f"image: shape {list(tensor.shape)} holds nothing")
    if count > max_images:
        raise too_large(f"image: {count} images; {max_images} at most")
    if height * width > max_pixels:
        raise too_large(f"image: {height * width / 1e6:.1f} million pixels; {max_pixels / 1e6:g} million at most")
    return _numbers(tensor)


def _numbers(tensor: _Tensor) -> np.ndarray:
    """The tensor as an array of its datatype and shape."""
    dtype = np.dtype(DTYPES[tensor.datatype])
    wanted = math.prod(tensor.shape)
    if isinstance(tensor.data, memoryview):
        if len(tensor.data) != wanted * dtype.itemsize:
            raise bad_request(
                f"{tensor.name}: {len(tensor.data)} bytes; shape {list(tensor.shape)} needs {wanted * dtype.itemsize}"
            )
        return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
    try:
        given = np.array(tensor.data)
    except (ValueError, OverflowError) as error:
        raise bad_request(f"{tensor.name}: data is no array of numbers") from error
    if given.size != wanted:
        raise bad_request(f"{tensor.name}: {given.size} values; shape {list(tensor.shape)} needs {wanted}")
    whole = dtype.kind in "ui"
    if given.dtype.kind not in ("ui" if whole else "uif"):
        raise bad_request(f"{tensor.name}: data is no array of {tensor.datatype}")
    if whole and given.size and (given.min() < np.iinfo(dtype).min or given.max() > np.iinfo(dtype).max):
        raise bad_request(f"{tensor.name}: values from {given.min()} to {given.max()} are not {tensor.datatype}")
    return given.reshape(tensor.shape).astype(dtype)


def _encoded(tensor: _Tensor, max_images: int) -> list[bytes]:
    """The encoded images of a BYTES tensor: each with its length before it (binary)."""
    count = math.prod(tensor.shape)
    if not 1 <= count <= _MAX_IMAGES or len(tensor.shape) > 2:
        raise bad_request(f"image: BYTES of shape [N], not {list(tensor.shape)}")
    if count > max_images:
        raise too_large(f"image: {count} images; {max_images} at most")
    if not isinstance(tensor.data, memoryview):
        raise bad_request("image: encoded images come as binary data; JSON has no form for bytes")
    images, rest = [], tensor.data
    for _ in range(count):
        length = struct.unpack("<I", rest[:4])[0] if len(rest) >= 4 else -1
        if not 0 <= length <= len(rest) - 4:
            raise bad_request("image: BYTES data ends early")
        images.append(bytes(rest[4 : 4 + length]))
        rest = rest[4 + length :]
    if len(rest):
        raise bad_request(f"image: {len(rest)} bytes more than {count} elements")
    return images


def _threshold(tensor: _Tensor | None) -> float | None:
    if tensor is None:
        return None
    if tensor.datatype != "FP32" or math.prod(tensor.shape) != 1:
        raise bad_request("threshold: FP32 of shape [] or [1]")
    value = float(_numbers(tensor).ravel()[0])
    if not 0.0 <= value <= 1.0:  # NaN is neither
        raise InvalidOption("threshold", value, "must be between 0 and 1")
    return value


def _outputs(entries: Any, binary_by_default: bool, names: Sequence[str]) -> list[tuple[str, bool]]:
    if entries is None or entries == []:
        return [(name, binary_by_default) for name in names]
    if not isinstance(entries, list):
        raise bad_request("outputs: a list")
    chosen: dict[str, bool] = {}
    for entry in entries:
        entry = _object(entry, "an output")
        name = entry.get("name")
        if not isinstance(name, str) or name not in names:
            raise bad_request(f"no output called {str(name)[:80]!r}; there are {', '.join(names)}")
        if name in chosen:
            raise bad_request(f"output {name!r} comes twice")
        parameters = _object(entry.get("parameters", {}), f"{name}: parameters")
        if "classification" in parameters:
            raise bad_request(f"{name}: the classification extension is not offered")
        chosen[name] = parameters.get("binary_data", binary_by_default) is True
    return list(chosen.items())
