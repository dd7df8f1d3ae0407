"""Changes to label files and images, as damage, other programs and slips make them. Each takes bytes and returns bytes."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]

_NUMBERS = (
    "1e999", "-1e308", "nan", "inf", "-inf", "9" * 400, "-1", "0", "1e-320", "0x1F", "1_0", "½", "2147483648", "1.0",
    "18446744073709551616", "4294967295", "99999", "-0.0", "true", "null", '""', '"1"', "1,5", "", "--1", "[]",
)  # fmt: skip
_INSERTED = (
    b"\0", b"\0" * 64, b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n\n\n", b"\x1a", b"\xff", b"\xed\xb3\xbc",
    b"<", b"&", b"]]>", b'"', b"'", b"{", b"}", b"[", b"]", b",", b"\t", b"#", b"//", b"../", b"\\", b"%s", b"*a", b"&a",
    "\u2028".encode(), "\u202e".encode(), "Riß".encode(), "裂缝".encode(), b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
)  # fmt: skip
_ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-8-sig",
    "latin-1",
    "cp1252",
    "gbk",
    "shift_jis",
    "utf-7",
)


def flip(content: bytes, rng: Rng) -> bytes:
    """Some bytes replaced; half of the time near the start, where headers are."""
    if not content:
        return b"\0"
    out = bytearray(content)
    end = len(out) if rng.random() < 0.5 else min(len(out), 96)
    for position in rng.integers(0, end, rng.integers(1, 9)):
        out[position] = rng.integers(0, 256)
    return bytes(out)


def cut(content: bytes, rng: Rng) -> bytes:
    """The end missing."""
    return content[: rng.integers(0, len(content) + 1)]


def hole(content: bytes, rng: Rng) -> bytes:
    """A part in the middle missing."""
    first, last = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:first] + content[last:]


def insert(content: bytes, rng: Rng) -> bytes:
    """A few bytes inserted that mean something to a parser or a terminal."""
    place = rng.integers(0, len(content) + 1)
    return content[:place] + _INSERTED[rng.integers(len(_INSERTED))] + content[place:]


def empty(content: bytes, rng: Rng) -> bytes:
    """Nothing, or bytes without meaning."""
    return [b"", b"\0" * 300, b" \n", rng.bytes(200)][rng.integers(4)]


def number(content: bytes, rng: Rng) -> bytes:
    """One to three numbers replaced by huge, odd or non-numbers."""
    text = content.decode("utf-8", "surrogateescape")
    for _ in range(rng.integers(1, 4)):
        spans = [match.span() for match in re.finditer(r"-?\d+(\.\d+)?", text)]
        if not spans:
            break
        first, last = spans[rng.integers(len(spans))]
        text = text[:first] + _NUMBERS[rng.integers(len(_NUMBERS))] + text[last:]
    return text.encode("utf-8", "surrogateescape")


def word(content: bytes, rng: Rng) -> bytes:
    """One word replaced by another word of the file."""
    text = content.decode("utf-8", "surrogateescape")
    spans = [match.span() for match in re.finditer(r"[\w./-]+", text)]
    if not spans:
        return content
    (first, last), (a, b) = (spans[rng.integers(len(spans))] for _ in range(2))
    return (text[:first] + text[a:b] + text[last:]).encode("utf-8", "surrogateescape")


def rows(content: bytes, rng: Rng) -> bytes:
    """Rows repeated, exchanged or dropped, or their separators changed."""
    lines = content.split(b"\n")
    kind = rng.integers(5)
    k, m = rng.integers(len(lines), size=2)
    if kind == 0:
        lines[k:k] = [lines[m]] * int(rng.integers(1, 50))
    elif kind == 1:
        lines[k], lines[m] = lines[m], lines[k]
    elif kind == 2:
        del lines[k]
    elif kind == 3:
        lines[k] = lines[k] + b" " + lines[m]
    else:
        return content.replace(b" ", [b",", b"\t", b";", b"  "][rng.integers(4)])
    return b"\n".join(lines)


def encoding(content: bytes, rng: Rng) -> bytes:
    """The same text in another encoding, with letters that are not ASCII."""
    text = content.decode("utf-8", "replace").replace("crack", "Riß" if rng.random() < 0.5 else "裂缝")
    return text.encode(_ENCODINGS[rng.integers(len(_ENCODINGS))], "replace")


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ())
    return [
        *((*path, key) for key, _ in children),
        *(p for key, child in children for p in _places(child, (*path, key))),
    ]


def json_value(content: bytes, rng: Rng) -> bytes:
    """One to three values of a JSON file replaced by values of another type, dropped, nested or repeated."""
    try:
        tree = json.loads(content)
    except ValueError:
        return flip(content, rng)
    for _ in range(rng.integers(1, 4)):
        places = _places(tree)
        if not places:
            break
        *parents, key = places[rng.integers(len(places))]
        node = tree
        for step in parents:
            node = node[step]
        old, kind = node[key], rng.integers(8)
        others: list[Any] = [
            None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 10**30, "", "1", "x" * 500, "\ud800", "a\0b", "../..",
            [], {}, [[]], [None], [[[1, 2]]], {"a": 1}, {"size": [1, 1], "counts": "x"}, -(10**9), "b'12'", ["0"],
        ]  # fmt: skip
        if kind == 0:
            del node[key]
        elif kind == 1 and isinstance(node, list):
            node.insert(key, old)
        elif kind == 2:
            node[key] = [old]
        elif kind == 3:
            node[key] = str(old)
        elif kind == 4 and isinstance(old, (int, float)):
            node[key] = float(old)
        elif kind == 5:
            for _ in range(rng.integers(1, 200)):
                old = [old]
            node[key] = old
        else:
            node[key] = others[rng.integers(len(others))]
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def deep(content: bytes, rng: Rng) -> bytes:
    """Nesting deeper than any recursion limit, in the file's own language."""
    depth = int(rng.choice([50, 2000, 100_000]))
    if content.lstrip().startswith(b"<"):
        return b"<a>" * depth + content + b"</a>" * depth
    if rng.random() < 0.5:
        return b'{"images": ' + b"[" * depth + b"]" * depth + b"}"
    return b"names: " + b"[" * min(depth, 2000) + b"]" * min(depth, 2000)


def xml_part(content: bytes, rng: Rng) -> bytes:
    """A tag or attribute of an XML file dropped, renamed or repeated."""
    text = content.decode("utf-8", "surrogateescape")
    spans = [match.span() for match in re.finditer(r'<[^>]*>|\w+="[^"]*"', text)]
    if not spans:
        return flip(content, rng)
    first, last = spans[rng.integers(len(spans))]
    part = text[first:last]
    new = ["", part * 2, part.upper(), part.replace("<", "<x:", 1), "<x/>"][rng.integers(5)]
    return (text[:first] + new + text[last:]).encode("utf-8", "surrogateescape")


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(content: bytes, rng: Rng) -> bytes:
    """Another size, bit depth or kind of colour in a PNG, JPEG, BMP or GIF header, with checksums that match."""
    sizes = (0, 1, 7, 63, 65, 1000, 13_000, 65_535, 100_000, 2**31 - 1, 2**32 - 1)
    width, height = (sizes[k] for k in rng.integers(len(sizes), size=2))
    if content.startswith(b"\x89PNG") and len(content) > 33:
        w, h, depth, colour, *others = struct.unpack(">IIBBBBB", content[16:29])
        kind = rng.integers(4)
        if kind == 0:
            w, h = width, height
        elif kind == 1:
            w = width
        elif kind == 2:
            depth, colour = int(rng.choice([1, 2, 4, 8, 16, 3])), int(rng.choice([0, 2, 3, 4, 6, 5]))
        else:
            others[rng.integers(3)] = int(rng.integers(4))
        return content[:8] + _png_chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, *others)) + content[33:]
    sof = re.search(rb"\xff[\xc0\xc2]..[\x08]", content, re.DOTALL)
    if content.startswith(b"\xff\xd8") and sof:
        at = sof.end()
        return content[:at] + struct.pack(">HH", height % 65_536, width % 65_536) + content[at + 4 :]
    return flip(content, rng)


def chunk(content: bytes, rng: Rng) -> bytes:
    """A PNG with a further chunk: a palette, transparency, a broken profile, an animation, a text bomb."""
    if not content.startswith(b"\x89PNG"):
        return flip(content, rng)
    bodies = (
        (b"PLTE", rng.bytes(int(rng.choice([3, 6, 768, 7])))),
        (b"tRNS", rng.bytes(int(rng.choice([1, 2, 6, 256])))),
        (b"iCCP", b"x\0\0" + zlib.compress(rng.bytes(50))),
        (b"acTL", struct.pack(">II", int(rng.integers(0, 5)), 0)),
        (b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 3_000_000)),
        (b"eXIf", rng.bytes(30)),
        (b"gAMA", struct.pack(">I", int(rng.integers(0, 10)))),
    )
    return content[:33] + _png_chunk(*bodies[rng.integers(len(bodies))]) + content[33:]


def redrawn(content: bytes, rng: Rng) -> bytes:
    """The same picture saved in another mode, size or format under the old name."""
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except Exception:
        return flip(content, rng)
    if rng.random() < 0.3:
        picture = picture.resize((int(rng.integers(1, 200)), int(rng.integers(1, 200))))
    if rng.random() < 0.2:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    mode = str(rng.choice(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV"]))
    kind = str(rng.choice(["PNG", "PNG", "TIFF", "TIFF", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TGA", "JPEG2000"]))
    buffer = io.BytesIO()
    more: dict[str, Any] = {}
    if kind in ("GIF", "TIFF", "WEBP", "PNG") and rng.random() < 0.2:
        more = {"save_all": True, "append_images": [picture.convert("RGB").rotate(9)]}
    if kind == "TIFF":
        more["compression"] = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    try:
        picture = _values(picture, mode, rng)
        picture.save(buffer, kind, **more)
    except Exception:  # Pillow does not write this mode in this format
        return flip(content, rng)
    return flip(buffer.getvalue(), rng) if rng.random() < 0.2 else buffer.getvalue()


def _values(picture: Image.Image, mode: str, rng: Rng) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * int(rng.choice([1, 2, 257])))
    if mode == "P":
        shrunk = picture.convert("L").point(lambda value: value % 7)
        shrunk.putpalette(rng.bytes(768))
        return shrunk
    if mode == "RGBA":
        clear = picture.convert("RGBA")
        clear.putalpha(picture.convert("L"))
        return clear
    return picture.convert(mode)


_ANY: tuple[Mutation, ...] = (flip, flip, cut, hole, insert, empty)
_TEXT: tuple[Mutation, ...] = (*_ANY, number, number, word, rows, encoding, deep)
_BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".json": (*_TEXT, json_value, json_value, json_value, json_value),
    ".xml": (*_TEXT, xml_part, xml_part),
}
_IMAGE: tuple[Mutation, ...] = (*_ANY, header, header, chunk, redrawn, redrawn)


def label_file(content: bytes, suffix: str, rng: Rng) -> tuple[str, bytes]:
    """The name of a mutation for label files of this ending, and what it makes of the content."""
    choices = _BY_SUFFIX.get(suffix, _TEXT)
    mutation = choices[rng.integers(len(choices))]
    return mutation.__name__, mutation(content, rng)


def image_file(content: bytes, rng: Rng) -> tuple[str, bytes]:
    """The same for images and masks."""
    mutation = _IMAGE[rng.integers(len(_IMAGE))]
    return mutation.__name__, mutation(content, rng)
