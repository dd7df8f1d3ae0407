"""What every image decoder shares: its error, its limit of pixels, and how wide samples become eight bits."""

from __future__ import annotations

import numpy as np

from segdet.errors import InputError

MAX_PIXELS = 178_000_000  # more than any camera has; checked on the header, before memory is taken

_ROWS_PIXELS = 4_000_000  # converted at once


class ImageError(InputError):
    """An image that cannot be used; the message names the file and the reason."""


def full_scale(lowest: int, highest: int, bits: int, label: object) -> int:
    """The sample value that becomes 255.

    Args:
        lowest: smallest sample of the picture.
        highest: largest sample of the picture.
        bits: bits per sample according to the file.
        label: what to call the picture in a message.

    Returns:
        The largest value of `bits` below 16. Otherwise 4095 where no sample is above it (12-bit sensors), else 65535.

    Raises:
        ImageError: samples outside 0..65535.
    """
    if lowest < 0 or highest > 65535:
        raise ImageError(f"{label}: samples from {lowest} to {highest}; convert it to 8 or 16 bits first")
    if bits < 16:
        return (1 << bits) - 1
    return 4095 if highest <= 4095 else 65535


def to_eight_bits(samples: np.ndarray, full: int) -> np.ndarray:
    """Scale integer samples `[H, ...]` to uint8, so that `full` becomes 255."""
    out = np.empty(samples.shape, np.uint8)
    step = max(1, _ROWS_PIXELS // max(1, samples[:1].size))
    scale = np.float32(255.0 / full)
    for top in range(0, len(samples), step):
        rows = samples[top : top + step].astype(np.float32)
        rows *= scale
        rows += np.float32(0.5)
        out[top : top + step] = rows.astype(np.uint8)
    return out


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120] or type(error).__name__
