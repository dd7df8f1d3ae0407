"""Text as bytes and back, with names that are not UTF-8.

Python holds such a name's odd bytes as lone surrogates (U+DC80 to U+DCFF), which no encoder accepts as they are.
"""

from __future__ import annotations

import codecs

# The mark of UTF-32 in little-endian order begins with that of UTF-16, so the longer one comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ESCAPE = "backslashreplace"  # `\udcfc` is also how JSON writes a surrogate, so a JSON reader gets the same name back


def encoded(text: str) -> bytes:
    """UTF-8, with lone surrogates written as `\\udcfc`: valid everywhere, and inside JSON the same text when read back."""
    return text.encode("utf-8", ESCAPE)


def printable(text: str) -> str:
    """The text with lone surrogates as the characters `\\udcfc`; text without any stays as it is."""
    return encoded(text).decode()


def decoded(content: bytes, errors: str = "strict") -> str:
    """Text in UTF-8, or in what its byte order mark says (UTF-8, UTF-16 or UTF-32).

    Args:
        errors: as for `bytes.decode`; "surrogateescape" for lists of file names, whose bytes are those on disk.

    Raises:
        UnicodeDecodeError: the bytes are not text in that encoding.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, errors)
    return content.decode("utf-8", errors)
