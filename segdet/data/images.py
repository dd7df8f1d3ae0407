"""Reading and resizing images: one decoder and one resize for training, validation, export checks and prediction.

Every image becomes RGB uint8 `[H, W, 3]`, upright. What cannot be shown faithfully in that form is refused with a
reason, never guessed: a half-decoded JPEG, a floating-point TIFF, an animation.
"""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from segdet.errors import InputError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo"})
MAX_PIXELS = 178_000_000  # more than any camera has; checked on the header, before memory is taken

_AHEAD = 3  # images decoded while one is worked on
_BAND_PIXELS = 4_000_000  # handed over by Pillow at once

# Only these decoders ever see a file: the rest of Pillow's formats are rarely photographs and often the ones with holes.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class ImageError(InputError):
    """An image that cannot be used; the message names the file and the reason."""


def is_image(path: Path) -> bool:
    """Whether the file's name ends like an image's (hidden files do not count)."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its picture before anything is decoded.

    kind: "JPEG", "PNG", ... mode: Pillow's ("RGB", "P", "CMYK", "I;16", ...). width, height: as stored, not yet turned.
    orientation: EXIF, 1..8. deep: more than 8 bits a sample.
    """

    kind: str
    mode: str
    width: int
    height: int
    orientation: int
    deep: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the upright picture."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def header(source: Path | bytes, name: str | None = None) -> Header:
    """Read the header of an image file, given as a path or its bytes.

    Raises:
        ImageError: not an image, empty, missing, or over `MAX_PIXELS`.
    """
    label = name or ("image" if isinstance(source, bytes) else str(source))
    with _open(io.BytesIO(source) if isinstance(source, bytes) else source, label) as image:
        return Header(
            kind=image.format or "",
            mode=image.mode,
            width=image.width,
            height=image.height,
            orientation=_orientation(image),
            deep=image.mode in (*_SIXTEEN_BIT, "F") or _has_wide_colour(image),
        )


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, from the header alone.

    Raises:
        ImageError: not an image, empty, missing, or over `MAX_PIXELS`.
    """
    return header(path).size


def read_image(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Decode an image to RGB uint8 `[H, W, 3]`, upright.

    EXIF orientation is applied. Grey, palette, CMYK and 1-bit images are converted; alpha is dropped (the stored
    colour stays). 16-bit samples are scaled to 8 bits by 65535, or by 4095 when no sample is above (12-bit sensors).
    Of a multi-page TIFF or a camera's MPO the first picture is read.

    Args:
        source: a path, or the encoded bytes.
        name: what to call it in messages (default: the path, or "image").

    Raises:
        ImageError: with one line that says which image and why.
    """
    label = name or (str(source) if isinstance(source, (str, Path)) else "image")
    opened = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    with _open(opened, label) as image:
        try:
            frames = _frames(image)
            if frames > 1:
                raise ImageError(f"{label}: an animation of {frames} frames; extract the frame you mean")
            wide = _has_wide_colour(image)
            turn = _TURNS.get(_orientation(image))
            image.load()
            pixels = _to_rgb(image, opened if wide else None, label)
        except ImageError:
            raise
        except Exception as error:  # decoders meet damaged files with many kinds of exception
            raise ImageError(f"{label}: damaged image ({_reason(error)}); replace or remove it") from error
    return np.ascontiguousarray(turn(pixels)) if turn else pixels


def read_ahead(paths: Iterable[Path]) -> Iterator[np.ndarray | ImageError]:
    """`read_image` of each path in order, a few ahead in threads (Pillow works outside Python's lock); errors are returned."""

    def decode(path: Path) -> np.ndarray | ImageError:
        try:
            return read_image(path)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        waiting: deque[Future[np.ndarray | ImageError]] = deque()
        for path in paths:
            waiting.append(pool.submit(decode, path))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class Stored:
    """The samples of a mask image as its file holds them, before anything decides what they mean.

    samples: `[H, W]` of any type, or uint8 `[H, W, 3]`.
    palette: uint8 `[256, 3]`, the colour of each sample, or None.
    alpha: uint8 `[H, W]`, or None.
    lossy: the file is a JPEG, so that neighbouring samples are blended.
    """

    samples: np.ndarray
    palette: np.ndarray | None
    alpha: np.ndarray | None
    lossy: bool


def read_stored(path: Path) -> Stored:
    """Decode a mask image without changing its values.

    Raises:
        ImageError: the file is not an image, or is damaged.
    """
    with _open(path, path) as image:
        try:
            lossy = image.format in ("JPEG", "MPO")
            image.load()
            clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            alpha = np.asarray(image.convert("RGBA"))[..., 3].copy() if clear else None
            palette = None
            if image.mode == "P":
                palette = np.zeros((256, 3), np.uint8)
                colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
                palette[: len(colours)] = colours
            plain = image.mode in ("1", "L", "P", "F", *_SIXTEEN_BIT)
            return Stored(np.asarray(image if plain else image.convert("RGB")), palette, alpha, lossy)
        except Exception as error:  # as above
            raise ImageError(f"{path}: damaged mask ({_reason(error)}); replace or remove it") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 `[H, W]` or `[H, W, 3]`, or float32 `[H, W]`, bilinearly; shrinking is antialiased.

    Plain (aliased) bilinear shrinking loses thin cracks: it alone took a U-Net from IoU .62 to .37 at 1080p -> 416.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def crop_resize(image: np.ndarray, box: tuple[float, float, float, float], height: int, width: int) -> np.ndarray:
    """`resize` of the part of `image` inside `box` (x1, y1, x2, y2), which may lie between pixels."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


def encode_png(image: np.ndarray) -> bytes:
    """uint8 `[H, W]` or `[H, W, 3]` -> PNG bytes (fast compression)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """RGB uint8 `[H, W, 3]` -> JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(source: Path | io.BytesIO, label: str | Path) -> Image.Image:
    """Open without decoding, with the size checked."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked just below
            image = Image.open(source, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{label}: {_too_large(None)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{label}: {_why_not_an_image(source)}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{label}: a folder, not an image") from error
    except FileNotFoundError as error:
        raise ImageError(f"{label}: no such file") from error
    except Exception as error:  # as above
        raise ImageError(f"{label}: cannot be opened ({_reason(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width}x{image.height}"
        image.close()
        raise ImageError(f"{label}: {_too_large(size)}")
    return image


def _to_rgb(image: Image.Image, wide: Path | io.BytesIO | None, label: str) -> np.ndarray:
    """The loaded picture as RGB uint8 `[H, W, 3]`, not yet turned; `wide` is the source of 16-bit colour."""
    if image.mode in _SIXTEEN_BIT:
        grey = _eight_bits(np.asarray(image), label)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{label}: floating-point samples have no agreed range; convert it to 8 or 16 bits first")
    if wide is not None:  # Pillow would keep the upper byte, and turn 12-bit samples almost black
        data = wide.getvalue() if isinstance(wide, io.BytesIO) else wide.read_bytes()
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if samples is not None and samples.dtype == np.uint16 and samples.shape[:2] == (image.height, image.width):
            return _eight_bits(samples[..., ::-1], label)
    # In bands: Pillow keeps four bytes a pixel and hands them over in two copies, which a large photograph has no room for.
    out = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        part = image if step >= image.height else image.crop((0, top, image.width, bottom))
        out[top:bottom] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    return out


def _eight_bits(samples: np.ndarray, label: str) -> np.ndarray:
    """Samples of up to 16 bits, any shape -> uint8; those that never pass 4095 come from a 12-bit sensor."""
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{label}: samples from {low} to {high}; convert it to 8 or 16 bits first")
    scale = 255.0 / (4095 if high <= 4095 else 65535)
    return (samples.astype(np.float32) * scale + 0.5).astype(np.uint8)


def _frames(image: Image.Image) -> int:
    """Pictures in an animation; the pages of a TIFF and the second view of a camera's MPO are none."""
    return int(getattr(image, "n_frames", 1)) if image.format in ("GIF", "PNG", "WEBP") else 1


def _has_wide_colour(image: Image.Image) -> bool:
    """16 bits a channel, which shows in how the file's data is laid out (known before loading only)."""
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 when there is none, it is damaged, or Pillow has already turned the picture (TIFF).

    To be asked before loading. In a PNG only an eXIf chunk before the pixels counts, which the header shows too; for one
    behind them, or its stand-ins in text, Pillow decodes the whole picture.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block says nothing about the picture itself
        return 1


# What makes a stored picture `[H, W, 3]` upright, by EXIF orientation.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def _why_not_an_image(source: Path | io.BytesIO) -> str:
    empty = not source.getvalue() if isinstance(source, io.BytesIO) else source.stat().st_size == 0
    if empty:
        return "empty file"
    return f"not an image segdet reads ({' '.join(_FORMATS)})"


def _too_large(size: str | None) -> str:
    return f"{size or 'image'} has more than {MAX_PIXELS // 1_000_000} million pixels; cut it into parts"


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:120]
