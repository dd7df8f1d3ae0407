"""Reading XML label files safely: no document type, hence no entities, and one line for what is wrong."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

from segdet.data.formats.base import Malformed, consume


class _Refused(Exception):
    """XML that label files do not hold."""


class _Builder(ElementTree.TreeBuilder):
    """Entities can only be declared in a document type; label files have none, and bombs do."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _Refused("it declares a document type (DTD), which label files do not have and attacks do")


def parse(file: Path) -> ElementTree.Element:
    """The root element of a label file, which counts as read.

    Raises:
        Malformed: not XML, or XML with a document type.
    """
    root = read_root(file)
    consume(file)
    return root


def read_root(file: Path) -> ElementTree.Element:
    """The root element.

    Raises:
        Malformed: as `parse`.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(file.read_bytes())
        return parser.close()
    except _Refused as error:
        raise Malformed(file, f"refused: {error}; remove it") from error
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Malformed(file, f"not readable XML ({reason}); export it again") from error


def root_tag(file: Path) -> str | None:
    """The name of a file's root element, from its first bytes; None when it is no XML."""
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(["start"])
    try:
        with file.open("rb") as stream:
            parser.feed(stream.read(4096))
        return next((str(element.tag) for _, element in parser.read_events()), None)  # type: ignore[union-attr, misc]
    except (ElementTree.ParseError, OSError, ValueError, LookupError):
        return None


def number(element: ElementTree.Element, name: str) -> float:
    """A number in an attribute or a child of that name; NaN, which nothing accepts, when there is none."""
    text = element.get(name)
    if text is None:
        text = element.findtext(name)
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
