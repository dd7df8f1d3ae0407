"""What surrounds the cracks of the synthetic set: walls, pavements, and everything that merely looks like a crack.

Pictures here are float32 RGB `[H, W, 3]` in grey levels 0..255 and are changed in place. `unit` is the picture's
shorter side / 320, so that a texture looks alike at any picture size. Noise fields have mean 0 and deviation 1.
"""

from __future__ import annotations

import cv2
import numpy as np

Rng = np.random.Generator


def noise(rng: Rng, height: int, width: int, cell_x: float, cell_y: float | None = None) -> np.ndarray:
    """Smooth noise float32 `[H, W]` whose blobs are about `cell_x` by `cell_y` pixels."""
    cell_y = cell_x if cell_y is None else cell_y
    if min(cell_x, cell_y) >= 32:  # nothing in it that a quarter of the size would not show, four times as fast
        small = noise(rng, -(-height // 4), -(-width // 4), cell_x / 4, cell_y / 4)
        return normalised(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))
    rows, columns = int(np.ceil(height / max(cell_y, 1.0))) + 3, int(np.ceil(width / max(cell_x, 1.0))) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    # A random shift, or the lattice of every picture would begin in its corner.
    shift = np.array([[1 / max(cell_x, 1.0), 0, rng.uniform(1, 2)], [0, 1 / max(cell_y, 1.0), rng.uniform(1, 2)]])
    way = cv2.INTER_CUBIC if max(cell_x, cell_y) > 3 else cv2.INTER_LINEAR  # linear shows its facets when enlarged
    flags = way | cv2.WARP_INVERSE_MAP
    field = cv2.warpAffine(coarse, shift, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return normalised(field)


def normalised(field: np.ndarray) -> np.ndarray:
    """`[H, W]` shifted and scaled to mean 0 and deviation 1, float32."""
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(field))
    return np.asarray((field - np.float32(mean)) * np.float32(1 / (deviation + 1e-6)), np.float32)


def fractal(rng: Rng, height: int, width: int, cell: float, octaves: int = 4, gain: float = 0.6) -> np.ndarray:
    """Sum of noises, each half as coarse as the one before and `gain` times as strong; float32 `[H, W]`."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        if octave and cell / 2**octave < 0.7:
            break
        total += gain**octave * noise(rng, height, width, cell / 2**octave)
    return normalised(total)


def jagged(rng: Rng, count: int, spacing: float) -> np.ndarray:
    """`count` values joined by straight lines between random corners about `spacing` samples apart; deviation ~1."""
    spacing = max(spacing, 1.0)
    corners = np.cumsum(rng.uniform(0.4, 1.6, int(count / spacing * 2) + 4)) * spacing - 2 * spacing
    return np.interp(np.arange(count), corners, rng.standard_normal(len(corners)))


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of a sequence `[P]` or `[P, 2]`, the ends held."""
    table = np.ascontiguousarray(values.reshape(len(values), -1), np.float64)
    size = (1, int(6 * sigma) | 1)
    return cv2.GaussianBlur(table, size, 1, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE).reshape(values.shape)


def strokes(rng: Rng, height: int, width: int, across: float, along: float, angle: float) -> np.ndarray:
    """Streaky noise float32 `[H, W]`: streaks `across` px thick and `along` px long, turned by `angle` radians."""
    side = int(np.hypot(height, width)) + 2
    field = noise(rng, side, side, along, across)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), np.degrees(angle), 1.0)
    turn[:, 2] -= np.array([(side - width) / 2, (side - height) / 2])
    return np.asarray(cv2.warpAffine(field, turn, (width, height), flags=cv2.INTER_LINEAR), np.float32)


def relief(height_map: np.ndarray, light: float) -> np.ndarray:
    """How a bumpy surface looks when lit from direction `light` (radians): brightness change per pixel `[H, W]`."""
    gx = cv2.Sobel(height_map, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    gy = cv2.Sobel(height_map, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.asarray(gx * np.float32(np.cos(light)) + gy * np.float32(np.sin(light)), np.float32)


def blob(field: np.ndarray, share: float, softness: float) -> np.ndarray:
    """Soft mask 0..1 of the highest `share` of a noise field; `softness` in the field's deviations."""
    cut = float(np.quantile(field[::3, ::3], 1 - share))
    return np.asarray(np.clip((field - cut) / softness + 0.5, 0, 1), np.float32)


def tint(rng: Rng, spread: float = 0.04) -> np.ndarray:
    """Random colour multiplier float32 `[3]` around 1: mostly warm or cold, a little green or pink."""
    warmth, green = rng.normal(0.25 * spread, spread), rng.normal(0, 0.25 * spread)
    return np.array([1 + warmth, 1 + green, 1 - warmth], np.float32)


def blend(image: np.ndarray, alpha: np.ndarray, colour: np.ndarray | float) -> None:
    """Paint `colour` (`[3]`, `[H, W, 3]` or one number) over `image` with opacity `alpha` `[H, W]`, in place."""
    image += np.asarray(alpha, np.float32)[..., None] * (np.asarray(colour, np.float32) - image)


def darken(image: np.ndarray, amount: np.ndarray, colour: np.ndarray | float = 0.0) -> None:
    """Multiply by 1 where `amount` `[H, W]` is 0 and by `colour` (0..1 per channel) where it is 1, in place."""
    image *= 1 - np.asarray(amount, np.float32)[..., None] * (1 - np.asarray(colour, np.float32))


def curve(rng: Rng, height: int, width: int, bend: float, jitter: float = 0.0) -> np.ndarray:
    """A smooth line right across the picture: float32 `[P, 2]`; `bend` and `jitter` in pixels off the straight."""
    reach, angle = float(np.hypot(height, width)), rng.uniform(0, np.pi)
    centre = rng.uniform(0.1, 0.9, 2) * [width, height]
    t = np.linspace(-1, 1, 80)
    sag = bend * (rng.normal() * (t**2 - 0.3) + 0.5 * rng.normal() * np.sin(rng.uniform(2, 5) * t + rng.uniform(0, 6)))
    sag = sag + rng.normal(0, 1, 80) * jitter
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    return (centre + t[:, None] * reach * along + sag[:, None] * across).astype(np.float32)


def line_mask(points: np.ndarray, height: int, width: int, thickness: float) -> np.ndarray:
    """Mask float32 `[H, W]` 0..1 of a line of any `thickness` in pixels (finer than a pixel: fainter)."""
    scale = 4
    fine = np.zeros((height * scale, width * scale), np.uint8)
    thick = max(1, round(thickness * scale))
    cv2.polylines(fine, [np.round(points * scale * 16).astype(np.int32)], False, 255, thick, cv2.LINE_8, 4)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def half_plane(height: int, width: int, angle: float, offset: float, softness: float) -> np.ndarray:
    """Mask 0..1 `[H, W]` of the side where x cos(angle) + y sin(angle) > offset (pixels); edge `softness` px wide."""
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    side = x[None] * np.cos(angle) + y[:, None] * np.sin(angle) - offset
    return np.asarray(np.clip(side / max(softness, 1.0) + 0.5, 0, 1), np.float32)


# --- surfaces -------------------------------------------------------------------------------------------------------


def plaster(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """Painted or bare plaster: a bumpy relief, sometimes brushed in one direction, under one colour of paint."""
    cell = unit * float(np.exp(rng.uniform(np.log(1.8), np.log(14))))
    bumps = fractal(rng, height, width, cell, 5, rng.uniform(0.45, 0.9))
    if rng.random() < 0.3:  # rendered with a sponge: separate humps on a flat ground
        bumps = np.maximum(bumps, rng.uniform(-0.8, 0.4)) + 0.15 * noise(rng, height, width, unit)
    shade = normalised(relief(bumps, light))
    if rng.random() < 0.3:  # brushed or trowelled, more in some places than in others
        across = unit * rng.uniform(1, 3)
        brush = strokes(rng, height, width, across, across * rng.uniform(5, 30), rng.uniform(0, np.pi))
        amount = rng.uniform(0.3, 1.1) * np.clip(0.5 + 0.6 * noise(rng, height, width, 70 * unit), 0, 1.2)
        shade = normalised(shade + amount * np.clip(normalised(relief(brush, light)), -2, 2))
    if rng.random() < 0.6:  # rough here, smooth there
        shade *= np.clip(1 + 0.5 * noise(rng, height, width, unit * rng.uniform(40, 150)), 0.15, 2)
    # Low sun makes small dark shadows and broad light flanks, which plain noise has not.
    shade = shade - rng.uniform(0, 0.25) * np.square(np.minimum(shade, 0))
    shade = np.clip(shade, -4, 3) * float(np.exp(rng.uniform(np.log(2.5), np.log(20))))
    clouds = rng.uniform(0, 6) * fractal(rng, height, width, 80 * unit, 6, 0.75)
    return np.asarray((rng.uniform(150, 215) + shade + clouds)[..., None] * tint(rng), np.float32)


def concrete(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """Bare concrete: cloudy, mottled at every scale, with fine grain and some relief."""
    grey = rng.uniform(95, 200)
    clouds = rng.uniform(3, 15) * fractal(rng, height, width, unit * rng.uniform(30, 150), 7, rng.uniform(0.5, 0.85))
    grain = rng.uniform(2, 14) * noise(rng, height, width, unit * rng.uniform(0.8, 2))
    bumps = relief(fractal(rng, height, width, unit * rng.uniform(2, 8), 3), light)
    value = grey + clouds + grain + rng.uniform(2, 12) * normalised(bumps)
    if rng.random() < 0.5:  # grime that sits in the pits
        dirt = fractal(rng, height, width, unit * rng.uniform(4, 40), 5, 0.8)
        value -= rng.uniform(10, 60) * blob(dirt, rng.uniform(0.02, 0.3), rng.uniform(0.3, 1.5))
    warmth = rng.uniform(0, 2.5) * fractal(rng, height, width, 60 * unit, 5, 0.8)
    return np.asarray(value[..., None] * tint(rng) + warmth[..., None] * np.array([1, 0.2, -1]), np.float32)


def asphalt(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """Asphalt or exposed aggregate: light and dark stones in a binder; coarser towards the viewer in some."""
    grey = rng.uniform(110, 175)
    stones = noise(rng, height, width, unit * rng.uniform(1.2, 5))
    value = grey + rng.uniform(4, 18) * stones + rng.uniform(3, 10) * noise(rng, height, width, unit)
    value += rng.uniform(5, 45) * blob(noise(rng, height, width, unit * rng.uniform(1.5, 4)), 0.06, 0.5)
    value -= rng.uniform(10, 50) * blob(noise(rng, height, width, unit * rng.uniform(1.5, 4)), 0.08, 0.5)
    value += rng.uniform(2, 10) * fractal(rng, height, width, 90 * unit) + 15 * relief(stones, light)
    return np.asarray(value[..., None] * tint(rng, 0.035), np.float32)


def masonry(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """Bricks, blocks or tiles: a regular, slightly turned grid of joints over one of the other surfaces."""
    image = (plaster if rng.random() < 0.6 else concrete)(rng, height, width, unit, light)
    tall = unit * rng.uniform(28, 130)
    wide = tall * rng.uniform(1.0, 3.2)
    joint = unit * rng.uniform(0.8, 6)
    angle = rng.normal(0, 0.05)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    wobble = rng.uniform(0, 0.8) * unit
    u = x * np.cos(angle) + y * np.sin(angle) + wobble * noise(rng, height, width, 12 * unit) + rng.uniform(0, wide)
    v = y * np.cos(angle) - x * np.sin(angle) + wobble * noise(rng, height, width, 12 * unit) + rng.uniform(0, tall)
    row = np.floor(v / tall)
    u += (row % 2) * rng.choice([0.0, 0.5]) * wide
    column = np.floor(u / wide)
    distance = np.minimum(np.minimum(u % wide, wide - u % wide), np.minimum(v % tall, tall - v % tall))
    mask = np.clip((joint / 2 - distance) / max(unit * rng.uniform(0.6, 2), 0.5) + 0.5, 0, 1).astype(np.float32)
    table = rng.normal(1, rng.uniform(0, 0.09), (64, 64)).astype(np.float32)
    image *= table[row.astype(int) % 64, column.astype(int) % 64][..., None]
    if rng.random() < 0.3:
        image *= np.array([rng.uniform(0.9, 1.05), rng.uniform(0.55, 0.8), rng.uniform(0.45, 0.7)], np.float32)
    ground = image.mean() * rng.choice([rng.uniform(0.35, 0.8), rng.uniform(1.05, 1.3)], p=[0.65, 0.35])
    blend(image, mask * rng.uniform(0.4, 1), ground + 6 * noise(rng, height, width, 2 * unit)[..., None])
    image += rng.uniform(0, 40) * relief(-mask, light)[..., None]
    return image


def formwork(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """Board-marked concrete: parallel straight lines, each board of its own grey, with wood grain."""
    image = concrete(rng, height, width, unit, light)
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.06)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    across = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 500)
    board = unit * rng.uniform(25, 110)
    index = np.floor(across / board).astype(int)
    image *= rng.normal(1, rng.uniform(0.01, 0.07), 64)[index % 64][..., None].astype(np.float32)
    distance = np.minimum(across % board, board - across % board)
    mask = np.clip(unit * rng.uniform(0.4, 1.4) - distance + 0.5, 0, 1).astype(np.float32)
    darken(image, mask * rng.uniform(0.15, 0.6), 0.3)
    grain = strokes(rng, height, width, unit * rng.uniform(1, 3), 60 * unit, angle + np.pi / 2)
    image += rng.uniform(1, 7) * grain[..., None]
    return image


def background(rng: Rng, height: int, width: int, unit: float, light: float) -> np.ndarray:
    """One bare surface, float32 `[H, W, 3]`, seen straight on or at a slant."""
    kinds = [plaster, concrete, asphalt, masonry, formwork]
    kind = kinds[rng.choice(5, p=[0.56, 0.2, 0.09, 0.1, 0.05])]
    image = np.asarray(kind(rng, height, width, unit, light), np.float32)
    if rng.random() < 0.25:  # a slanted view: the far side of the texture is finer
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        shrink = (rng.uniform(0, 0.45, (4, 2)) * [width, height]).astype(np.float32)
        source = corners + shrink * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32) * rng.random()
        matrix = cv2.getPerspectiveTransform(source, corners)
        image = cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return image


# --- wear and camera -------------------------------------------------------------------------------------------------


def weather(rng: Rng, image: np.ndarray, alpha: np.ndarray, unit: float, light: float) -> None:
    """What a crack of coverage `alpha` `[H, W]` 0..1 does to the wall beside it, in place: dirt, a lit rim, chips."""
    height, width = alpha.shape
    outside = 1 - alpha
    if rng.random() < 0.5:
        halo = cv2.GaussianBlur(alpha, (0, 0), unit * rng.uniform(3, 14))
        halo = halo / (halo.max() + 1e-6) * np.clip(0.6 + 0.6 * fractal(rng, height, width, 30 * unit), 0, 1.5)
        darken(image, np.clip(halo, 0, 1) * rng.uniform(0.05, 0.4), np.array([0.55, 0.5, 0.42]))
    if rng.random() < 0.6:
        swell = cv2.GaussianBlur(alpha, (0, 0), unit * rng.uniform(0.7, 2.2))
        shade = relief(-swell, light) * rng.choice([-1, 1], p=[0.3, 0.7])
        image += (outside * shade / (np.abs(shade).max() + 1e-6) * rng.uniform(8, 45))[..., None]
    if rng.random() < 0.35:  # chips broken off along it show what is under the paint
        near = cv2.GaussianBlur(alpha, (0, 0), unit * rng.uniform(2, 6))
        near = near / (near.max() + 1e-6)
        rough = fractal(rng, height, width, unit * rng.uniform(5, 16), 4)
        chips = np.clip((rough + 2.2 * near - rng.uniform(2.2, 3.4)) / 0.25, 0, 1) * outside
        under = image.mean(axis=(0, 1)) * rng.uniform(0.75, 1.25) * tint(rng, 0.05)
        grain = rng.uniform(3, 12) * noise(rng, height, width, 1.5 * unit)
        blend(image, chips * rng.uniform(0.4, 0.9), under + grain[..., None])
        image += (outside * rng.uniform(0, 60) * relief(chips, light))[..., None]


def photograph(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Light, lens and sensor: float32 grey levels in, RGB uint8 `[H, W, 3]` out."""
    height, width = image.shape[:2]
    slope = half_plane(height, width, rng.uniform(0, 2 * np.pi), rng.uniform(0, 1) * width, 2 * width)
    image = image * (1 + np.float32(rng.uniform(0, 0.45)) * (slope[..., None] - np.float32(0.5)))
    if rng.random() < 0.25:
        x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
        image = image * (1 - np.float32(rng.uniform(0, 0.2)) * (x[None] ** 2 + y[:, None] ** 2)[..., None])
    if rng.random() < 0.85:  # cameras expose for a light grey
        image *= np.float32(np.clip(rng.normal(174, 17) / float(np.median(image[::4, ::4])), 0.6, 2.0))
    excess = np.maximum(image - 200, 0)
    image += 55 * (1 - np.exp(excess / np.float32(-55))) - excess  # highlights saturate gradually
    grey = image.mean(axis=2, keepdims=True)
    if rng.random() < 0.8:  # most walls are nearly grey
        image = grey + np.float32(rng.uniform(0.0, 0.5)) * (image - grey)
    image *= tint(rng, 0.012 if rng.random() < 0.8 else 0.06)
    if rng.random() < 0.55:
        blur = rng.uniform(0.25, 0.7 if rng.random() < 0.85 else 1.6)
        cv2.GaussianBlur(image, (0, 0), blur, dst=image)
    image += np.float32(rng.uniform(0.3, 4)) * rng.standard_normal((height, width, 1), dtype=np.float32)
    if rng.random() < 0.65:  # what phones do to every picture
        image += np.float32(rng.uniform(0.2, 1.4)) * (image - cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.3)))
    return np.asarray(np.clip(np.round(image), 0, 255), np.uint8)
