"""From the colours of mask images to class numbers: by a list, by one hue, or by Pascal VOC's palette; else in doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segdet.data.formats.class_list import VOC_CLASSES, VOC_COLOURS, ClassList
from segdet.data.formats.mask_image import BLACK, Colour, MaskImage
from segdet.data.geometry import masks
from segdet.data.geometry.rasterize import IGNORE

UNKNOWN = 256  # pixels of a colour that is in no list; no value of a mask
_BORDER: Colour = (224, 224, 192)  # around Pascal VOC's objects
_WHITE: Colour = (255, 255, 255)
_VOC = {colour: value for colour, value in VOC_COLOURS.items() if value < len(VOC_CLASSES) or value == IGNORE}
_NEAR = 3  # rounding of a channel

Regions = Mapping[int, Mapping[str, Any]]  # run-length mask by value


@dataclass(frozen=True)
class Coding:
    """How the masks of a dataset become values.

    listed: the class list, where it has colours. mapping: values of colours without a list; None: masks hold values.
    doubt: colours that may mean more than one thing, the most frequent first; then no value means anything.
    """

    listed: ClassList | None = None
    mapping: Mapping[Colour, int] | None = None
    doubt: Sequence[Colour] = field(default=())

    def values(self, image: MaskImage) -> Regions:
        """The regions of a mask by value; `UNKNOWN` for colours without one."""
        if self.listed is None and self.mapping is None:
            return image.regions
        if self.listed is not None and _by_number(image, self.listed):
            return image.regions
        parts: dict[int, list[Mapping[str, Any]]] = {}
        for colour, rle in image.by_colour().items():
            parts.setdefault(self._value(colour, image.numbered), []).append(rle)
        return {value: some[0] if len(some) == 1 else masks.union(some) for value, some in parts.items()}

    def unknown(self, image: MaskImage) -> Colour:
        """The first colour of a mask that has no value."""
        return next(colour for colour in image.by_colour() if self._value(colour, image.numbered) == UNKNOWN)

    def _value(self, colour: Colour, numbered: bool) -> int:
        known = self.listed.colours if self.listed is not None else self.mapping or {}
        if colour in known:
            return known[colour]
        if colour == BLACK:
            return 0
        return IGNORE if colour == _BORDER or (numbered and colour == _WHITE) else UNKNOWN


def coding_of(images: Sequence[MaskImage], listed: ClassList | None, soft: bool) -> Coding:
    """How these masks are to be read.

    Args:
        soft: brightness between 0 and the highest is smoothed edges only.
    """
    if listed is not None and listed.colours:
        return Coding(listed)
    if all(image.numbered for image in images) and not _palettes_differ(images):
        return Coding()
    areas: Counter[Colour] = Counter()
    for image in images:
        for key, colour in image.colours.items():
            areas[colour] += masks.area(image.regions[key])
    seen = [colour for colour, _ in areas.most_common()]
    values = _one_hue(seen) if listed is None or len(listed.objects) == 1 else None
    if values is not None and (soft or len(set(values.values()) - {0}) == 1):
        return Coding(mapping=values)
    if listed is None and all(colour in _VOC for colour in seen):
        return Coding(mapping=_VOC)
    return Coding(mapping={}, doubt=seen)


def _by_number(image: MaskImage, listed: ClassList) -> bool:
    """Whether a mask holds class numbers rather than the colours of the list."""
    if not image.numbered:
        return False
    if image.palette:
        return not all(colour in listed.colours for colour in image.colours.values())
    if listed.colours.get(BLACK, 0):
        return False
    values = set(image.regions) - {0}
    if values - {IGNORE} <= set(listed.names) and not (IGNORE in values and _WHITE in listed.colours):
        return True
    return not any((value, value, value) in listed.colours for value in values)


def _palettes_differ(images: Sequence[MaskImage]) -> bool:
    """Whether palettes are sorted for each file apart: an index has several colours, or black stands behind index 0."""
    known: dict[int, Colour] = {}
    for image in images:
        if not image.palette:
            continue
        if any(known.setdefault(index, colour) != colour for index, colour in image.colours.items()):
            return True
        if image.colours.get(0, BLACK) != BLACK and any(
            colour == BLACK for index, colour in image.colours.items() if index != IGNORE
        ):
            return True
    return False


def _one_hue(colours: Sequence[Colour]) -> dict[Colour, int] | None:
    """Brightness from 0 to 255 where all colours are shades of one, else None."""
    top = max(colours, key=sum, default=BLACK)
    if top == BLACK:
        return {BLACK: 0}
    shades: dict[Colour, int] = {}
    for colour in colours:
        share = max(colour) / max(top)
        if any(abs(channel - share * full) > _NEAR for channel, full in zip(colour, top, strict=True)):
            return None
        shades[colour] = round(255 * share)
    return shades
