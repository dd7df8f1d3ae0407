"""What only shows from farther away: a large photograph looked at again at half its size, a quarter and so on.

A network finds what is about as many pixels wide as what it was trained on; in a photograph with more pixels the same crack is
wider. But a smaller copy loses hairlines, and thin cracks are marked too wide in it. So a coarser look only adds what the finer ones have
not found: surely marked, at some distance from all that is marked already, and not thin itself; from there it grows to what it
marks nearby.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from segdet.data.images import resize

FOUND = 0.5  # confidence from which something is found; not the threshold, so confidences do not depend on that
SURE = 0.88  # confidence that a new find reaches: two logits above
APART = 2.0  # pixels of the coarser image: a region nearer to a detected one is the same object, marked wider
THICK = 1.5  # pixels of the coarser image: a new find has room for a disc of this radius


def sides(size: tuple[int, ...], down_to: int | None) -> list[tuple[int, int]]:
    """(height, width) of the coarser looks, each half of the one before, whose longer side is `down_to` pixels or more.

    Args:
        down_to: None or 0: no coarser looks.
    """
    height, width = size
    found: list[tuple[int, int]] = []
    while down_to and max(height, width) >= 2 * down_to:
        height, width = max(1, round(height / 2)), max(1, round(width / 2))
        found.append((height, width))
    return found


def multiscale_confidence(
    image: np.ndarray, confidence: np.ndarray, down_to: int | None, look: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Confidence float32 `[H, W]` of an image and its coarser looks together.

    Args:
        image: RGB uint8 `[H, W, 3]`.
        confidence: what the network says of it at its own size, float32 `[H, W]`.
        down_to: longer side of the smallest look, in pixels.
        look: the network: image uint8 `[h, w, 3]` -> confidence float32 `[h, w]`.
    """
    for height, width in sides(image.shape[:2], down_to):
        coarse = look(resize(image, height, width))
        # Averaging the confidence instead would lose hairlines, and they would be found again, too wide.
        marked = cv2.resize((confidence >= FOUND).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        new = added(marked > 0, coarse)
        if new.any():
            where = cv2.resize(new.view(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            confidence = np.maximum(confidence, resize(coarse, *image.shape[:2]) * where)
    return confidence


def added(found: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """bool `[h, w]`: where the confidence `coarse` of a coarser look counts beside what is `found` (bool) already."""
    seeds = (coarse >= SURE) & ~_near(found, APART)
    seeds = _near(~_near(~seeds, THICK), THICK) & seeds
    return (coarse >= FOUND) & _near(seeds, 2 * APART) if seeds.any() else seeds


def _near(mask: np.ndarray, reach: float) -> np.ndarray:
    """bool `[h, w]`: within `reach` pixels of what is set."""
    if not mask.any():
        return np.zeros_like(mask)
    return np.asarray(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5) <= reach)
