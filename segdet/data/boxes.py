"""Boxes of a record, for detection: every labelled object's own box, whatever its outline."""

from __future__ import annotations

import numpy as np

from segdet.data.records import Record


def boxes_of(record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of all objects of an image, in its own pixels.

    Returns:
        boxes float32 `[K, 4]` (x1, y1, x2, y2), labels int64 `[K]` (index into the dataset's classes), and crowd bool `[K]`:
        regions of many objects, which are neither trained on nor counted as missed.
    """
    instances = record.instances
    return (
        np.array([instance.box for instance in instances], np.float32).reshape(-1, 4),
        np.array([instance.label for instance in instances], np.int64),
        np.array([instance.crowd for instance in instances], bool),
    )
