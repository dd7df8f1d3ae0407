"""`crack-demo`: a seeded generator of cracked walls and pavements whose labels are exact.

A crack is a vector shape, a list of polygons that are ribbons of varying width, and the picture is painted from the
coverage of exactly those polygons, so the label is what is seen. Everything else in the picture, however much it
looks like a crack, comes from `segdet.data.synthetic.backgrounds` and `segdet.data.synthetic.distractors` and is not labelled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdet.data.geometry.rasterize import binary, coverage
from segdet.data.synthetic import backgrounds, distractors, negatives
from segdet.data.synthetic.backgrounds import jagged, smooth
from segdet.errors import InputError
from segdet.files import building

Rng = np.random.Generator
Crack = list[np.ndarray]

_THINNEST = 0.45  # a ribbon narrower than this (pixels) is a gap
_SPLITS = ("train", "valid", "test")  # Roboflow's folder names, in the order that numbers them for the seed


def draw(rng: Rng, height: int, width: int, cracked: bool = True) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """One picture and its cracks.

    Args:
        rng: the only source of chance.
        height, width: of the picture, in pixels, at least 64 each.
        cracked: False for a wall without any crack; the look-alikes are there all the same.

    Returns:
        RGB uint8 `[H, W, 3]`, and the cracks: each a list of polygons float32 `[P, 2]` (x, y), in pixels, within the
        picture, rounded to 1/100 pixel. Separate cracks are separate entries; branches belong to their crack.
    """
    unit = min(height, width) / 320
    light = rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else rng.normal(np.pi / 2, 0.7)
    image = backgrounds.background(rng, height, width, unit, light)
    distractors.add_below(rng, image, unit, light)
    wall = distractors.add_ledge(rng, image, unit) if rng.random() < 0.08 else None
    cracks = _cracks(rng, height, width, unit, wall) if cracked else []
    covers = [coverage(crack, height, width) for crack in cracks]
    for cover in covers:
        _paint(rng, image, cover, unit, light)
    taken = np.max(covers, axis=0) if covers else np.zeros((height, width), np.uint8)
    distractors.add_above(rng, image, unit, taken)
    return backgrounds.photograph(rng, image), cracks


# --- the shape of a crack -------------------------------------------------------------------------------------------


def _course(rng: Rng, start: np.ndarray, heading: float, length: int, unit: float, wander: float) -> np.ndarray:
    """The gentle course of a crack: float64 `[length, 2]`, points a pixel apart; `wander` in radians of bending."""
    bends = wander * jagged(rng, length, unit * rng.uniform(50, 140))
    if rng.random() < 0.25:  # a sharp turn and, often, one back
        for sign in (1, -1):
            bends[rng.integers(length) :] += sign * rng.uniform(0.3, 1.1) * rng.choice([-1, 1])
    angles = heading + smooth(bends, 5 * unit + 1)
    steps = np.stack([np.cos(angles), np.sin(angles)], -1)
    return start + np.cumsum(steps, axis=0)


def _ribbons(rng: Rng, course: np.ndarray, widths: np.ndarray, unit: float, rough: float) -> tuple[Crack, np.ndarray]:
    """Polygons along `course` with `widths` `[P]` in pixels, and the crack's centre line `[P, 2]`.

    The jags are sideways offsets from a smooth course, so both edges run beside each other and never cross.
    """
    count = len(course)
    tangent = smooth(np.gradient(course, axis=0), 3 * unit + 0.5)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], -1)
    offset = np.zeros(count)
    for spacing, size in ((30, 2.6), (13, 1.5), (6, 0.9), (3, 0.45)):
        offset += rough * rng.uniform(0.3, 1.4) * size * unit * jagged(rng, count, spacing * unit)
    # Where the line runs aslant, the offset between the edges must be larger for the same width across.
    slant = np.sqrt(1 + np.minimum(np.gradient(offset) ** 2, 3))
    fray = np.minimum(0.12 * widths, 0.7 * unit)
    left = offset + slant * widths / 2 + fray * jagged(rng, count, 4 * unit)
    right = offset - slant * widths / 2 + fray * jagged(rng, count, 4 * unit)
    right = np.minimum(right, left - 0.3)
    polygons = []
    open_ = np.concatenate([[False], widths > _THINNEST, [False]])
    for first, last in np.flatnonzero(np.diff(open_)).reshape(-1, 2):
        if last - first >= 3:
            run = slice(first, last)
            one = course[run] + left[run, None] * normal[run]
            other = course[run] + right[run, None] * normal[run]
            polygons.append(np.concatenate([one, other[::-1]]))
    return polygons, course + offset[:, None] * normal


def _widths(rng: Rng, count: int, typical: float, unit: float, gaps: float) -> np.ndarray:
    """Width along a crack in pixels `[count]`: swelling and pinching, with pits and, for `gaps` > 0, holes in it."""
    log = rng.uniform(0.05, 0.27) * jagged(rng, count, 70 * unit)
    log += rng.uniform(0.02, 0.16) * jagged(rng, count, 9 * unit)
    widths = typical * np.exp(np.clip(log, -1.2, 1.0))
    for _ in range(rng.poisson(0.5)):  # a bit has broken out
        at, reach = rng.integers(count), unit * rng.uniform(3, 9)
        bump = np.exp(-(((np.arange(count) - at) / reach) ** 2))
        widths = widths + bump * min(typical * rng.uniform(0.4, 1.3), 7 * unit)
    if gaps > 0:
        gate = smooth(jagged(rng, count, 22 * unit), 2 * unit + 0.5)
        widths = widths * np.clip((gate - np.quantile(gate, gaps)) * 4 + 0.3, 0, 1)
    return np.minimum(widths, 16 * unit)


def _taper(widths: np.ndarray, at_start: float, at_end: float) -> np.ndarray:
    """Narrow `widths` to nothing over the given lengths in pixels at either end (0: leave that end as it is)."""
    position = np.arange(len(widths), dtype=np.float64)
    out = widths.copy()
    for length, distance in ((at_start, position), (at_end, position[::-1])):
        if length > 0:
            out = out * np.sqrt(np.clip(distance / length, 0, 1))
    return out


def _across(rng: Rng, height: int, width: int, unit: float) -> tuple[np.ndarray, float, float]:
    """Course of a main crack, and the lengths over which it tapers at its two ends (0 where it leaves the picture)."""
    lean = rng.choice([np.pi / 2, 0.0, rng.uniform(0, np.pi)], p=[0.48, 0.3, 0.22]) + rng.normal(0, 0.15)
    centre = rng.normal(0.5, 0.17, 2).clip(0.1, 0.9) * [width, height]
    length = int(2.6 * np.hypot(height, width)) | 1
    course = _course(rng, np.zeros(2), lean, length, unit, float(rng.choice([0.08, 0.2, 0.4], p=[0.4, 0.4, 0.2])))
    middle = length // 2
    course += centre - course[middle]
    margin = 20 * unit
    away = np.abs(course - np.array([width, height]) / 2) - np.array([width, height]) / 2
    outside = np.asarray(away.max(axis=1) > margin)
    first = int(np.flatnonzero(outside[:middle])[-1]) + 1 if outside[:middle].any() else 0
    last = middle + int(np.argmax(outside[middle:])) if outside[middle:].any() else length
    tapers = [0.0, 0.0]
    for end in range(2):
        if rng.random() < 0.3:  # ends within the picture
            if end == 0:
                first = int(middle - (middle - first) * rng.uniform(0.1, 0.85))
            else:
                last = int(middle + (last - middle) * rng.uniform(0.1, 0.85))
            tapers[end] = rng.uniform(20, 120) * unit
    return course[first:last], tapers[0], tapers[1]


def _branched(rng: Rng, height: int, width: int, unit: float) -> Crack:
    """A crack with its branches, as polygons that may still reach outside the picture."""
    course, start, end = _across(rng, height, width, unit)
    typical = float(np.clip(np.exp(rng.normal(np.log(4.6), 0.6)), 1.0, 14)) * unit
    if start and end:  # short cracks are thin ones
        typical *= 0.6
    typical = max(typical, 1.0)  # a pixel at least, however small the picture
    rough = min(float(np.exp(rng.normal(-0.15, 0.5))), 1.7)
    gaps = rng.uniform(0.03, 0.25) if rng.random() < 0.2 else 0.0
    widths = _taper(_widths(rng, len(course), typical, unit, gaps), start, end)
    crack, line = _ribbons(rng, course, widths, unit, rough)
    for _ in range(rng.choice([0, 1, 2, 3, 5], p=[0.6, 0.23, 0.1, 0.05, 0.02])):
        at = int(rng.integers(len(line)))
        if not (0 <= line[at, 0] <= width and 0 <= line[at, 1] <= height) or widths[at] < 1.0:
            continue
        ahead = line[min(at + 5, len(line) - 1)] - line[max(at - 5, 0)]
        turn = rng.choice([-1, 1]) * rng.uniform(0.35, 1.5) + rng.choice([0, np.pi])
        length = int(unit * np.exp(rng.uniform(np.log(18), np.log(220)))) + 6
        side = _course(rng, line[at], np.arctan2(ahead[1], ahead[0]) + turn, length, unit, 0.3)
        thick = max(widths[at] * rng.uniform(0.3, 0.85), 1.0 * unit)
        thin = _taper(_widths(rng, length, thick, unit, gaps), 0, length * rng.uniform(0.3, 1))
        grown, other = _ribbons(rng, side, thin, unit, rough)
        shift = line[at] - other[0]  # the jags moved its root off the parent
        crack += [polygon + shift for polygon in grown]
    return crack


def _network(rng: Rng, height: int, width: int, unit: float) -> Crack:
    """Alligator cracking: the edges of a distorted grid of cells, some missing, around one place."""
    cell = unit * rng.uniform(35, 80)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    side = int(rng.integers(4, 8))
    rows, columns = np.mgrid[0:side, 0:side]
    nodes = np.stack([columns + 0.5 * (rows % 2), rows], -1) - (side - 1) / 2 + rng.normal(0, 0.2, (side, side, 2))
    nodes = nodes * cell @ turn.T + rng.uniform(0.25, 0.75, 2) * [width, height]
    edges = [((r, c), (r, c + 1)) for r in range(side) for c in range(side - 1)]
    edges += [((r, c), (r + 1, c)) for r in range(side - 1) for c in range(side) if rng.random() < 0.75]
    typical = unit * np.exp(rng.normal(np.log(2.3), 0.3))
    crack: Crack = []
    for one, other in edges:
        if rng.random() < 0.2:
            continue
        way = nodes[other] - nodes[one]
        count = max(int(np.linalg.norm(way)), 6)
        course = nodes[one] + np.linspace(0, 1, count)[:, None] * way
        hold = np.sin(np.linspace(0, np.pi, count))[:, None] * rng.normal(0, 0.08) * np.array([-way[1], way[0]])
        crack += _ribbons(rng, course + hold, _widths(rng, count, typical, unit, 0), unit, 0.8)[0]
    return crack


def _clip(polygon: np.ndarray, angle: float, offset: float) -> np.ndarray:
    """The part of a polygon `[P, 2]` where x cos(angle) + y sin(angle) <= offset (Sutherland and Hodgman's way)."""
    if not len(polygon):
        return polygon
    side = polygon @ [np.cos(angle), np.sin(angle)] - offset
    if (side <= 0).all():
        return polygon
    following, side_after = np.roll(polygon, -1, axis=0), np.roll(side, -1)
    crosses = (side <= 0) != (side_after <= 0)
    share = np.where(crosses, side / np.where(crosses, side - side_after, 1), 0)
    cuts = polygon + share[:, None] * (following - polygon)
    both = np.stack([polygon, cuts], 1).reshape(-1, 2)
    return np.asarray(both[np.stack([side <= 0, crosses], 1).reshape(-1)])


def _finish(crack: Crack, height: int, width: int, wall: tuple[float, float] | None) -> Crack:
    """Clip to the picture (and to the `wall`'s half-plane), drop needless vertices, round to 1/100 pixel."""
    edges = [(0.0, float(width)), (np.pi / 2, float(height)), (np.pi, 0.0), (-np.pi / 2, 0.0)]
    out = []
    for polygon in crack:
        for angle, offset in edges + ([wall] if wall is not None else []):
            polygon = _clip(polygon, angle, offset)
        if len(polygon) < 3:
            continue
        polygon = cv2.approxPolyDP(polygon.astype(np.float32), 0.1, True)[:, 0].astype(np.float64)
        polygon = np.round(polygon.clip(0, [width, height]), 2).astype(np.float32)
        if len(polygon) >= 3 and cv2.contourArea(polygon) > 0.5:
            out.append(polygon)
    return out


def _cracks(rng: Rng, height: int, width: int, unit: float, wall: tuple[float, float] | None) -> list[Crack]:
    """All cracks of one picture, at least one; those that meet are joined into one."""
    found: list[Crack] = []
    covers: list[np.ndarray] = []
    wanted = 1 + int(rng.random() < 0.22)
    while len(found) < wanted:
        shape = (_network if rng.random() < 0.04 else _branched)(rng, height, width, unit)
        crack = _finish(shape, height, width, wall)
        cover = coverage(crack, height, width)
        if int(binary(cover).sum()) < 60 * unit * unit:  # too little of it is in the picture
            continue
        near = cv2.dilate(cover, np.ones((3, 3), np.uint8))
        if covers and (np.minimum(near, covers[0]) > 0).any():
            return [found[0] + crack]
        found.append(crack)
        covers.append(cover)
    return found


# --- paint --------------------------------------------------------------------------------------------------------


def _paint(rng: Rng, image: np.ndarray, cover: np.ndarray, unit: float, light: float) -> None:
    """Paint one crack from its coverage `[H, W]` 0..255, in place: dirt around it, lit rim, dark inside."""
    height, width = cover.shape
    alpha = cover.astype(np.float32) / 255
    depth = cv2.distanceTransform(binary(cover).astype(np.uint8), cv2.DIST_L2, 3)
    half = float(np.median(depth[depth > 0])) if depth.any() else 1.0
    ground = cv2.GaussianBlur(image, (0, 0), 6 * unit)
    backgrounds.weather(rng, image, alpha, unit, light)
    # Labels in real sets run along the outside of the soft edge: the darkest part begins a little farther in.
    edge = rng.uniform(0.7, 1.8) * min(half, 2.5 * unit)
    core = alpha * np.clip(rng.uniform(0.05, 0.4) + (depth - 0.5) / max(edge, 0.5), 0.15, 1)
    drift = rng.uniform(0, 0.4) * backgrounds.fractal(rng, height, width, rng.uniform(8, 50) * unit, 3)
    fade = np.clip(1.1 + drift, 0.3, 1)  # choked with dust in places
    faint = 0.4 if half < 1.8 * unit else 0.14  # wide cracks are deep and so dark
    strength = rng.uniform(0.25, 0.6) if rng.random() < faint else rng.uniform(0.75, 1)
    inside = ground * rng.uniform(0.0, 0.2) * backgrounds.tint(rng, 0.08)
    if rng.random() < 0.3:  # earth or rust in it
        inside = inside * np.array([1.15, 0.95, 0.75], np.float32)
    if rng.random() < 0.03 and ground.mean() < 185:  # filled with something lighter than the wall
        inside, fade = ground * rng.uniform(1.2, 1.4), fade * 0.9
    if half > 1.8 * unit:  # deep enough that one wall of it catches light
        lit = np.clip(backgrounds.relief(cv2.GaussianBlur(alpha, (0, 0), half * 0.8), light) * half * 2, 0, 1)
        lit *= np.clip(0.7 + 0.5 * backgrounds.fractal(rng, height, width, 12 * unit, 3), 0, 1.2)
        inside = inside + lit[..., None] * rng.uniform(0, 0.6) * ground
    inside = inside + rng.uniform(1, 7) * backgrounds.noise(rng, height, width, 1.5 * unit)[..., None]
    backgrounds.blend(image, core * fade * strength, inside)


# --- the dataset folder ---------------------------------------------------------------------------------------------


def write(
    root: Path,
    *,
    train: int = 160,
    val: int = 40,
    test: int = 20,
    size: int = 320,
    seed: int = 0,
    empty: float = 0.15,
    other: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the dataset folder in Roboflow's COCO layout and return `root`.

    The same arguments give byte-identical pictures and labels. The folder appears only once it is complete.

    Args:
        train, val, test: numbers of pictures.
        size: width and height of every picture, in pixels.
        empty: share of the pictures that show a wall without any crack.
        other: share of the pictures that show something else than a wall (`scenes`).
        progress: called with (pictures done, pictures in all) after every picture.

    Raises:
        InputError: `root` exists already or cannot be created, or `size` or a number of pictures is too small.
    """
    root = Path(root)
    if size < 64 or min(train, val, test) < 0:
        raise InputError(f"{root}: pictures must be 64 pixels or larger (not {size}) and their numbers 0 or more")
    counts = (train, val, test)
    with building(root) as folder:
        done = 0
        for number, (split, count) in enumerate(zip(_SPLITS, counts, strict=True)):
            (folder / split).mkdir()
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            for index in range(count):
                image, labels = _example(
                    folder / split, np.random.default_rng([seed, number, index]), index, size, (empty, other)
                )
                images.append(image)
                annotations += [{"id": len(annotations) + k, **label} for k, label in enumerate(labels, 1)]
                done += 1
                if progress is not None:
                    progress(done, sum(counts))
            (folder / split / "_annotations.coco.json").write_text(_coco(images, annotations, seed), encoding="utf-8")
        (folder / "README.dataset.txt").write_text(_readme(counts, size, seed, empty, other), encoding="utf-8")
    return root


def _example(
    folder: Path, rng: Rng, index: int, size: int, without: tuple[float, float]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw and save picture `index`; returns its COCO image entry and its annotations (without their ids)."""
    (empty, other), chance = without, rng.random()
    if chance >= 1 - other:
        picture, cracks = negatives.draw_scene(rng, size, size), list[Crack]()
    else:
        picture, cracks = draw(rng, size, size, cracked=bool(chance >= empty))
    name = f"crack-demo-{index:05d}.jpg"
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(85, 96))]
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
    if not ok:
        raise RuntimeError(f"{name}: OpenCV could not encode it as JPEG")
    (folder / name).write_bytes(encoded.tobytes())
    labels = []
    for crack in cracks:
        points = np.concatenate(crack).astype(np.float64)
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        labels.append(
            {
                "image_id": index + 1,
                "category_id": 1,
                "segmentation": [[round(float(value), 2) for value in polygon.ravel()] for polygon in crack],
                "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": int(binary(coverage(crack, size, size)).sum()),
                "iscrowd": 0,
            }
        )
    return {"id": index + 1, "file_name": name, "width": size, "height": size, "license": 1}, labels


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]], seed: int) -> str:
    """The COCO file's text."""
    content = {
        "info": {"description": f"crack-demo: synthetic cracked walls and pavements, seed {seed}", "version": "1"},
        "licenses": [{"id": 1, "name": "CC0-1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "categories": [{"id": 1, "name": "crack", "supercategory": "defect"}],
        "images": images,
        "annotations": annotations,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n"


def _readme(counts: tuple[int, int, int], size: int, seed: int, empty: float, other: float) -> str:
    """Text of README.dataset.txt."""
    return (
        "crack-demo\n\nCracked walls and pavements, drawn by a program (segdet.data.synthetic.cracks).\n"
        f"{counts[0]} training, {counts[1]} validation and {counts[2]} test pictures, {size}x{size}, seed {seed}.\n"
        f"Labels are exact: the pictures are painted from the polygons. About {100 * empty:.0f} % of them show a wall without "
        f"a crack{f', {100 * other:.0f} % no wall at all' if other else ''}.\n"
        "Joints, cables, shadows, stains, scratches and the like are there to mislead and are not labelled.\n\n"
        "Licence: CC0-1.0 (public domain), https://creativecommons.org/publicdomain/zero/1.0/\n"
    )
