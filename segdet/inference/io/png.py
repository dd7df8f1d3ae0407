"""Small PNG files fast, whole or row by row: masks need neither filters nor deep compression."""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np

from segdet import drawing

_PALETTE = bytes([0, 0, 0] + [channel for index in range(255) for channel in drawing.colour_of(index)])
_GREY, _RGB, _INDEXED = 0, 2, 3  # PNG's colour types


def palette16() -> np.ndarray:
    """The masks' palette as TIFF holds it: uint16 `[3, 256]`."""
    return np.frombuffer(_PALETTE, np.uint8).reshape(256, 3).T.astype(np.uint16) * 257


def encode_mask(mask: np.ndarray, classes: int) -> bytes:
    """Class values uint8 `[H, W]` -> PNG whose stored values are the same and whose palette makes them visible."""
    return _encoded(mask, classes)


def encode_grey(image: np.ndarray) -> bytes:
    """uint8 `[H, W]` -> grey PNG."""
    return _encoded(image, None)


def _encoded(image: np.ndarray, classes: int | None) -> bytes:
    buffer = io.BytesIO()
    writer = Writer(buffer, len(image), image.shape[1], classes)
    writer.write(image)
    writer.close()
    return buffer.getvalue()


class Writer:
    """Writes a PNG in bands of rows, so that a picture larger than memory can be written.

    Args:
        file: where the bytes go. height, width: of the whole picture.
        classes: for masks, the number of classes: palette indices, one bit each when there is but one; None for grey
            `[h, W]` and RGB `[h, W, 3]` pictures.
        channels: 3 for RGB, 1 otherwise.
    """

    def __init__(self, file: BinaryIO, height: int, width: int, classes: int | None = None, channels: int = 1) -> None:
        self._file = file
        self._bits = 1 if classes == 1 else 8
        self._channels = channels
        kind = _INDEXED if classes is not None else (_RGB if channels == 3 else _GREY)
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, self._bits, kind, 0, 0, 0))
        if classes is not None:
            self._chunk(b"PLTE", _PALETTE[: 3 * min(256, classes + 1)])
        # Masks are long runs; photographs filtered by the row above are short differences.
        strategy = zlib.Z_DEFAULT_STRATEGY if kind == _INDEXED else zlib.Z_RLE
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, strategy)
        self._above: np.ndarray | None = None
        self._filter = 0 if kind == _INDEXED else 2

    def write(self, rows: np.ndarray) -> None:
        """The next rows: uint8 `[h, W]` or `[h, W, 3]`."""
        flat = np.packbits(rows, axis=1) if self._bits == 1 else rows.reshape(len(rows), -1)
        lines = np.empty((len(flat), flat.shape[1] + 1), np.uint8)
        lines[:, 0] = self._filter
        if self._filter:
            above = np.zeros_like(flat[:1]) if self._above is None else self._above
            lines[:1, 1:] = flat[:1] - above
            np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
            self._above = flat[-1:].copy()
        else:
            lines[:, 1:] = flat
        packed = self._packer.compress(lines.data)
        if packed:
            self._chunk(b"IDAT", packed)

    def close(self) -> None:
        """The end of the picture; the file stays open."""
        self._chunk(b"IDAT", self._packer.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self._file.write(struct.pack(">I", len(content)) + kind)
        self._file.write(content)
        self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
