"""Pictures of anything but a cracked wall, drawn: what a crack model must stay silent on.

Opaque things of every size lie over each other, the largest first ("dead leaves": Lee, Mumford and Huang 2001, IJCV 41),
which gives the edges, corners and T-junctions that photographs have. Over them come wires, grass, hair, letters and grids: thin
dark lines that are no cracks.
"""

from __future__ import annotations

import cv2
import numpy as np

from segdet.data.synthetic import backgrounds
from segdet.data.synthetic.backgrounds import blend, curve, darken, fractal, half_plane, line_mask, noise, strokes, tint

Rng = np.random.Generator


def draw_scene(rng: Rng, height: int, width: int) -> np.ndarray:
    """One picture without a crack: RGB uint8 `[H, W, 3]`, sides of at least 64 pixels."""
    unit = min(height, width) / 320
    image = _surface(rng, height, width, unit)
    largest = rng.uniform(0.2, 0.8) * min(height, width)
    smallest = rng.uniform(3, 20) * unit
    count = int(np.exp(rng.uniform(np.log(6), np.log(120))))
    sizes = np.sort(_sizes(rng, count, smallest, largest))[::-1]
    for size in sizes:
        _thing(rng, image, float(size), unit)
    for chance, add in ((0.35, _wires), (0.25, _grass), (0.3, _letters), (0.25, _grid), (0.2, _hatching)):
        if rng.random() < chance:
            add(rng, image, unit)
    if rng.random() < 0.3:  # out of focus in part, as behind something near
        soft = cv2.GaussianBlur(image, (0, 0), unit * rng.uniform(1, 5))
        mask = half_plane(height, width, rng.uniform(0, 2 * np.pi), rng.uniform(0, width), 0.3 * width)
        blend(image, mask, soft)
    return backgrounds.photograph(rng, image)


def _sizes(rng: Rng, count: int, smallest: float, largest: float) -> np.ndarray:
    """`count` diameters with density ~ 1 / size^2: many small things, few large ones."""
    share = rng.random(count)
    return np.asarray(1 / (share / smallest + (1 - share) / max(largest, smallest)))


def _colour(rng: Rng) -> np.ndarray:
    grey = rng.uniform(10, 245)
    return np.clip(grey * tint(rng, rng.choice([0.03, 0.15, 0.4])), 0, 255).astype(np.float32)


def _surface(rng: Rng, height: int, width: int, unit: float) -> np.ndarray:
    """Something evenly textured, float32 `[H, W, 3]`: sky, cloth, bark, soil, metal, or a wall."""
    if rng.random() < 0.2:
        return np.array(backgrounds.background(rng, height, width, unit, rng.uniform(0, 2 * np.pi)), np.float32)
    image: np.ndarray = np.empty((height, width, 3), np.float32)
    image[:] = _colour(rng)
    if rng.random() < 0.7:  # shading
        blend(image, half_plane(height, width, rng.uniform(0, 2 * np.pi), rng.uniform(0, width), width), _colour(rng))
    kind = rng.random()
    if kind < 0.35:
        field = fractal(rng, height, width, unit * np.exp(rng.uniform(0.5, 5)), 6, rng.uniform(0.4, 0.85))
        image += (rng.uniform(2, 40) * field)[..., None]
    elif kind < 0.6:
        angle = rng.uniform(0, np.pi)
        field = strokes(rng, height, width, unit * rng.uniform(0.8, 5), unit * rng.uniform(20, 120), angle)
        image += (rng.uniform(2, 35) * field)[..., None]
    elif kind < 0.8:
        image += (rng.uniform(1, 25) * noise(rng, height, width, unit * rng.uniform(1, 4)))[..., None]
    return image


def _outline(rng: Rng, size: float) -> np.ndarray:
    """Corners float64 `[P, 2]` of something `size` pixels large around 0: round, square, long or lumpy."""
    kind = rng.random()
    turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.6 else 0.0
    if kind < 0.35:
        angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        points = np.stack([np.cos(angles), np.sin(angles)], -1)
    elif kind < 0.7:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 16))))
        points = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(0.4, 1, (len(angles), 1))
    slim = np.exp(rng.uniform(np.log(0.06), 0)) if rng.random() < 0.35 else rng.uniform(0.5, 1)
    points = points * [1, slim] * size / 2
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(points @ axes)


def _thing(rng: Rng, image: np.ndarray, size: float, unit: float) -> None:
    """Something opaque anywhere, with its own surface, sometimes with an outline or a shadow, in place."""
    height, width = image.shape[:2]
    outline = _outline(rng, size) + rng.uniform(-0.1, 1.1, 2) * [width, height]
    low = np.floor(outline.min(axis=0)).astype(int) - 6
    high = np.ceil(outline.max(axis=0)).astype(int) + 7
    x1, y1 = np.maximum(low, 0)
    x2, y2 = np.minimum(high, [width, height])
    if x2 - x1 < 8 or y2 - y1 < 8:
        return
    part = image[y1:y2, x1:x2]
    points = np.round((outline - [x1, y1]) * 16).astype(np.int32)
    mask: np.ndarray = np.zeros(part.shape[:2], np.float32)
    cv2.fillPoly(mask, [points], 1.0, cv2.LINE_8, 4)
    if rng.random() < 0.4:
        drop = (int(rng.normal(0, 4) * unit), int(rng.normal(0, 4) * unit))
        darken(
            part, cv2.GaussianBlur(np.roll(mask, drop, (0, 1)), (0, 0), unit * rng.uniform(0.7, 5)) * rng.random(), 0.3
        )
    mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(0.4, 1.6)))
    blend(part, mask, _surface(rng, part.shape[0], part.shape[1], unit))
    if rng.random() < 0.25:
        rim: np.ndarray = np.zeros(part.shape[:2], np.uint8)
        cv2.polylines(rim, [points], True, 255, max(1, round(unit * rng.uniform(0.7, 4))), cv2.LINE_AA, 4)
        blend(part, rim.astype(np.float32) / 255, rng.uniform(5, 70) * tint(rng, 0.1))


def _wires(rng: Rng, image: np.ndarray, unit: float) -> None:
    height, width = image.shape[:2]
    colour = rng.choice([rng.uniform(5, 70), rng.uniform(120, 250)], p=[0.75, 0.25]) * tint(rng, 0.08)
    thickness = unit * np.exp(rng.uniform(np.log(0.8), np.log(9)))
    for _ in range(int(rng.integers(1, 7))):
        points = curve(rng, height, width, unit * rng.uniform(0, 70), unit * rng.choice([0, 0.4]))
        blend(image, line_mask(points, height, width, thickness * rng.uniform(0.5, 1)), colour)


def _grass(rng: Rng, image: np.ndarray, unit: float) -> None:
    """Blades, twigs, fur or hair: many short bent lines, mostly in one direction."""
    height, width = image.shape[:2]
    lean, colour = rng.uniform(0, 2 * np.pi), _colour(rng)
    count, length = int(rng.integers(15, 140)), unit * np.exp(rng.uniform(np.log(12), np.log(110)))
    roots = rng.uniform(0, 1, (count, 2)) * [width, height]
    angles = lean + rng.normal(0, rng.uniform(0.1, 0.9), count)
    bends = rng.normal(0, 0.5, count)
    t = np.linspace(0, 1, 9)
    thick = max(1, round(4 * unit * rng.uniform(0.5, 2.5)))
    fine: np.ndarray = np.zeros((2 * height, 2 * width), np.uint8)
    for root, angle, bend in zip(roots, angles, bends, strict=True):
        way = angle + bend * t
        points = root + np.cumsum(np.stack([np.cos(way), np.sin(way)], -1), axis=0) * length / len(t)
        cv2.polylines(
            fine, [np.round(points * 2 * 16).astype(np.int32)], False, 255, max(1, thick // 2), cv2.LINE_AA, 4
        )
    mask = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    blend(image, mask * rng.uniform(0.5, 1), colour)


def _letters(rng: Rng, image: np.ndarray, unit: float) -> None:
    height, width = image.shape[:2]
    fonts = (
        cv2.FONT_HERSHEY_SIMPLEX,
        cv2.FONT_HERSHEY_DUPLEX,
        cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
        cv2.FONT_HERSHEY_TRIPLEX,
    )
    for _ in range(int(rng.integers(1, 6))):
        text = "".join(
            rng.choice(list("ABCDEFGHKLMNOPRSTUVWXYZabcdefghklmnoprstuvwxyz0123456789 "), int(rng.integers(2, 14)))
        )
        mask: np.ndarray = np.zeros((height, width), np.uint8)
        corner = (int(rng.uniform(-0.1, 0.8) * width), int(rng.uniform(0.05, 1) * height))
        size, thick = float(unit * np.exp(rng.uniform(-1, 1.2))), max(1, round(unit * rng.uniform(0.6, 4)))
        cv2.putText(mask, text, corner, int(rng.choice(fonts)), size, 255, thick, cv2.LINE_AA)
        if rng.random() < 0.5:
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 40), 1)
            mask = cv2.warpAffine(mask, turn, (width, height))
        blend(image, mask.astype(np.float32) / 255 * rng.uniform(0.5, 1), _colour(rng))


def _grid(rng: Rng, image: np.ndarray, unit: float) -> None:
    """Fences, windows, tiles, nets: lines of even width at even distances, in perspective."""
    height, width = image.shape[:2]
    scale = 2
    mask: np.ndarray = np.zeros((scale * height, scale * width), np.uint8)
    thick = max(1, round(scale * unit * np.exp(rng.uniform(np.log(0.6), np.log(6)))))
    for axis in range(2):
        if rng.random() < 0.2:
            continue
        gap = scale * unit * np.exp(rng.uniform(np.log(9), np.log(90)))
        for at in np.arange(rng.uniform(0, gap), mask.shape[1 - axis], gap):
            one = (int(at), 0) if axis == 0 else (0, int(at))
            other = (int(at), mask.shape[0]) if axis == 0 else (mask.shape[1], int(at))
            cv2.line(mask, one, other, 255, thick, cv2.LINE_AA)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + (rng.uniform(-0.6, 0.6, (4, 2)) * [width, height] * rng.random()).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners * scale, moved)
    seen = cv2.warpPerspective(mask, matrix, (width, height), flags=cv2.INTER_AREA).astype(np.float32) / 255
    if rng.random() < 0.5:
        seen *= half_plane(height, width, rng.uniform(0, 2 * np.pi), rng.uniform(0, width), 2)
    blend(image, seen * rng.uniform(0.4, 1), _colour(rng))


def _hatching(rng: Rng, image: np.ndarray, unit: float) -> None:
    """Scribbles and brush strokes: crooked lines of even width and sharp ends."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(1, 5))):
        steps = rng.normal(0, unit * rng.uniform(3, 25), (int(rng.integers(6, 40)), 2))
        points = rng.uniform(0, 1, 2) * [width, height] + np.cumsum(steps, axis=0)
        points = backgrounds.smooth(points, rng.uniform(0.6, 3))
        mask = line_mask(points.astype(np.float32), height, width, unit * np.exp(rng.uniform(-0.2, 1.8)))
        blend(image, mask * rng.uniform(0.4, 1), _colour(rng))
