"""Pictures that are read a band of rows at a time: arrays, and TIFF files too large to be held whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segdet.data import tiff
from segdet.data.images import MAX_PIXELS, ImageError
from segdet.data.tiff import TiffPicture

WINDOWED = 64_000_000  # pixels from which a TIFF is read in windows
_MAX_WINDOWED = 4_000_000_000  # pixels of such a picture
_MAX_WIDTH = 100_000  # a band of a tile's height must fit into memory
_PIECE = 256_000_000  # bytes of one tile or strip, decoded


class Picture(Protocol):
    """size: (height, width)."""

    size: tuple[int, int]

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Rows `top` to `bottom`: RGB uint8 `[bottom - top, W, 3]`."""


class ArrayPicture:
    """A picture in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.size = (pixels.shape[0], pixels.shape[1])

    def read(self, top: int, bottom: int) -> np.ndarray:
        return self._pixels[top:bottom]


def remarks(source: Path | bytes, bands: tiff.Bands | None = None) -> dict[str, Any]:
    """What of a TIFF is left out, for its row in the results; empty for every other file.

    Args:
        source: a path, or the bytes of the file.
        bands: the bands that were asked for; None for the first ones.

    Returns:
        `pages`, where there are several (masks and a map's smaller copies are not counted). `bands` (the numbers of
        those that were read) and `bands_stored`, where others than an alpha channel were left out.
    """
    if not tiff.is_tiff(source):
        return {}
    import tifffile

    found: dict[str, Any] = {}
    try:
        with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            pages: Any = file.pages
            count = sum(not (page.is_reduced or page.is_mask) for page in pages)
            stored, extra = int(pages[0].samplesperpixel), [int(kind) for kind in pages[0].extrasamples]
            inks = int(pages[0].photometric) == 5
    except Exception:  # whatever is wrong with it, the reader says
        return {}
    if count > 1:
        found["pages"] = count
    read = bands or ((1, 2, 3) if stored >= 3 else (1,))
    colours = stored - sum(kind in (1, 2) for kind in extra)
    if bands is not None or (colours > len(read) and not inks and not (stored == 4 and extra == [0])):
        found |= {"bands": list(read), "bands_stored": stored}
    return found


def open_windowed(path: Path, bands: tiff.Bands | None = None) -> TiffPicture | None:
    """A TIFF over `WINDOWED` pixels, ready to be read in windows; None for every other file.

    Args:
        path: the file.
        bands: which bands to read; None for the first ones.

    Raises:
        ImageError: such a TIFF that cannot be read in windows nor, being over `MAX_PIXELS`, whole.
    """
    if not tiff.is_tiff(path):
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            pixels = page.imagelength * page.imagewidth
    except Exception:  # whatever is wrong with it, the ordinary reader says
        return None
    if pixels <= WINDOWED:
        return None
    try:
        picture = TiffPicture(path, bands=bands)
        if wrong := _wrong_for_windows(picture):
            picture.close()
            raise ImageError(f"{path}: {wrong}")
        return picture
    except ImageError:
        if pixels <= MAX_PIXELS:
            return None
        raise


def _wrong_for_windows(picture: TiffPicture) -> str:
    """Why a picture cannot be read in windows, or an empty string."""
    height, width = picture.size
    advice = (
        "; save it as 8-bit RGB in tiles (for example: gdal_translate -co TILED=YES IN OUT, vips copy IN OUT.tif[tile])"
    )
    if height * width > _MAX_WINDOWED or width > _MAX_WIDTH:
        return f"{width}x{height} is more than segdet reads; cut it into parts"
    if picture.orientation not in (0, 1):
        return f"turned by its orientation tag, which cannot be done in windows{advice}"
    if picture.piece_bytes > _PIECE:
        return f"stored in pieces of {picture.piece_bytes / 1e6:.0f} MB{advice}"
    return ""
