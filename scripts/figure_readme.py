"""The picture in the README: photographs of the crack set that the shipped model was not trained on, and what it marks in them.

python scripts/figure_readme.py docs/figures/crack.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import segdet
from segdet.data.catalog import cards
from segdet.data.images import read_image, resize
from segdet.files import replacing
from segdet.inference.predict.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
SIDE, GAP = 272, 6


def columns(model: Predictor, numbers: list[str]) -> np.ndarray:
    """uint8 `[H, W, 3]`: each photograph above its overlay."""
    photos = {record.image.name.split(".")[0]: record.image for record in cards.load("crack").splits["val"]}
    shown = []
    for number in numbers:
        image = read_image(photos[number])
        pair = [resize(picture, SIDE, SIDE) for picture in (image, model.predict(image).overlay())]
        shown.append(np.vstack([pair[0], np.full((GAP, SIDE, 3), 255, np.uint8), pair[1]]))
    bar = np.full((shown[0].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([part for picture in shown for part in (picture, bar)][:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--numbers", nargs="*", default=["2115", "3531", "3269", "3441", "2122"])
    asked = parser.parse_args()
    picture = columns(segdet.load(ROOT / "exports" / "crack.onnx"), asked.numbers)
    with replacing(asked.out) as file:
        file.write_bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())


if __name__ == "__main__":
    main()
