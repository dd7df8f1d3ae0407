"""Pictures that are read a band of rows at a time: arrays, and TIFF files too large to be held whole."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segdet.data.images import MAX_PIXELS, ImageError

WINDOWED = 64_000_000  # pixels from which a TIFF is read in windows
_MAX_WINDOWED = 4_000_000_000  # pixels of such a picture
_MAX_WIDTH = 100_000  # a band of a tile's height must fit into memory
_PIECE = 256_000_000  # bytes of one tile or strip, decoded
_HELD = 256_000_000  # bytes of decoded tiles or strips kept for the next band
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)  # tags that say where on Earth the picture lies


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


class TiffPicture:
    """The first picture of a TIFF, 8 or 16 bits, grey or RGB (further channels are left out), tiled or in strips.

    16-bit samples become 8 bits as `data.images.read_image` does it, which takes one look at all samples first.

    Raises:
        ImageError: something that cannot be read in windows, with the reason.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self.path = path
        try:
            self._file = tifffile.TiffFile(path)
            page: Any = self._file.pages[0]
            height, width = page.imagelength, page.imagewidth
        except Exception as error:  # tifffile meets damaged files with many kinds of exception
            raise ImageError(f"{path}: damaged TIFF ({_first(error)}); replace or remove it") from error
        self._page = page
        self.size = (height, width)
        self._check()
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keep = 0
        self._scale = 0.0
        if self._page.dtype == np.uint16:
            step = 256
            highest = max(int(self._samples(top, min(top + step, height)).max()) for top in range(0, height, step))
            self._scale = 255.0 / (4095 if highest <= 4095 else 65535)

    def read(self, top: int, bottom: int) -> np.ndarray:
        samples = self._samples(top, bottom)
        if self._scale:
            samples = (samples.astype(np.float32) * np.float32(self._scale) + np.float32(0.5)).astype(np.uint8)
        if self._page.photometric.name == "MINISWHITE":
            samples = 255 - samples
        return np.repeat(samples, 3, axis=2) if samples.shape[2] == 1 else samples

    def georeference(self) -> list[tuple[int, int, int, Any, bool]]:
        """The tags that place the picture on a map, as tifffile writes them; usually none."""
        tags = (self._page.tags.get(code) for code in _GEOREFERENCE)
        return [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in tags if tag is not None]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _check(self) -> None:
        page, (height, width) = self._page, self.size
        name = page.photometric.name
        piece = int(np.prod(page.chunks)) * page.dtype.itemsize if page.dtype is not None else 0
        advice = "; save it as 8-bit RGB in tiles (for example: gdal_translate -co TILED=YES, vips tiffsave --tile)"
        wrong = None
        if height * width > _MAX_WINDOWED or width > _MAX_WIDTH:
            wrong = f"{width}x{height} is more than segdet reads; cut it into parts"
        elif page.dtype not in (np.uint8, np.uint16) or name not in ("RGB", "YCBCR", "MINISBLACK", "MINISWHITE"):
            wrong = f"a TIFF of this size must be 8 or 16 bits, grey or RGB, not {page.dtype} {name}{advice}"
        elif page.samplesperpixel == 2 or (name in ("RGB", "YCBCR") and page.samplesperpixel < 3):
            wrong = f"{page.samplesperpixel} samples a pixel{advice}"
        elif getattr(page.tags.get("Orientation"), "value", 1) not in (0, 1):
            wrong = f"turned by its orientation tag, which cannot be done in windows{advice}"
        elif piece > _PIECE:
            wrong = f"stored in pieces of {piece / 1e6:.0f} MB{advice}"
        elif len(page.dataoffsets) < int(np.prod(page.chunked)):
            wrong = "damaged TIFF (tiles or strips are missing); replace or remove it"
        elif max(a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)) > self.path.stat().st_size:
            wrong = "damaged TIFF (the file ends too early); replace or remove it"
        if wrong:
            self.close()
            raise ImageError(f"{self.path}: {wrong}")

    def _samples(self, top: int, bottom: int) -> np.ndarray:
        """Rows as stored: `[h, W, 1 or 3]`."""
        page, (height, width) = self._page, self.size
        channels = 3 if page.photometric.name in ("RGB", "YCBCR") else 1
        out = np.zeros((bottom - top, width, channels), page.dtype)
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        tall = min(tall, height)
        across, down = -(-width // wide), -(-height // tall)
        planes = channels if page.planarconfig == 2 and page.samplesperpixel > 1 else 1
        self._keep = across * planes * (-(-(bottom - top) // tall) + 1)
        for plane in range(planes):
            for row in range(top // tall, -(-bottom // tall)):
                for column in range(across):
                    piece = self._piece((plane * down + row) * across + column)
                    if piece is None:
                        continue
                    y, x = row * tall, column * wide
                    first, last = max(top, y), min(bottom, y + len(piece))
                    part = piece[first - y : last - y, : width - x]
                    target = out[first - top : last - top, x : x + part.shape[1]]
                    if planes > 1:
                        target[..., plane] = part[..., 0]
                    else:
                        target[:] = part[..., :channels]
        return out

    def _piece(self, index: int) -> np.ndarray | None:
        """A decoded tile or strip `[h, w, samples]`; None for one that the file leaves out (all zeros)."""
        if index in self._held:
            self._held.move_to_end(index)
            return self._held[index]
        page = self._page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0:
            return None
        handle = self._file.filehandle
        try:
            handle.seek(offset)
            data = handle.read(count)  # before anything else is asked of the page, which may read elsewhere
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # as above
            if "imagecodecs" in str(error):
                raise ImageError(
                    f"{self.path}: {page.compression.name} compression needs a package: pip install 'segdet[tiff]'"
                ) from error
            raise ImageError(f"{self.path}: damaged TIFF ({_first(error)}); replace or remove it") from error
        if decoded is None:
            return None
        piece = np.asarray(decoded[0])
        self._held[index] = piece
        while len(self._held) > self._keep or sum(p.nbytes for p in self._held.values()) > _HELD + piece.nbytes:
            self._held.popitem(last=False)
        return piece


def pages_of(source: Path | bytes) -> int:
    """Pictures in a TIFF, its masks and smaller copies (a map's overviews) not counted; 1 for every other file."""
    tiff = source[:2] in (b"II", b"MM") if isinstance(source, bytes) else source.suffix.lower() in (".tif", ".tiff")
    if not tiff:
        return 1
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            pages: Any = file.pages
            return max(1, sum(not (page.is_reduced or page.is_mask) for page in pages))
    except Exception:  # as in `open_windowed`
        return 1


def open_windowed(path: Path) -> TiffPicture | None:
    """A TIFF over `WINDOWED` pixels, ready to be read in windows; None for every other file.

    Raises:
        ImageError: such a TIFF that cannot be read in windows nor, being over `MAX_PIXELS`, whole.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
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
        return TiffPicture(path)
    except ImageError:
        if pixels <= MAX_PIXELS:
            return None
        raise


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
