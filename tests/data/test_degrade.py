"""Spoilt photographs: nothing moves, the same each time, and each in its own way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from segdet.data.loading import corruptions
from segdet.errors import InputError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    picture = rng.integers(100, 200, (61, 83, 1)).repeat(3, 2).astype(np.uint8)
    picture[:, 40:44] = 20
    return picture


@pytest.mark.parametrize("kind", [*corruptions.KINDS, "dark+blur", "half+jpeg+noise"])
def test_same_size_same_place_every_time(image: np.ndarray, kind: str) -> None:
    before = image.copy()
    spoil = corruptions.named(kind)
    out = spoil(image)
    assert out.shape == image.shape and out.dtype == np.uint8 and np.array_equal(out, spoil(image))
    assert np.array_equal(image, before) and not np.array_equal(out, image)
    columns = out.astype(float).mean(axis=(0, 2))
    assert 40 <= np.argmin(columns) < 44, "the dark line is where it was"


def test_each_does_what_it_says(image: np.ndarray) -> None:
    assert np.array_equal(corruptions.dark(image), np.maximum(image.astype(int) - 50, 0))
    blurred = gaussian_filter(image.astype(float), (1.7, 1.7, 0), mode="mirror", truncate=4 / 1.7)
    assert np.abs(corruptions.blur(image).astype(float) - blurred).max() <= 1.5
    assert np.array_equal(corruptions.named("dark+blur")(image), corruptions.blur(corruptions.dark(image)))
    detail = [
        np.abs(np.diff(x.astype(float), axis=0)).mean()
        for x in (image, corruptions.half(image), corruptions.blur(image))
    ]
    assert detail[0] > 1.5 * detail[1] and detail[0] > 3 * detail[2]
    shaded = corruptions.shadow(image).astype(float) / image
    assert shaded[-5:, :5].mean() == pytest.approx(0.5, abs=0.01) and shaded[:5, -5:].min() == 1
    grain = corruptions.noise(image).astype(float) - image
    assert abs(grain.mean()) < 0.5 and 11 < grain.std() < 13


def test_jpeg_is_what_a_phone_would_send() -> None:
    rng = np.random.default_rng(0)
    coloured = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coloured).save(buffer, "JPEG", quality=20)
    assert np.array_equal(corruptions.jpeg(coloured), np.asarray(Image.open(buffer)))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r'degrade=blurr: no such kind; did you mean "blur"'):
        corruptions.named("blurr")
