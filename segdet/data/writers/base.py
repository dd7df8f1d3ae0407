"""What every writer shares: its interface, what it reports, and objects in the forms that formats know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segdet.data.geometry import boxes, masks, polygons, rasterize
from segdet.data.records import Dataset, Instance, Record

Names = Mapping[Path, str]  # the name that each image gets in the new folder


@dataclass
class Losses:
    """What a format could not say: a sentence with a number of things, pixels or objects each."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, what: str, count: int = 1) -> None:
        """Count something; nothing is nothing."""
        if count:
            self.counts[what] += count


@dataclass(frozen=True)
class Writer:
    """A layout that can be written.

    images: folder of a split's images, below the dataset's.
    write: everything but the images.
    """

    name: str
    images: Callable[[str], str]
    write: Callable[[Dataset, Path, Names, Losses, Callable[[], None]], None]


def whole(instance: Instance, record: Record) -> np.ndarray:
    """An outlined instance's pixels: bool `[H, W]`."""
    return rasterize.binary(rasterize.foreground(Record(record.image, record.width, record.height, (instance,), "")))


def objects(record: Record, losses: Losses) -> Iterator[Instance]:
    """The instances of a record one by one: class regions as their connected parts (then boxes beside them are left out)."""
    merged = any(instance.merged for instance in record.instances)
    for instance in record.instances:
        if instance.merged:
            found = boxes.parts(instance)
            losses.add("class regions of masks written as connected parts, each an object", len(found))
            yield from found
        elif merged and not instance.outlined:
            losses.add("boxes beside masks left out: the masks' parts are the objects")
        else:
            yield instance


def rings(instance: Instance, record: Record) -> tuple[np.ndarray, ...]:
    """Outlines of a run-length instance, outer ones and then holes: float64 `[P, 2]` each."""
    stamp, x, y = cut_out(instance, record)
    return polygons.rings(stamp, x, y)


def cut_out(instance: Instance, record: Record) -> tuple[np.ndarray, int, int]:
    """The part of a run-length mask inside its box, bool `[h, w]`, and where it lies (x, y)."""
    assert instance.rle is not None
    x1, y1, x2, y2 = (int(value) for value in masks.box(instance.rle))
    stamp = masks.decode(instance.rle) if not instance.polygons else whole(instance, record)
    if instance.polygons:
        x1, y1, (y2, x2) = 0, 0, record.size
    return stamp[y1:y2, x1:x2].astype(bool), x1, y1


def label_image(record: Record, classes: int) -> np.ndarray:
    """The record as class numbers uint8 `[H, W]`: 0 = background, k = `classes[k - 1]`, 255 = ignore.

    The same pixels that training sees: with one class crowds are foreground, with several they are ignored.
    """
    if classes == 1:
        index = rasterize.binary(rasterize.foreground(record)).astype(np.uint8)
        if record.ignore is not None:
            index[(masks.decode(record.ignore) > 0) & (index == 0)] = rasterize.IGNORE
    else:
        index = rasterize.class_index(record)
    return index


def count_unsaid(record: Record, classes: int, losses: Losses) -> None:
    """Count what a label image cannot say about a record."""
    outlined = [i for i in record.instances if i.outlined]
    losses.add("boxes without an outline left out", len(record.instances) - len(outlined))
    losses.add("outlines rounded to whole pixels", sum(bool(i.polygons) for i in outlined))
    single = [i for i in outlined if not i.merged]
    losses.add("objects that share a class and an image, that become one", len(single) - len({i.label for i in single}))
    crowds = sum(instance.crowd for instance in single)
    losses.add("crowds that are " + ("part of the class" if classes == 1 else "ignored pixels (255)") + " now", crowds)
    if classes > 1 and len({i.label for i in outlined}) > 1:
        over = np.zeros(record.size, np.uint8)
        for label in {i.label for i in outlined}:
            same = tuple(i for i in outlined if i.label == label and not i.crowd)
            over += rasterize.binary(rasterize.foreground(Record(record.image, record.width, record.height, same, "")))
        losses.add("pixels of several classes at once: the smaller object has them", int((over > 1).sum()))
