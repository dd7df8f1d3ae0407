"""Rows of YOLO's label files: `class x_centre y_centre width height` or `class x1 y1 x2 y2 ...`, normalised."""

from __future__ import annotations

import numpy as np

from segdet.data.records import Fault, Instance, box_of, clean_box, clean_polygon

MAX_CLASSES = 10_000


def instances(
    text: str, width: int, height: int, classes: int | None, keypoints: int
) -> tuple[list[Instance], list[Fault]]:
    seen: set[str] = set()
    boxes: list[Instance] = []
    outlines: list[Instance] = []
    rows: list[int] = []  # where the boxes stand
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.strip()
        if not row:
            continue
        if row in seen:
            faults.append(Fault("repeated", f"row {number}: the same as an earlier row"))
            continue
        seen.add(row)
        instance, fault = _instance(row, width, height, classes, keypoints)
        if fault is not None:
            faults.append(Fault(fault.kind, f"row {number}: {fault.what}"))
        if instance is not None:
            (outlines if instance.polygons else boxes).append(instance)
            rows += [] if instance.polygons else [number]
    if boxes and outlines:
        listed = ", ".join(map(str, rows[:3]))
        faults.append(Fault("boxed", f"row {listed}: a box among polygons; it counts for detection, not for masks"))
    return [*outlines, *boxes], faults


def _instance(
    row: str, width: int, height: int, classes: int | None, keypoints: int
) -> tuple[Instance | None, Fault | None]:
    read = _numbers(row, keypoints)
    if isinstance(read, Fault):
        return None, read
    label, values = read
    if not 0 <= label < (MAX_CLASSES if classes is None else classes):
        known = f"in the list of classes (0..{classes - 1})" if classes else "a class number"
        return None, Fault("class", f"class {label} is not {known}")
    if len(values) == 4:
        x, y, w, h = values * np.array([width, height, width, height])
        box, fault = clean_box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
        return (Instance(label, (), box) if box is not None else None), fault
    polygon, fault = clean_polygon(values.reshape(-1, 2) * [width, height], width, height)
    return (Instance(label, (polygon,), box_of([polygon])) if polygon is not None else None), fault


def _numbers(row: str, keypoints: int) -> tuple[int, np.ndarray] | Fault:
    """Class and coordinates of one row; of a pose only the box."""
    try:
        label, *values = map(float, row.split())
        if label != int(label):
            raise ValueError
    except (ValueError, OverflowError):
        shown = row if len(row) <= 40 else row[:37] + "..."
        return Fault("malformed", f"not `class x y ...` in numbers: {shown!r}; correct or remove it")
    if keypoints:
        if len(values) not in (4, 4 + keypoints):
            what = f"{len(values)} values after the class; kpt_shape says {4 + keypoints} (a box and its keypoints)"
            return Fault("malformed", f"{what}; correct the row or kpt_shape")
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values)} coordinates; a box has 4, a polygon an even number from 6 on; correct or remove it"
        return Fault("malformed", what)
    numbers = np.array(values)
    if not np.abs(numbers).max() <= 1e9:  # far outside stays outside, without overflow; what is not finite stays so
        numbers = np.where(np.isfinite(numbers), np.clip(numbers, -1e9, 1e9), numbers)
    return int(label), numbers
