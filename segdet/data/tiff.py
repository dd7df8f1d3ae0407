"""TIFF files decoded by their tags, a tile or strip at a time: the layouts that Pillow misreads, and large pictures.

Pillow (and OpenCV) read planar 16-bit files as garbage and do not know pictures of many bands. tifffile decodes the
pieces here, and they are put together into memory that starts as zeros, so that no answer depends on earlier contents.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import lzma
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.samples import MAX_PIXELS, ImageError, first_line, full_scale, to_eight_bits
from segdet.errors import InvalidOption, setting

_MINISWHITE, _MINISBLACK, _RGB, _YCBCR = 0, 1, 2, 6
_SEPARATE = 2  # planar configuration: one band after the other
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of alpha among the extra samples
_JPEG = 7
# These decode into a buffer of a known size; an image codec inside a TIFF may claim any size of its own.
_BOUNDED = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})  # none, LZW, deflate, PackBits, LZMA, Zstandard
_UNPACKERS: dict[int, Any] = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}
_HELD = 256_000_000  # bytes of decoded pieces kept for the next rows
_PIECE = MAX_PIXELS * 6  # bytes of one decoded piece: the largest picture in three bands of 16 bits
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)  # tags that say where on Earth the picture lies
_CONVERT = "convert it to 8 or 16 bits (gdal_translate -ot UInt16 -scale IN OUT)"

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file, the error says

Bands = tuple[int, ...]  # numbered from 1, in the order red, green, blue; or one for grey


class MissingCodec(ImageError):
    """A compression that needs the package imagecodecs."""


def is_tiff(source: Path | bytes) -> bool:
    """Whether the first bytes are those of a TIFF."""
    try:
        if isinstance(source, bytes):
            start = source[:4]
        else:
            with Path(source).open("rb") as stream:
                start = stream.read(4)
    except OSError:
        return False
    return start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class TiffPicture:
    """The first picture of a TIFF: 8 to 16 bits, grey or colour, any number of bands, tiled or in strips.

    Of three bands or more the first three are red, green and blue; of fewer the first is grey. Samples of more than
    8 bits are scaled as `samples.full_scale` says, over the whole picture.

    Attributes:
        size: (height, width) as stored.
        orientation: 1..8, as in EXIF; `read` does not apply it.
        bands: the bands that are read, numbered from 1.
        stored: how many bands the file has.
        alpha: how many of them are an alpha channel.
        bits: per sample.
        planar: whether each band is stored apart.
    """

    def __init__(self, source: Path | bytes, name: object = None, bands: Bands | None = None) -> None:
        """Open the file and check its tags.

        Args:
            source: a path, or the bytes of the file.
            name: what to call it in messages (default: the path, or "image").
            bands: which bands to read, numbered from 1: one or three. None for the first ones.

        Raises:
            ImageError: a layout that cannot be read, or a damaged file; the message names the file and the reason.
        """
        import tifffile

        self.label = name or ("image" if isinstance(source, bytes) else source)
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()
        self._keep = 0
        try:
            self._file = tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        except Exception as error:  # tifffile meets damaged files with many kinds of exception
            raise self._damaged(error) from error
        try:
            self._read_tags(len(source) if isinstance(source, bytes) else Path(source).stat().st_size)
            self.bands = self._choose(bands)
        except ImageError:
            self.close()
            raise
        except Exception as error:  # as above
            self.close()
            raise self._damaged(error) from error

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Rows `top` to `bottom`, not turned: RGB uint8 `[bottom - top, W, 3]`."""
        return self._rgb(self._samples(top, bottom), self._full)

    def whole(self) -> np.ndarray:
        """The whole picture, not turned: RGB uint8 `[H, W, 3]`.

        Raises:
            ImageError: damaged, or a compression that is read only in windows.
        """
        if self._compression not in _BOUNDED:
            raise ImageError(f"{self.label}: {self._packing()} of this layout is not read; save it with LZW or deflate")
        samples = self._samples(0, self.size[0])
        deep = self.bits > 8
        full = full_scale(int(samples.min()), int(samples.max()), self.bits, self.label) if deep else 0
        return self._rgb(samples, full)

    def georeference(self) -> list[tuple[int, int, int, Any, bool]]:
        """The tags that place the picture on a map, as tifffile writes them; usually none."""
        tags = (self._page.tags.get(code) for code in _GEOREFERENCE)
        return [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in tags if tag is not None]

    @property
    def plain_colour(self) -> bool:
        """Whether other decoders agree on the layout too: RGB, pixel by pixel, at most an alpha channel beside it."""
        return self._photometric == _RGB and not self.planar and self.stored <= 4 and self.bands == (1, 2, 3)

    @property
    def piece_bytes(self) -> int:
        """Bytes of one decoded tile or strip."""
        return int(np.prod(self._page.chunks)) * int(self._page.dtype.itemsize)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_tags(self, length: int) -> None:
        """Take over what the tags say, and refuse what cannot be read."""
        page: Any = self._file.pages[0]
        self._page = page
        height, width = int(page.imagelength), int(page.imagewidth)
        self.size = (height, width)
        self.stored = int(page.samplesperpixel)
        self.orientation = _tag(page, 274, 1)
        self.bits = int(np.max(page.bitspersample))
        extra = [int(kind) for kind in page.extrasamples]
        self.alpha = sum(kind in (_ASSOCIATED, _UNASSOCIATED) for kind in extra)
        self._photometric, self._compression = int(page.photometric), int(page.compression)
        self.planar = int(page.planarconfig) == _SEPARATE and self.stored > 1
        if wrong := self._wrong_layout():
            raise ImageError(f"{self.label}: {wrong}")
        ends = zip(page.dataoffsets, page.databytecounts, strict=True)
        if height < 1 or width < 1 or len(page.dataoffsets) < int(np.prod(page.chunked)):
            raise ImageError(f"{self.label}: damaged TIFF (tiles or strips are missing); replace or remove it")
        if max(start + count for start, count in ends) > length:
            raise ImageError(f"{self.label}: damaged TIFF (the file ends too early); replace or remove it")
        if self.piece_bytes > _PIECE:
            raise ImageError(f"{self.label}: stored in pieces of {self.piece_bytes / 1e6:.0f} MB; save it in tiles")

    def _wrong_layout(self) -> str:
        """Why pictures of this layout cannot be read, or an empty string."""
        page, dtype = self._page, self._page.dtype
        count = f"{self.stored} band{'s' if self.stored > 1 else ''}"
        if dtype is not None and dtype.kind in "fc":
            return f"{count} of {self.bits}-bit floating-point samples, which have no agreed range; {_CONVERT}"
        if dtype not in (np.uint8, np.uint16, np.int16, np.uint32, np.int32) or self.bits < 8:
            return f"{count} of {self.bits}-bit samples (sample format {int(page.sampleformat or 1)}); {_CONVERT}"
        photometric = getattr(page.photometric, "name", str(page.photometric))
        colour = (_MINISWHITE, _MINISBLACK, _RGB) + ((_YCBCR,) if self._compression == _JPEG else ())
        if int(page.imagedepth) != 1:
            return f"a volume of {page.imagedepth} slices; save the slice that you mean"
        if self._photometric not in colour:
            return f"{count} of {self.bits} bits stored as {photometric}; save it as RGB or grey"
        if self._photometric in (_RGB, _YCBCR) and self.stored < 3:
            return f"damaged TIFF ({count} stored as {photometric}); replace or remove it"
        return ""

    def _choose(self, bands: Bands | None) -> Bands:
        if bands is None:
            return (1, 2, 3) if self.stored >= 3 else (1,)
        if max(bands) > self.stored:
            asked = setting("bands", ",".join(map(str, bands)))
            raise ImageError(f"{self.label}: {asked}: the file has {self.stored} band{'s' if self.stored > 1 else ''}")
        return bands

    @cached_property
    def _full(self) -> int:
        """The sample value that becomes 255, from one look at all samples; 0 for 8 bits."""
        if self.bits <= 8:
            return 0
        height, step = self.size[0], 256
        lows, highs = [], []
        for top in range(0, height, step):
            rows = self._samples(top, min(top + step, height))
            lows.append(int(rows.min()))
            highs.append(int(rows.max()))
        return full_scale(min(lows), max(highs), self.bits, self.label)

    def _rgb(self, samples: np.ndarray, full: int) -> np.ndarray:
        pixels = to_eight_bits(samples, full) if full else samples
        if self._photometric == _MINISWHITE:
            pixels = 255 - pixels
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def _samples(self, top: int, bottom: int) -> np.ndarray:
        """Rows as stored: `[h, W, bands]`."""
        page, (height, width) = self._page, self.size
        chosen = [band - 1 for band in self.bands]
        out = np.zeros((bottom - top, width, len(chosen)), page.dtype.newbyteorder("="))
        tall, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        tall = min(tall, height)
        across, down = -(-width // wide), -(-height // tall)
        planes = chosen if self.planar else [0]
        self._keep = across * len(planes) * (-(-(bottom - top) // tall) + 1)
        for position, plane in enumerate(planes):
            for row in range(top // tall, -(-bottom // tall)):
                for column in range(across):
                    piece = self._piece((plane * down + row) * across + column)
                    if piece is None:
                        continue
                    y, x = row * tall, column * wide
                    first, last = max(top, y), min(bottom, y + len(piece))
                    part = piece[first - y : last - y, : width - x]
                    target = out[first - top : last - top, x : x + part.shape[1]]
                    if self.planar:
                        target[..., position] = part[..., 0]
                    else:
                        target[:] = part[..., chosen] if chosen != [0, 1, 2] else part[..., :3]
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
            self._check_unpacked(data)
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # as above
            if "imagecodecs" in str(error):
                need = "needs a package: pip install 'segdet[tiff]'"
                raise MissingCodec(f"{self.label}: {self._packing()} {need}") from error
            raise self._damaged(error) from error
        if decoded is None:
            return None
        piece = np.asarray(decoded[0])
        self._held[index] = piece
        while len(self._held) > self._keep or sum(p.nbytes for p in self._held.values()) > _HELD + piece.nbytes:
            self._held.popitem(last=False)
        return piece

    def _check_unpacked(self, data: bytes) -> None:
        """Refuse a piece that unpacks to more than its size: without imagecodecs nothing else bounds it."""
        unpacker = _UNPACKERS.get(self._compression)
        if unpacker is None or importlib.util.find_spec("imagecodecs") is not None:
            return
        if len(unpacker().decompress(data, self.piece_bytes + 1)) > self.piece_bytes:
            raise ValueError("a tile or strip unpacks to more than its size")

    def _packing(self) -> str:
        """The compression in words."""
        return f"{getattr(self._page.compression, 'name', self._compression)} compression"

    def _damaged(self, error: Exception) -> ImageError:
        return ImageError(f"{self.label}: damaged TIFF ({first_line(error)}); replace or remove it")


def bands_of(text: str) -> Bands:
    """Parse a list of bands such as "4,3,2".

    Args:
        text: one or three numbers from 1, joined by commas.

    Raises:
        InvalidOption: anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() and int(part[:6]) for part in parts):
        reason = "not one or three numbers of bands, counted from 1"
        raise InvalidOption("bands", text, reason, f"for example {setting('bands', '4,3,2')}")
    return tuple(int(part) for part in parts)


def _tag(page: Any, code: int, default: int) -> int:
    value = getattr(page.tags.get(code), "value", default)
    return int(value[0] if isinstance(value, Sequence) else value)
