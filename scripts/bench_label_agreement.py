"""How well do two labels of the same crack agree? Some walls were photographed twice, and each photograph labelled for itself.

    segdet data check crack
    python scripts/bench_label_agreement.py --data crack --picture docs/figures/labelled-twice.jpg

`segdet data check` finds such pairs. Here the first photograph of each is laid over the second: an affine map through keypoints, refined
where that helps (ECC, Evangelidis and Psarakis 2008). Both labels are then compared where both photographs show the wall, as they
lie and once more with the first moved by up to two pixels to where they agree best. A pair counts when the photographs themselves
correlate after large-scale light is taken away; labels have no say in that. Prints Markdown: scores over all pixels with 95 % intervals by
bootstrap over pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from segdet.data.catalog import cards
from segdet.data.doctor import leaks
from segdet.data.doctor.features import extract
from segdet.data.doctor.verify import same_place
from segdet.data.geometry.rasterize import foreground, target
from segdet.data.images import read_image
from segdet.data.records import Record, iterate
from segdet.errors import InputError

FINE = 4  # the first label is drawn so many times larger before it is warped


@dataclass(frozen=True)
class Twice:
    """Two photographs of the same, in pixels `[H, W]` of the second.

    images: both, uint8 `[H, W, 3]`. labels: both, bool. shared: bool, where both show the wall. likeness: correlation of the
    photographs there, -1 to 1.
    """

    images: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, np.ndarray]
    shared: np.ndarray
    likeness: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="crack")
    parser.add_argument(
        "--likeness", type=float, nargs="*", default=[0.6, 0.0], help="pairs that correlate so much count"
    )
    parser.add_argument("--picture", type=Path, help="some pairs with both labels")
    asked = parser.parse_args()
    dataset = cards.load(asked.data)
    pairs = leaks.alike(dataset)
    if not pairs:
        raise InputError(f"run `segdet data check {asked.data}` first: it finds what was photographed twice")
    records = {record.image.absolute(): record for _, record in iterate(dataset)}
    found = [twice for a, b in pairs if (twice := laid_over(records[a], records[b])) is not None]
    both = [twice for twice in found if all((label & twice.shared).any() for label in twice.labels)]
    print("| pairs | | IoU | F1@2px |\n|---|---|---|---|")
    for least in asked.likeness:
        kept = [twice for twice in both if twice.likeness >= least]
        name = f"{len(kept)} of {len(pairs)}, photographs correlate by {least:g} or more"
        for how, reach in (("as they lie", 0), ("moved to where they agree best", 2)):
            print(f"| {name} | {how} | {' | '.join(scored(np.array([best(twice, reach) for twice in kept])))} |")
    if asked.picture:
        shown = sorted(
            (twice for twice in both if twice.likeness >= max(asked.likeness)), key=lambda t: -t.shared.mean()
        )
        cv2.imwrite(str(asked.picture), picture(shown[:5]), [cv2.IMWRITE_JPEG_QUALITY, 88])


def laid_over(first: Record, second: Record) -> Twice | None:
    """The first photograph over the second; None when no map between them is found."""
    images = read_image(first.image), read_image(second.image)
    match = same_place(extract(images[0], 3000), extract(images[1], 3000), second.size)
    if match is None:
        return None
    height, width = second.size
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in images]
    flat = [_flat(picture) for picture in grey]
    rough = np.vstack([match.transform, [0, 0, 1]])
    core = _shared(grey[0], grey[1], rough, 31)  # where all maps can be compared

    def likeness(transform: np.ndarray) -> float:
        moved = cv2.warpPerspective(flat[0], transform, (width, height), borderMode=cv2.BORDER_REFLECT)
        return float(np.corrcoef(moved[core], flat[1][core])[0, 1]) if core.sum() > 500 else -1.0

    transform = max((rough, *_refined(flat[0], flat[1], rough)), key=likeness)
    fine = np.diag([FINE, FINE, 1.0])
    drawn = cv2.resize(foreground(first), None, fx=FINE, fy=FINE, interpolation=cv2.INTER_LINEAR)
    # Pixel k of a picture FINE times as large has its centre at (k + 0.5) / FINE - 0.5.
    fine[:2, 2] = (FINE - 1) / 2
    large = cv2.warpPerspective(drawn, fine @ transform @ np.linalg.inv(fine), (width * FINE, height * FINE))
    label = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA) >= 128
    over = cv2.warpPerspective(images[0], transform, (width, height))
    labels = label, target(second, 1) > 0
    return Twice((over, images[1]), labels, _shared(grey[0], grey[1], transform, 9), likeness(transform))


def _flat(grey: np.ndarray) -> np.ndarray:
    """Slightly smoothed, and without light that changes over more than eight pixels."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    return np.asarray(smooth - cv2.GaussianBlur(smooth, (0, 0), 8.0))


def _shared(first: np.ndarray, second: np.ndarray, transform: np.ndarray, margin: int) -> np.ndarray:
    """Bool `[H, W]` of the second: what both show, `margin` pixels from where either ends or has the black corners of an export."""
    wide = np.ones((41, 41), np.uint8)  # a dark crack is no black corner
    shown = [cv2.morphologyEx((grey > 3).astype(np.uint8), cv2.MORPH_CLOSE, wide) for grey in (first, second)]
    moved = cv2.warpPerspective(shown[0] * 255, transform, second.shape[::-1]) > 250
    return np.asarray(cv2.erode((moved & (shown[1] > 0)).astype(np.uint8), np.ones((margin, margin))) > 0)


def _refined(first: np.ndarray, second: np.ndarray, rough: np.ndarray) -> Iterator[np.ndarray]:
    """Maps near `rough` that make the photographs more alike, where there are any."""
    back = np.linalg.inv(rough).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
    for kind in (cv2.MOTION_AFFINE, cv2.MOTION_HOMOGRAPHY):
        start = back[:2] if kind == cv2.MOTION_AFFINE else back
        try:
            found = cv2.findTransformECC(second, first, start.copy(), kind, stop, None, 5)[1]
        except cv2.error:  # it did not converge
            continue
        yield np.linalg.inv(np.vstack([found, [0, 0, 1]]) if kind == cv2.MOTION_AFFINE else found).astype(np.float64)


def best(twice: Twice, reach: int) -> np.ndarray:
    """`counts` with the first label moved by up to `reach` pixels to where IoU is highest."""
    ways = range(-reach, reach + 1)
    inside = cv2.erode(twice.shared.astype(np.uint8), np.ones((7, 7))) > 0  # what is moved in from outside is left out
    moved = (np.roll(twice.labels[0], (y, x), (0, 1)) for y in ways for x in ways)
    return max((counts(label & inside, twice.labels[1] & inside) for label in moved), key=lambda c: c[0] / max(1, c[1]))


def counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In both, in either; of the first near the second, of the first; of the second near the first, of the second."""
    near = [distance_transform_edt(~label) <= 2 if label.any() else label for label in (first, second)]
    return np.array(
        [(first & second).sum(), (first | second).sum(), (first & near[1]).sum(), first.sum(), (second & near[0]).sum(),
         second.sum()],
        float,
    )  # fmt: skip


def scored(each: np.ndarray) -> list[str]:
    """Cells of IoU and F1@2px, of counts `[N, 6]` together."""

    def both(chosen: np.ndarray) -> tuple[float, float]:
        total = chosen.sum(axis=0)
        precision, recall = total[2] / total[3], total[4] / total[5]
        return total[0] / total[1], 2 * precision * recall / (precision + recall)

    rng = np.random.default_rng(0)
    again = [both(each[rng.integers(len(each), size=len(each))]) for _ in range(1000)]
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    return [f"{value:.3f} ({a:.3f} to {b:.3f})" for value, a, b in zip(both(each), low, high, strict=True)]


def picture(pairs: Sequence[Twice]) -> np.ndarray:
    """BGR: a row for each pair, the photographs with their own label's outline and both labels together."""
    rows = []
    for twice in pairs:
        cells = []
        for image, label, colour in zip(twice.images, twice.labels, ((255, 0, 0), (0, 200, 0)), strict=True):
            outline, _ = cv2.findContours(label.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cells.append(cv2.drawContours(image.copy(), outline, -1, colour, 1))
        shades = [255 * (label & twice.shared) for label in twice.labels]
        cells.append(np.stack([*shades, 60 * twice.shared], axis=2).astype(np.uint8))
        rows.append(cv2.resize(np.hstack(cells), (960, 320), interpolation=cv2.INTER_AREA))
    return cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)


if __name__ == "__main__":
    main()
