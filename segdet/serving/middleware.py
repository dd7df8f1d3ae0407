"""Around every request: an id, the API key, the drain, counters, one line of log, and safe headers."""

from __future__ import annotations

import hmac
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segdet.serving import logs
from segdet.serving.context import Context
from segdet.serving.failures import error_response
from segdet.serving.refusals import Refused, overloaded

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_OPEN = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/favicon.ico"}  # without a key
_LINGER_BYTES = 64 << 20
_LINGER_SECONDS = 10.0
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Outer:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # what GET would answer, and `send` leaves the body away: load balancers ask like that
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(scope, receive, send, self._context, method)
        scope["segdet.request_id"] = exchange.id
        try:
            refused = self._refusal(scope, exchange.headers)
            if refused is not None:
                self._context.metrics.rejected.labels(refused.code).inc()
                await error_response(scope, refused)(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # the handlers have answered what they could; the log has the traceback
            logs.failed(exchange.id, error)
            if not exchange.status:
                await error_response(scope, Refused(500, "internal", "internal error"))(scope, receive, exchange.send)
        finally:
            exchange.finish()

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Refused | None:
        """Why this request is not let in; None when it is."""
        path, method = scope["path"], scope["method"]
        works = method in ("POST", "PUT", "PATCH", "DELETE")
        if works and self._context.draining:
            return overloaded("the server is shutting down", 5, "shutting_down")
        if works and _foreign(headers, self._context.settings.cors):
            return Refused(
                403, "cross_site", "called by a page of another site; the server's setting cors can allow that"
            )
        key = self._context.settings.api_key
        if key and method != "OPTIONS" and path not in _OPEN and not path.startswith("/page/"):
            bearer = headers.get(b"authorization", b"")
            given = bearer[7:] if bearer[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")
            if not hmac.compare_digest(given.strip(), key.encode()):
                return Refused(
                    401, "api_key", "the API key is missing or wrong: send X-API-Key or Authorization: Bearer"
                )
        return None


def _foreign(headers: dict[bytes, bytes], allowed: Sequence[str]) -> bool:
    """Whether a page of another site sends this, one that is not among `allowed`.

    Browsers say so themselves in Sec-Fetch-Site, but only to https and localhost; Origin comes with every POST of a page.
    Clients that are no browsers send neither.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    site = headers.get(b"sec-fetch-site", b"")
    if "*" in allowed or origin in allowed or site in (b"same-origin", b"none"):
        return False
    if not origin:
        return site == b"cross-site"
    scheme, _, host = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    forwarded = headers.get(b"x-forwarded-host", b"").split(b",")  # a proxy may have put its own name into Host
    own = [name.decode("latin-1").strip().lower() for name in (headers.get(b"host", b""), *forwarded)]
    # The scheme is not compared: TLS may end at a proxy.
    return not host or host.removesuffix(port) not in [name.removesuffix(port) for name in own]


class _Exchange:
    """One request and its answer. method: as the client said it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, context: Context, method: str) -> None:
        self._scope = scope
        self._method = method
        self._receive = receive
        self._send = send
        self._context = context
        self._start = time.perf_counter()
        self._body_done = False
        self._bytes = 0
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex[:16]
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            self._body_done = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *self._extra(message)]}
            await self._send(message)
            return
        if self._method == "HEAD":
            message = {**message, "body": b""}
        self._bytes += len(message.get("body", b""))
        if message.get("more_body") or not self._unread:
            await self._send(message)
            return
        # The client is still sending a body that is not read. Closing now would reset its connection before it has read the
        # answer, so the rest is taken and thrown away first, within bounds.
        await self._send({**message, "more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def _unread(self) -> bool:
        """Whether body is still to come. A client that waits for `100 Continue` will not send it."""
        has_body = int(self.headers.get(b"content-length", b"0") or 0) > 0 or b"transfer-encoding" in self.headers
        return has_body and not self._body_done and b"expect" not in self.headers

    def _extra(self, message: Message) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in message.get("headers", [])}
        extra = [(b"x-request-id", self.id.encode()), *_SAFE]
        if b"content-security-policy" not in names:
            extra.append(_API_POLICY)
        if b"cache-control" not in names:
            extra.append((b"cache-control", b"no-store"))
        if self._unread or self._context.draining:
            extra.append((b"connection", b"close"))
        return extra

    async def _linger(self) -> None:
        import asyncio

        size = 0
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._body_done and size < _LINGER_BYTES:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass

    def finish(self) -> None:
        """Count and log."""
        seconds = time.perf_counter() - self._start
        route = getattr(self._scope.get("route"), "path", "other")
        code = str(self.status or 499)
        metrics = self._context.metrics
        metrics.requests.labels(route, self._method if route != "other" else "any", code).inc()
        metrics.latency.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request_id": self.id,
            "method": self._method,
            "path": self._scope["path"],
            "status": int(code),
            "ms": round(seconds * 1000, 1),
            "bytes": self._bytes,
            "client": (self._scope.get("client") or ("",))[0],
        }
        logs.answered(fields)
