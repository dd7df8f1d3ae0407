"""Everything on a wall or pavement that merely looks like a crack: the hard negatives of the synthetic set.

Pictures are float32 RGB `[H, W, 3]` in grey levels 0..255 and are changed in place; see `segdet.data.synthetic.backgrounds`.
"""

from __future__ import annotations

import cv2
import numpy as np

from segdet.data.synthetic.backgrounds import (
    blend,
    blob,
    curve,
    darken,
    fractal,
    half_plane,
    line_mask,
    noise,
    relief,
    tint,
)

Rng = np.random.Generator


def _stain(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Damp, rust or moss: a darker or coloured cloud."""
    height, width = image.shape[:2]
    field = fractal(rng, height, width, unit * rng.uniform(30, 140), 7, rng.uniform(0.6, 0.85))
    mask = blob(field, rng.uniform(0.03, 0.35), rng.uniform(0.3, 2))
    colours = [[0.8, 0.78, 0.74], [0.62, 0.66, 0.42], [0.85, 0.6, 0.38], [0.5, 0.5, 0.5]]
    darken(image, mask * rng.uniform(0.2, 0.8), np.array(colours[rng.choice(4, p=[0.5, 0.15, 0.1, 0.25])]))


def _drips(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Marks of water running down: dark or light vertical streaks that fade."""
    height, width = image.shape[:2]
    field = noise(rng, height, width, unit * rng.uniform(3, 25), unit * rng.uniform(80, 300))
    field += rng.uniform(0.1, 0.5) * noise(rng, height, width, 4 * unit, 20 * unit)
    mask = blob(field, rng.uniform(0.05, 0.4), rng.uniform(0.8, 2.5))
    mask *= blob(noise(rng, height, width, 90 * unit), 0.6, 2)
    mask *= np.clip(1 + 0.3 * noise(rng, height, width, 2 * unit), 0, 1)
    colour = np.array([0.72, 0.7, 0.66]) if rng.random() < 0.75 else np.array([1.15, 1.15, 1.13])
    darken(image, mask * rng.uniform(0.2, 0.9), colour)


def _peeled(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Flaked paint or a patch of filler: sharp-edged islands of another colour, lit at their rim."""
    height, width = image.shape[:2]
    field = fractal(rng, height, width, unit * rng.uniform(12, 70), 5, rng.uniform(0.5, 0.75))
    mask = blob(field + noise(rng, height, width, 120 * unit), rng.uniform(0.01, 0.12), rng.uniform(0.05, 0.2))
    under = image.mean(axis=(0, 1)) * rng.uniform(0.65, 1.25) * tint(rng, 0.06)
    grain = rng.uniform(2, 14) * noise(rng, height, width, unit * 1.5)
    blend(image, mask * rng.uniform(0.5, 1), under + grain[..., None])
    image += (rng.uniform(5, 70) * relief(-mask, light))[..., None]


def _pits(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Bugholes, nail holes and dirt specks: small dark ellipses with a lit edge."""
    height, width = image.shape[:2]
    mask: np.ndarray = np.zeros((height, width), np.float32)
    largest = rng.uniform(0.8, 4)
    stretch = np.array([rng.choice([1.0, rng.uniform(1, 4)]), 1.0])  # flecks and gouges are long
    for _ in range(int(np.exp(rng.uniform(0, np.log(90))))):
        centre = (rng.uniform(0, 1, 2) * [width, height] * 16).astype(int).tolist()
        axes = (unit * largest * rng.random() ** 2 * rng.uniform(0.5, 1.2, 2) * stretch * 16 + 6).astype(int).tolist()
        box = (centre[0] / 16, centre[1] / 16), (axes[0] / 8, axes[1] / 8), rng.uniform(0, 180)
        points = cv2.boxPoints(box)
        turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)[:, None]
        middle, one, other = points.mean(0), (points[1] - points[0]) / 2, (points[2] - points[1]) / 2
        oval = middle + (np.cos(turn) * one + np.sin(turn) * other) * rng.uniform(0.75, 1.25, (12, 1))
        cv2.fillPoly(mask, [np.round(oval * 16).astype(np.int32)], rng.uniform(0.3, 1), cv2.LINE_8, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.6)
    darken(image, mask * rng.uniform(0.4, 0.9), rng.uniform(0.15, 0.5))
    image += (rng.uniform(0, 40) * relief(-cv2.GaussianBlur(mask, (0, 0), unit), light))[..., None]


def _joint(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Expansion joint or panel edge: a dead straight line of even width, sometimes double or filled."""
    height, width = image.shape[:2]
    points = curve(rng, height, width, 0)
    if rng.random() < 0.7:  # most are level or plumb
        at, slope = rng.uniform(0.05, 0.95), rng.normal(0, 0.02)
        points = np.array([[-0.1, at - slope], [1.1, at + slope]])
        points = ((points if rng.random() < 0.5 else points[:, ::-1]) * [width, height]).astype(np.float32)
    thickness = unit * rng.uniform(0.8, 9)
    mask = cv2.GaussianBlur(line_mask(points, height, width, thickness), (0, 0), rng.uniform(0.4, 1.2))
    colour = rng.choice([rng.uniform(0.15, 0.8), rng.uniform(1.05, 1.25)], p=[0.75, 0.25])
    darken(image, mask * rng.uniform(0.3, 1), colour)
    image += (rng.uniform(0, 50) * relief(-cv2.GaussianBlur(mask, (0, 0), unit), light))[..., None]


def _scratches(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Scratches, pencil and brush strokes: thin smooth lines, lighter, darker or coloured, of even width."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 7)):
        points = curve(rng, height, width, unit * rng.uniform(0, 60))
        length = rng.integers(4, 40)
        first = rng.integers(len(points) - length)
        thickness = unit * np.exp(rng.uniform(np.log(0.35), np.log(2.2)))
        mask = line_mask(points[first : first + length], height, width, thickness)
        mask *= np.clip(0.8 + 0.4 * noise(rng, height, width, 15 * unit), 0, 1)
        colour = rng.choice([rng.uniform(0.4, 0.9), rng.uniform(1.05, 1.3)]) * tint(rng, 0.06)
        darken(image, mask * rng.uniform(0.3, 1), colour)


def _ridges(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Trowel marks, paint runs and dents: crooked lines in relief only, lit on one side and dim on the other."""
    height, width = image.shape[:2]
    bumps = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 6)):
        points = curve(rng, height, width, unit * rng.uniform(0, 60), unit * rng.uniform(0, 1.5))
        length = rng.integers(4, 50)
        first = rng.integers(len(points) - length)
        part = points[first : first + length]
        bumps += rng.choice([-1, 1]) * line_mask(part, height, width, unit * rng.uniform(0.8, 3))
    shade = relief(cv2.GaussianBlur(bumps, (0, 0), unit * rng.uniform(0.8, 2)), light)
    image += (shade * rng.uniform(15, 110) * np.clip(0.7 + 0.6 * noise(rng, height, width, 20 * unit), 0, 2))[..., None]


def _layers(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Another coat on a part of the wall: its border is straight or wavy, a step in tone and in relief."""
    height, width = image.shape[:2]
    angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.15)
    centre = np.array([np.cos(angle), np.sin(angle)]) @ (rng.uniform(0.2, 0.8, 2) * [width, height])
    side = half_plane(height, width, angle, float(centre), 60 * unit) - 0.5
    side += rng.uniform(0, 0.12) * fractal(rng, height, width, unit * rng.uniform(20, 80), 5)
    mask = np.clip(side * 60 * unit / rng.uniform(1, 8) + 0.5, 0, 1)
    darken(image, mask, rng.uniform(0.72, 1.12) * tint(rng, 0.02))
    image += (mask * rng.uniform(0, 8) * noise(rng, height, width, unit * rng.uniform(1, 3)))[..., None]
    image += (rng.uniform(0, 40) * relief(mask, light))[..., None]


def _marking(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """A worn white, yellow or red band of paint."""
    height, width = image.shape[:2]
    band = line_mask(curve(rng, height, width, 0), height, width, unit * rng.uniform(15, 60))
    worn = blob(fractal(rng, height, width, unit * rng.uniform(3, 15), 4), rng.uniform(0.6, 1.0), 0.4)
    colours = [[235, 235, 230], [220, 180, 60], [170, 70, 60], [90, 110, 150]]
    blend(image, band * worn * rng.uniform(0.4, 0.9), np.array(colours[rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])]))


_MARKS = (
    (0.35, _stain),
    (0.25, _drips),
    (0.18, _peeled),
    (0.12, _layers),
    (0.45, _pits),
    (0.14, _joint),
    (0.25, _scratches),
    (0.3, _ridges),
    (0.04, _marking),
)  # how often each is seen


def add_below(rng: Rng, image: np.ndarray, unit: float, light: float) -> None:
    """Add marks of the wall itself, over which cracks run, in place."""
    for chance, mark in _MARKS:
        if rng.random() < chance:
            mark(rng, image, unit, light)


def add_ledge(rng: Rng, image: np.ndarray, unit: float) -> tuple[float, float]:
    """Let the wall end at a straight edge, with something else beyond it, in place.

    Returns:
        (angle, offset): the wall is where x cos(angle) + y sin(angle) <= offset, in pixels.
    """
    height, width = image.shape[:2]
    angle = rng.choice([0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.08)
    direction = np.array([np.cos(angle), np.sin(angle)])
    offset = float(direction @ [width / 2, height / 2] + rng.uniform(0.28, 0.46) * np.abs(direction) @ [width, height])
    beyond = half_plane(height, width, angle, offset, rng.uniform(1, 3))
    other = rng.choice([rng.uniform(10, 80), rng.uniform(80, 245)]) * tint(rng, 0.12)
    texture = rng.uniform(0, 25) * fractal(rng, height, width, unit * rng.uniform(5, 60), 5)
    blend(image, beyond, other + texture[..., None])
    reach = (height + width) * np.array([-direction[1], direction[0]])
    edge = np.stack([direction * offset - reach, direction * offset + reach])
    trim = line_mask(edge, height, width, unit * rng.uniform(1, 6))
    darken(image, trim * rng.uniform(0, 0.8), rng.choice([0.3, 1.2]))
    return float(angle), offset - 1.5 * unit


def _cast_shadow(rng: Rng, image: np.ndarray, unit: float) -> None:
    """Shadow of an edge, a cable or twigs: hard or soft, always smooth in outline; it falls on cracks as well."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        angle, softness = rng.uniform(0, 2 * np.pi), unit * np.exp(rng.uniform(0, 4.5))
        shade = half_plane(height, width, angle, rng.uniform(-0.4, 0.7) * np.hypot(height, width), softness)
    else:
        shade = np.zeros((height, width), np.float32)
        thickness = unit * rng.uniform(1.5, 9)
        for _ in range(rng.choice([1, 2, 5], p=[0.6, 0.25, 0.15])):
            points = curve(rng, height, width, unit * rng.uniform(0, 50))
            shade = np.maximum(shade, line_mask(points, height, width, thickness * rng.uniform(0.4, 1)))
        shade = cv2.GaussianBlur(shade, (0, 0), unit * rng.uniform(0.7, 4))
    darken(image, shade * rng.uniform(0.3, 1), rng.uniform(0.35, 0.85) * tint(rng, 0.03))


def _cable(rng: Rng, image: np.ndarray, unit: float, taken: np.ndarray) -> None:
    """Cables, wires or a pipe in front of the wall: rounded, with a shadow beside them; kept clear of cracks."""
    height, width = image.shape[:2]
    thickness = unit * np.exp(rng.uniform(np.log(1.2), np.log(22)))
    colour = rng.choice([rng.uniform(15, 70), rng.uniform(90, 240)], p=[0.65, 0.35]) * tint(rng, 0.08)
    for _ in range(3):
        points = curve(rng, height, width, unit * rng.uniform(0, 40))
        mask = line_mask(points, height, width, thickness)
        away = cv2.dilate(mask, np.ones((5, 5), np.uint8))
        if not ((away > 0) & (taken > 0)).any():
            shadow = cv2.GaussianBlur(mask, (0, 0), unit * rng.uniform(1, 4))
            drop = np.roll(shadow, (int(thickness / 2 + unit), int(rng.normal(0, 3) * unit)), (0, 1))
            darken(image, drop * rng.uniform(0, 0.6), 0.4)
            shine = relief(cv2.GaussianBlur(mask, (0, 0), thickness / 4 + 0.5), rng.normal(np.pi / 2, 0.5))
            blend(image, mask, np.clip(colour + shine[..., None] * thickness * rng.uniform(20, 90), 0, 255))
            return


def _leaves(rng: Rng, image: np.ndarray, unit: float, taken: np.ndarray) -> None:
    """A few leaves lying on the ground or hanging in, with a midrib; kept clear of cracks."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 7)):
        length, turn = unit * rng.uniform(6, 26), rng.uniform(0, 2 * np.pi)
        t = np.linspace(0, np.pi, 14)
        half = np.stack([-np.cos(t), np.sin(t) ** 1.5 * rng.uniform(0.25, 0.55)], -1)
        outline = np.concatenate([half, half[::-1] * [1, -1]]) * length
        axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        outline = outline @ axes + rng.uniform(0, 1, 2) * [width, height]
        mask: np.ndarray = np.zeros((height, width), np.float32)
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
        if ((mask > 0) & (cv2.dilate(taken, np.ones((5, 5), np.uint8)) > 0)).any():
            continue
        mask = cv2.GaussianBlur(mask, (0, 0), 0.6)
        colours = np.array([[90, 110, 45], [150, 110, 50], [110, 75, 45], [170, 150, 70]], np.float32)
        colour = colours[rng.integers(4)] * rng.uniform(0.6, 1.2)
        darken(image, np.roll(mask, (int(2 * unit), int(unit)), (0, 1)) * 0.4)
        blend(image, mask, colour + 8 * noise(rng, height, width, 4 * unit)[..., None])
        blend(image, mask * line_mask(outline[[0, 13]].astype(np.float32), height, width, 0.8 * unit), colour * 1.3)


def add_above(rng: Rng, image: np.ndarray, unit: float, taken: np.ndarray) -> None:
    """Add shadows and what is in front of the wall, in place; `taken` uint8 `[H, W]` is > 0 where cracks are."""
    if rng.random() < 0.14:
        _cable(rng, image, unit, taken)
    if rng.random() < 0.04:
        _leaves(rng, image, unit, taken)
    if rng.random() < 0.22:
        _cast_shadow(rng, image, unit)
