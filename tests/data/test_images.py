"""Reading images: every kind a camera, a scanner or an export makes, and a clear refusal of the rest."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from segdet.data import images
from segdet.data.images import (
    MAX_PIXELS,
    ImageError,
    crop_resize,
    encode_jpeg,
    encode_png,
    image_size,
    is_image,
    read_image,
    resize,
)
from segdet.errors import InputError
from tests.drawn import crack_picture

ROOT = Path(__file__).parents[2]

# What each EXIF orientation asks a viewer to do with the stored pixels.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    return crack_picture(1, height, width)[0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def blank_png(width: int, height: int) -> bytes:
    """A valid all-black 1-bit PNG, however large, of few bytes."""
    rows = bytes(((width + 7) // 8 + 1) * height)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows, 1))
        + png_chunk(b"IEND", b"")
    )


def deep_png(samples: np.ndarray) -> bytes:
    """A 16-bit PNG, grey `[H, W]` or colour `[H, W, 3]`."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if samples.ndim == 2 else 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int, tmp_path: Path) -> None:
    options: dict[str, object] = {"WEBP": {"lossless": True}}.get(kind, {})
    stored = Image.open(io.BytesIO(encoded(Image.fromarray(picture()), kind, **options)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"wall.{kind.lower()}"
    Image.fromarray(picture()).save(path, kind, exif=exif, **options)
    image = read_image(path)
    assert (image == UPRIGHT[orientation](np.asarray(stored.convert("RGB")))).all()
    with Image.open(path) as opened:
        assert (image == np.asarray(ImageOps.exif_transpose(opened))).all()
    assert image_size(path) == image.shape[:2] == ((40, 24) if orientation >= 5 else (24, 40))


def turned_png(kind: str) -> bytes:
    """A PNG of 24x40 whose orientation (6) stands where one has to decode, or to look into XMP, to see it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    raw = b"Raw profile type exif\0\0" + zlib.compress(
        f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}\n".encode()
    )
    chunk = {
        "XMP": png_chunk(b"iTXt", xmp),
        "raw profile": png_chunk(b"zTXt", raw),
        "behind the pixels": png_chunk(b"eXIf", exif.tobytes(8)[6:]),
    }[kind]
    plain = encoded(Image.fromarray(picture()), "PNG")
    place = plain.index(b"IEND" if kind == "behind the pixels" else b"IDAT") - 4
    return plain[:place] + chunk + plain[place:]


@pytest.mark.parametrize("kind", ["XMP", "raw profile", "behind the pixels"])
def test_the_header_and_the_picture_agree_on_the_size_of_a_png(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    path.write_bytes(turned_png(kind))
    with Image.open(path) as opened:
        assert opened.getexif()[0x0112] == 6
    assert image_size(path) == (24, 40) and (read_image(path) == picture()).all()


def test_a_16_bit_png_is_scaled_by_its_full_range(tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(deep_png(samples))
    image = read_image(tmp_path / "a.png")
    assert (
        image.shape == (24, 40, 3) and (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
    )
    assert np.abs(image[..., 0] - samples / 257).max() <= 0.51
    assert image_size(tmp_path / "a.png") == (24, 40)


def test_a_12_bit_sensor_in_a_16_bit_png_is_not_black(tmp_path: Path) -> None:
    samples = np.linspace(0, 4095, 24 * 40).reshape(24, 40).astype(np.uint16)
    image = read_image(deep_png(samples))
    assert np.abs(image[..., 0] - samples / 4095 * 255).max() <= 0.51


def test_16_bit_colour_is_scaled() -> None:
    samples = np.linspace(0, 65535, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint16)
    assert np.abs(read_image(deep_png(samples)) - samples / 257).max() <= 1


def test_12_bit_colour_in_a_16_bit_png_is_not_black() -> None:
    samples = np.linspace(0, 4095, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint16)
    try:
        image = read_image(deep_png(samples))
    except ImageError as refused:  # better than showing it sixteen times too dark
        assert "16" in str(refused)
    else:
        assert np.abs(image - samples / 4095 * 255).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_a_16_bit_tiff_is_scaled(mode: str, tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    Image.frombytes(mode, (40, 24), samples.astype(">u2" if mode == "I;16B" else "<u2").tobytes()).save(
        tmp_path / "a.tif"
    )
    assert np.abs(read_image(tmp_path / "a.tif")[..., 0] - samples / 257).max() <= 0.51


def test_32_bit_samples_out_of_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="70000"):
        read_image(tmp_path / "a.tif")


def test_a_floating_point_tiff_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="floating-point") as caught:
        read_image(tmp_path / "a.tif")
    assert str(tmp_path / "a.tif") in str(caught.value)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    # 0 = no ink: white; full cyan and yellow: green.
    ink = np.zeros((16, 32, 4), np.uint8)
    ink[:, 16:] = (255, 0, 255, 0)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=98)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert (image[:, :12] > 245).all()
    assert (np.abs(image[:, 20:] - [0, 255, 0]) < 15).all()
    assert image_size(tmp_path / "a.jpg") == (16, 32)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    indices = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    indices.putpalette([10, 20, 30, 200, 100, 50, 0, 255, 0])
    indices.save(tmp_path / "a.png", transparency=1)
    expected = [[[10, 20, 30], [200, 100, 50]], [[0, 255, 0], [200, 100, 50]]]
    assert read_image(tmp_path / "a.png").tolist() == expected
    assert image_size(tmp_path / "a.png") == (2, 2)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).random((5, 9)) < 0.5
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == np.where(bits, 255, 0)[..., None]).all()


def test_alpha_is_dropped_and_the_stored_colour_stays(tmp_path: Path) -> None:
    colour = np.dstack([picture(), np.random.default_rng(0).integers(0, 256, (24, 40), np.uint8)])
    Image.fromarray(colour, "RGBA").save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == picture()).all()
    Image.fromarray(np.ascontiguousarray(colour[..., [0, 3]]), "LA").save(tmp_path / "b.png")
    assert (read_image(tmp_path / "b.png") == picture()[..., :1]).all()


def test_bytes_and_paths_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(picture()))
    assert (read_image(encode_png(picture())) == picture()).all()
    assert (read_image(str(tmp_path / "a.png")) == read_image(tmp_path / "a.png")).all()


def test_one_pixel_is_an_image() -> None:
    image = read_image(encode_png(np.array([[[1, 2, 3]]], np.uint8)))
    assert image.tolist() == [[[1, 2, 3]]] and image.dtype == np.uint8


def test_the_first_page_of_many_is_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture()), Image.fromarray(255 - picture(10, 12))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=pages[1:], quality=95)
    assert (read_image(tmp_path / "a.tif") == picture()).all()
    assert np.abs(read_image(tmp_path / "a.mpo").astype(int) - picture()).mean() < 6
    assert image_size(tmp_path / "a.tif") == image_size(tmp_path / "a.mpo") == (24, 40)


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp")])
def test_an_animation_is_refused_and_a_single_frame_read(kind: str, suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 12, 3), value, np.uint8)) for value in (0, 255, 90)]
    moving, still = tmp_path / f"moving.{suffix}", tmp_path / f"still.{suffix}"
    frames[0].save(moving, kind, save_all=True, append_images=frames[1:])
    frames[1].save(still, kind)
    with pytest.raises(ImageError, match="animation of 3 frames") as caught:
        read_image(moving)
    assert str(moving) in str(caught.value)
    assert (read_image(still) > 250).all()
    assert image_size(still) == (8, 12)


def test_a_truncated_jpeg_is_refused_by_name_but_its_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    whole = encode_jpeg(picture(64, 64))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged") as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert image_size(path) == (64, 64)


def test_a_truncated_png_is_refused_by_name_but_its_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    whole = encode_png(picture(64, 64))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="damaged") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert image_size(path) == (64, 64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"just some words\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (b"%PDF-1.7\n", "not an image"),
        (bytes(1000), "not an image"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "not an image"),  # Pillow could, segdet does not offer it
        (encoded(Image.new("RGB", (4, 4)), "EPS"), "not an image"),  # would start another program
    ],
)
def test_what_is_not_an_image_is_refused_by_name(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "wall.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=reason) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(content, "upload 7")
    assert str(caught.value).startswith("upload 7: ")


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    assert issubclass(ImageError, InputError)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match="a folder") as caught:
            read(tmp_path)
        assert str(tmp_path) in str(caught.value)
        with pytest.raises(ImageError, match="no such file") as caught:
            read(tmp_path / "none.png")
        assert str(tmp_path / "none.png") in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_broken_exif_does_not_hide_the_size_of_an_image(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"wall.{kind.lower()}"
    Image.fromarray(picture()).save(path, kind, exif=b"Exif\0\0this is no TIFF header")
    assert image_size(path) == (24, 40)


def in_a_process(code: str, *arguments: object) -> str:
    """What `code` prints in a fresh Python; `used()` in it is the memory taken since its start, in MB."""
    start = (
        "import sys\n"
        "from segdet.data.images import ImageError, image_size, read_image\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "before = peak()\n"
        "used = lambda: peak() - before\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_decompression_bomb_is_refused_without_taking_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(blank_png(20_000, 20_000))
    (tmp_path / "limit.png").write_bytes(blank_png(1000, MAX_PIXELS // 1000 + 1))
    out = in_a_process(
        "for path in sys.argv[1:]:\n"
        "    for read in (read_image, image_size, lambda p: read_image(open(p, 'rb').read(), p)):\n"
        "        try:\n"
        "            print('read', read(path))\n"
        "        except ImageError as error:\n"
        "            assert path in str(error) and 'million pixels' in str(error), error\n"
        "print(used() < 30)",
        tmp_path / "bomb.png",
        tmp_path / "limit.png",
    )
    assert out == "True"


def test_the_size_of_a_large_png_is_read_without_decoding_it(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(blank_png(13_000, 13_000))
    out = in_a_process("print(image_size(sys.argv[1]), used() < 30)", tmp_path / "large.png")
    assert out == "(13000, 13000) True"


def small_files() -> dict[str, bytes]:
    """One small file of each kind."""
    wall = Image.fromarray(picture(6, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "jpeg": encoded(wall, "JPEG", exif=exif),
        "png": encoded(wall, "PNG", exif=exif),
        "palette": encoded(wall.quantize(4), "PNG"),
        "webp": encoded(wall, "WEBP", exif=exif),
        "bmp": encoded(wall, "BMP"),
        "gif": encoded(wall.quantize(4), "GIF"),
        "tiff": encoded(wall, "TIFF", exif=exif),
        "lzw": encoded(wall, "TIFF", compression="tiff_lzw"),
    }


SMALL = small_files()


def tried(content: bytes, path: Path) -> None:
    """Read `content` in every way: an image, or an ImageError of one line; anything else fails the test."""
    path.write_bytes(content)
    try:
        height, width = image_size(path)
        if height * width > 1_000_000:  # a changed header may promise more than is quick to decode
            return
    except ImageError as error:
        assert "\n" not in str(error)
    for source in (path, content):
        try:
            image = read_image(source)
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@pytest.mark.parametrize("kind", SMALL)
def test_an_image_cut_off_anywhere_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    step = 1 + len(SMALL[kind]) // 150
    for length in range(0, len(SMALL[kind]), step):
        tried(SMALL[kind][:length], tmp_path / "cut")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "changed"


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    kind=st.sampled_from(sorted(SMALL)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_an_image_with_changed_bytes_is_read_or_refused(
    scratch: Path, kind: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(SMALL[kind])
    for position, value in changes:
        content[position % len(content)] = value
    tried(bytes(content), scratch)


@pytest.mark.parametrize("value", [33, 44])
def test_a_gif_whose_last_byte_starts_another_block_is_read_or_refused(value: int, tmp_path: Path) -> None:
    """33 begins an extension and 44 a picture; the decoder runs off the end of the file looking for it."""
    tried(SMALL["gif"][:-1] + bytes([value]), tmp_path / "wall.gif")


def test_file_names_tell_images_from_other_files() -> None:
    for name in ("a.jpg", "a.JPG", "a.jpeg", "a.png", "a.Tif", "a.tiff", "a.bmp", "a.webp", "a.rf.0123.jpg"):
        assert is_image(Path(name)), name
    for name in ("a.txt", "a", "jpg", ".hidden.jpg", "._a.jpg", "a.jpg.txt", "a.json"):
        assert not is_image(Path(name)), name


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((120, 240, 3), np.uint8)
    stripes[:, ::2] = 255
    for picture in (stripes, stripes[..., 0]):
        small = resize(picture, 30, 60)
        assert small.shape == (30, 60, *picture.shape[2:]) and small.dtype == np.uint8
        assert np.abs(small.astype(int) - 127).max() <= 12  # at the edges; within:
        assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 2
    # A crack of one pixel leaves its share of darkness behind, wherever it lies.
    for column in range(100, 108):
        wall = np.full((64, 208), 200, np.uint8)
        wall[:, column] = 0
        lost = 200 * 26 - resize(wall, 8, 26).astype(int).sum(axis=1)
        assert (np.abs(lost - 25) <= 8).all()


def test_growing_is_smooth_and_keeps_flat_areas() -> None:
    assert (resize(np.full((3, 4, 3), 77, np.uint8), 30, 41) == 77).all()
    ramp = resize(np.array([[0, 255]], np.uint8), 1, 64)[0].astype(int)
    assert (np.diff(ramp) >= 0).all() and np.diff(ramp).max() < 10


def test_the_same_size_returns_the_same_array() -> None:
    image = picture()
    assert resize(image, 24, 40) is image


def test_part_of_an_image_is_resized_without_its_surroundings() -> None:
    image = picture(48, 64)
    assert (crop_resize(image, (0, 0, 64, 48), 12, 16) == resize(image, 12, 16)).all()
    assert (crop_resize(image, (8, 4, 40, 36), 32, 32) == image[4:36, 8:40]).all()
    halves = np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1)
    assert not crop_resize(halves, (3.25, 0, 28.5, 1), 1, 10).any()


def test_png_keeps_every_pixel_and_jpeg_nearly() -> None:
    image = picture(48, 64)
    assert (read_image(encode_png(image)) == image).all()
    assert (read_image(encode_png(image[..., 0])) == image[..., :1]).all()
    assert np.abs(read_image(encode_jpeg(image, 95)).astype(int) - image).mean() < 5
    assert len(encode_jpeg(image, 30)) < len(encode_jpeg(image, 95))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "P"])
def test_large_pictures_are_handed_over_in_bands(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels in bands of a few rows as at once."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (37, 23, 3), dtype=np.uint8)).convert(mode)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(file)
    whole = images.read_image(file)
    monkeypatch.setattr(images, "_BAND_PIXELS", 100)
    assert np.array_equal(images.read_image(file), whole) and whole.shape == (37, 23, 3)
