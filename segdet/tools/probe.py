"""The smallest ONNX file of the contract's shape, written byte by byte: `onnx` is not there where only prediction is."""

from __future__ import annotations

from pathlib import Path

CHANNEL = 1  # of the image, which the model gives back as its mask

_UINT8, _INT64 = 2, 7  # ONNX's data types


def probe_model(path: Path) -> Path:
    """Write a model that maps `image` uint8 `[N, H, W, 3]` to `mask` uint8 `[N, H, W]`: one of its channels."""
    index = _number(2, _INT64) + _text(8, "channel") + _bytes(9, CHANNEL.to_bytes(8, "little"))
    axis = _text(1, "axis") + _number(3, 3) + _number(20, 2)
    node = _text(1, "image") + _text(1, "channel") + _text(2, "mask") + _text(4, "Gather") + _bytes(5, axis)
    graph = _bytes(1, node) + _text(2, "probe") + _bytes(5, index)
    graph += _bytes(11, _value("image", ["N", "H", "W", 3])) + _bytes(12, _value("mask", ["N", "H", "W"]))
    opset = _text(1, "") + _number(2, 18)
    path.write_bytes(_number(1, 9) + _bytes(7, graph) + _bytes(8, opset))
    return path


def _value(name: str, shape: list[str | int]) -> bytes:
    dims = b"".join(_bytes(1, _text(2, d) if isinstance(d, str) else _number(1, d)) for d in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _UINT8) + _bytes(2, dims)))


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())
