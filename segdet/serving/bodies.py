"""Request bodies: read within limits, and taken apart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from segdet.serving.metrics import Metrics
from segdet.serving.refusals import Refused, bad_request, overloaded, too_large
from segdet.serving.settings import ServeConfig

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS = 64


class Bodies:
    """Reads bodies, and knows how many bytes all requests hold together."""

    def __init__(self, settings: ServeConfig, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """The whole body. The bytes count as held until `release`.

        Raises:
            Refused: 400 cut off, 408 too slow, 413 too large, 415 compressed, 503 too many bytes held for others already.
        """
        limit = self._settings.max_body
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise Refused(415, "compressed", f"content-encoding {encoding[:40]} is not taken; send the body as it is")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > limit:
            raise too_large(f"a body of {int(length):,} bytes; {limit:,} at most")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                async for part in request.stream():
                    size += len(part)
                    self._hold(len(part))
                    parts.append(part)
                    if size > limit:
                        raise too_large(f"a body of more than {limit:,} bytes")
        except BaseException as error:
            self.release(size)
            if isinstance(error, TimeoutError):
                raise Refused(408, "slow_body", f"the body took more than {self._settings.body_timeout:g} s") from error
            if isinstance(error, ClientDisconnect):
                raise bad_request("the body was cut off") from error
            raise
        return b"".join(parts)

    def release(self, size: int) -> None:
        """A body of `size` bytes is done with."""
        self._held -= size
        self._metrics.held.set(self._held)

    def _hold(self, size: int) -> None:
        self._held += size
        self._metrics.held.set(self._held)
        if self._held > self._settings.max_held:
            raise overloaded("too many large requests at once; try again later", 1)


@dataclass(frozen=True)
class Part:
    """A part of a form: a file when it has a file name."""

    name: str
    filename: str | None
    content: bytes


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart/form-data body.

    Raises:
        Refused: 400; it is damaged or ends early.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise bad_request("multipart without a boundary")
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise bad_request(f"damaged multipart body: {error}") from error
    if not collector.ended:
        raise bad_request("the multipart body ends before its last boundary")
    return collector.parts


class _Collector:
    """Gathers what the parser calls out."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._headers: dict[str, bytes] = {}
        self._field = self._value = b""
        self._content = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._add("_field", data[start:end]),
            "on_header_value": lambda data, start, end: self._add("_value", data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._content.extend(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _add(self, which: str, data: bytes) -> None:
        setattr(self, which, getattr(self, which) + data)

    def _begin(self) -> None:
        if len(self.parts) >= _MAX_PARTS:
            raise too_large(f"a form of more than {_MAX_PARTS} parts")
        self._headers, self._content = {}, bytearray()

    def _header(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value
        self._field = self._value = b""

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        filename = options.get(b"filename")
        self.parts.append(
            Part(
                options.get(b"name", b"").decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                bytes(self._content),
            )
        )

    def _finish(self) -> None:
        self.ended = True
