"""TIFFs of every layout: read as tifffile reads them, whole and in windows, or refused with the reason."""

from __future__ import annotations

import importlib.util
import io
import itertools
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segdet.data import tiff
from segdet.data.images import ImageError, header, read_image, read_stored
from segdet.data.tiff import TiffPicture, bands_of
from segdet.errors import InvalidOption

SIZE = (37, 45)
CODECS = importlib.util.find_spec("imagecodecs") is not None
DTYPES = {"8": np.uint8, "16": np.uint16, "12 in 16": np.uint16, "float": np.float32}
TOPS = {"8": 255, "16": 65535, "12 in 16": 4095}
STORAGE = [(None, None), ("packbits", None), ("zlib", None), ("zlib", 2)]
STORAGE += [("lzw", None), ("lzw", 2), ("zstd", 2), ("jpeg", None)] if CODECS else []
ALPHAS: tuple[str | None, ...] = (None, "unassalpha", "assocalpha")


def samples_of(bits: str, bands: int, smooth: bool) -> np.ndarray:
    """`[H, W, bands]`; smooth, where JPEG has to keep them."""
    rng = np.random.default_rng(bands)
    if bits == "float":
        return rng.random((*SIZE, bands), np.float32)
    if smooth:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        return np.stack([(y * 3 + x * (band + 1)) % 200 for band in range(bands)], axis=2).astype(np.uint8) // 2 + 60
    return rng.integers(0, TOPS[bits] + 1, (*SIZE, bands)).astype(DTYPES[bits])


def layouts(bits: str, bands: int) -> Iterator[dict[str, Any]]:
    """tifffile's options for every layout of so many bands."""
    for (compression, predictor), planar, photometric, tile, alpha in itertools.product(
        STORAGE, ("contig", "separate"), ("minisblack", "miniswhite", "rgb"), (None, (16, 16)), ALPHAS
    ):
        extra = bands - (3 if photometric == "rgb" else 1)
        if extra < 0 or (alpha and extra != 1) or (bands == 1 and planar == "separate"):
            continue
        if compression == "jpeg" and (bits != "8" or (planar == "contig" and bands > 4)):
            continue
        yield {
            "compression": compression,
            "predictor": (3 if bits == "float" else 2) if predictor and CODECS else None,
            "photometric": photometric,
            "planarconfig": planar if bands > 1 else None,
            "metadata": None,
            **({"tile": tile} if tile else {"rowsperstrip": 7}),
            **({"extrasamples": [alpha]} if alpha else {}),
        }


def encoded(samples: np.ndarray, options: dict[str, Any]) -> bytes:
    data = samples[..., 0] if samples.shape[2] == 1 else samples
    if options.get("planarconfig") == "separate":
        data = samples.transpose(2, 0, 1)
    stream = io.BytesIO()
    tifffile.imwrite(stream, data, **options)
    return stream.getvalue()


def expected(content: bytes, bits: str, options: dict[str, Any]) -> np.ndarray:
    """What tifffile's own reading of the file looks like: RGB float64 `[H, W, 3]`."""
    stored = np.asarray(tifffile.imread(io.BytesIO(content)))
    if stored.ndim == 2:
        stored = stored[..., None]
    elif options["planarconfig"] == "separate":
        stored = stored.transpose(1, 2, 0)
    shown = stored[..., :3] if stored.shape[2] >= 3 else np.repeat(stored[..., :1], 3, axis=2)
    grey = shown.astype(np.float64) / TOPS[bits] * 255
    return 255 - grey if options["photometric"] == "miniswhite" else grey


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("bits", DTYPES)
def test_every_layout_is_read_as_tifffile_reads_it_or_refused(bits: str, bands: int, tmp_path: Path) -> None:
    read = refused = 0
    for options in layouts(bits, bands):
        jpeg = options["compression"] == "jpeg"
        try:
            content = encoded(samples_of(bits, bands, jpeg), options)
        except ValueError:  # tifffile does not write every layout
            continue
        file = tmp_path / "a.tif"
        file.write_bytes(content)
        try:
            pixels = read_image(file)
        except ImageError as error:
            assert bits == "float" or jpeg, (options, error)
            assert ("floating-point" if bits == "float" else "JPEG compression of this layout") in str(error)
            refused += 1
            continue
        assert np.abs(pixels - expected(content, bits, options)).max() <= (8 if jpeg else 0.51), options
        assert np.array_equal(read_image(content), pixels), options
        assert header(content).size == header(file).size == SIZE
        picture = TiffPicture(file)
        for top, bottom in ((0, SIZE[0]), (5, 6), (13, 36)):
            rows = picture.read(top, bottom).astype(int)
            assert np.abs(rows - pixels[top:bottom]).max() <= (3 if jpeg else 0), options  # JPEG: two decoders
        picture.close()
        read += 1
    assert (refused and not read) if bits == "float" else read >= 6


def test_every_layout_is_read_or_refused_by_name_without_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tifffile alone does not unpack is read by Pillow or OpenCV where these read it right."""

    monkeypatch.setattr(TiffPicture, "_piece", _without_codecs(TiffPicture._piece))
    for bits, bands in itertools.product(("8", "16", "12 in 16"), (1, 3, 4, 5)):
        for options in layouts(bits, bands):
            if options["compression"] == "jpeg":
                continue
            content = encoded(samples_of(bits, bands, False), options)
            try:
                pixels = read_image(content)
            except ImageError as error:
                assert "pip install" in str(error) and options["compression"] in ("lzw", "zstd"), (options, error)
            else:
                assert np.abs(pixels - expected(content, bits, options)).max() <= 0.51, options


def _without_codecs(piece: Any) -> Any:
    def decode(self: TiffPicture, index: int) -> Any:
        if self._page.compression in (5, 50000):
            raise tiff.MissingCodec(f"{self.label}: LZW compression needs a package: pip install 'segdet[tiff]'")
        return piece(self, index)

    return decode


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_the_orientation_tag_turns_a_planar_file_like_any_other(value: int, planar: str) -> None:
    samples = samples_of("8", 3, False)
    options = {"photometric": "rgb", "metadata": None, "extratags": [(274, 3, 1, value, True)]}
    plain = read_image(encoded(samples, {**options, "planarconfig": "contig"}))
    deep = encoded(samples.astype(np.uint16) * 257, {**options, "planarconfig": planar})
    assert np.array_equal(read_image(deep), plain)
    assert header(deep).size == plain.shape[:2]


def test_bands_are_chosen_by_number(tmp_path: Path) -> None:
    samples = samples_of("16", 5, False)
    content = encoded(samples, {"photometric": "minisblack", "planarconfig": "separate", "metadata": None})
    (tmp_path / "a.tif").write_bytes(content)
    assert np.abs(read_image(content, bands=(5, 3, 2)) - samples[..., [4, 2, 1]] / 257).max() <= 0.51
    assert np.abs(read_image(tmp_path / "a.tif", bands=(4,)) - samples[..., [3, 3, 3]] / 257).max() <= 0.51
    plain = encoded(samples_of("8", 3, False), {"photometric": "rgb", "planarconfig": "contig", "metadata": None})
    assert np.array_equal(read_image(plain, bands=(3, 2, 1)), read_image(plain)[..., ::-1])
    with pytest.raises(ImageError, match=r"wall: bands=6,1,2: the file has 5 bands"):
        read_image(content, "wall", bands=(6, 1, 2))
    with pytest.raises(ImageError, match="TIFF files only"):
        read_image(b"\xff\xd8\xff", "wall", bands=(3, 2, 1))
    assert bands_of("4, 3,2") == (4, 3, 2) and bands_of("1") == (1,)
    for text in ("", "0", "1,2", "a", "1,2,3,4", "-1", "²"):
        with pytest.raises(InvalidOption, match="one or three numbers"):
            bands_of(text)


def test_refusals_say_how_many_bands_of_which_type_and_what_to_do() -> None:
    for dtype, count, words in ((np.float32, 3, "3 bands of 32-bit floating"), (np.int8, 1, "1 band of 8-bit samples")):
        options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
        content = encoded(np.zeros((*SIZE, count), dtype), options)
        for refusing in (read_image, header):
            with pytest.raises(ImageError, match=words) as caught:
                refusing(content, "wall")
            assert "gdal_translate" in str(caught.value) and str(caught.value).startswith("wall: ")


def test_a_piece_that_unpacks_to_more_than_its_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    samples = samples_of("16", 5, False)
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib", "metadata": None}
    content = encoded(samples, options)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    bomb = zlib.compress(bytes(20 * samples.nbytes))
    assert len(bomb) <= count
    padded = content[:offset] + bomb + content[offset + len(bomb) :]
    with pytest.raises(ImageError, match="damaged TIFF"):
        read_image(padded)


def test_a_mask_in_planes_is_read_and_a_deep_one_refused(tmp_path: Path) -> None:
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[5:20] = 2
    options = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    (tmp_path / "a.tif").write_bytes(encoded(mask, options))
    assert np.array_equal(read_stored(tmp_path / "a.tif").samples, mask[..., 0])
    (tmp_path / "b.tif").write_bytes(encoded(mask.astype(np.uint16), options))
    with pytest.raises(ImageError, match="3 bands of 16 bits; a mask is one band"):
        read_stored(tmp_path / "b.tif")


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("bits", ["8", "16"])
def test_changed_bytes_are_refused_or_give_one_answer(bits: str, bands: int) -> None:
    """Memory that nobody wrote would differ between two readings."""
    rng = random.Random(bands)
    every = list(layouts(bits, bands))
    for _ in range(60):
        options = rng.choice(every)
        try:
            content = bytearray(encoded(samples_of(bits, bands, options["compression"] == "jpeg"), options))
        except ValueError:
            continue
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(min(len(content), 400) if rng.random() < 0.6 else len(content))] = rng.randrange(256)
        if rng.random() < 0.2:
            del content[rng.randrange(8, len(content)) :]
        answers = []
        for fill in (0, 255, 90):
            litter = [np.full(size, fill, np.uint8) for size in (5_000, 20_000, 80_000) for _ in range(20)]
            del litter
            try:
                height, width = header(bytes(content)).size
                if height * width > 1_000_000:
                    answers.append(b"large")
                    continue
                answers.append(read_image(bytes(content)).tobytes())
            except ImageError as error:
                assert "\n" not in str(error)
                answers.append(str(error).encode())
        assert len({*answers}) == 1, options
