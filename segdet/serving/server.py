"""Running the application: a socket, signals, and a shutdown that loses nothing."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
import signal
import socket
import struct
import sys
import time
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from segdet.console import say
from segdet.errors import InputError, setting
from segdet.serving import logs
from segdet.serving.app import create_app
from segdet.serving.context import Context
from segdet.serving.settings import ServeConfig

_HEADER_BYTES = 64 << 10
_HEADER_SECONDS = 15.0
_QUEUE = 512  # connections that wait to be accepted
_LAST = 0.3  # seconds before the socket closes in which no new client is accepted
_SILENT = 1.0  # seconds after that for a client that has connected and sent nothing yet
_GRACE = 5.0  # seconds beyond the requests' own timeout


class _Protocol(H11Protocol):
    """HTTP/1.1 that gives up on clients whose headers never end, and lets a client with bad ones read why."""

    _patience: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._be_patient()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # the rest of a request that was turned down
        super().data_received(data)
        if self._begun:
            self._be_patient()
        elif self.conn.their_state is not h11.IDLE:
            self._enough()

    def shutdown(self) -> None:
        """As uvicorn's, but a request that has begun is answered, and a new connection gets time to begin one."""
        if self._patience is None and self.cycle is not None:
            super().shutdown()
        else:
            self.loop.call_later(_SILENT, self._leave)

    def _leave(self) -> None:
        # A request whose headers are under way keeps the time that every request has for them.
        if not self.transport.is_closing() and not self._begun:
            super().shutdown()

    @property
    def _begun(self) -> bool:
        """Whether a part of the next request's headers has come."""
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._enough()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._refused = True
        body = b'{"error": "not a valid HTTP request"}'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.loop.call_later(1.0, self.transport.close)

    def _be_patient(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(_HEADER_SECONDS, self.transport.close)

    def _enough(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Server(uvicorn.Server):
    """On SIGTERM: not ready and nothing new from this moment, but still listening for a while, so that load balancers see
    it; then what was taken is finished, and the process ends."""

    def __init__(self, config: uvicorn.Config, context: Context, listener: socket.socket, drain_delay: float) -> None:
        super().__init__(config)
        self._listener = listener
        self._context = context
        self._drain_delay = drain_delay
        self._ends = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own, which ends the process by the signal it was sent: a clean stop has exit code 0.
        if self._context.draining:  # a second signal: stop at once
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._context.draining = True
        logs.event("stopping: nothing new is taken, what was taken is finished")
        if sig == signal.SIGTERM and self._drain_delay > 0 and self.started:
            self._ends = time.monotonic() + self._drain_delay
        else:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() > self._ends - _LAST:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closing the socket resets everybody who is connected and not accepted yet. So the queue ends first, then it empties.
        refuse_connections(self._listener)
        await asyncio.sleep(_LAST)
        await super().shutdown(sockets)


def serve(settings: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Without `api_key` the key comes from the environment variable SEGDET_API_KEY, if it is set.

    Raises:
        InputError: a model that cannot be used, or an address that is taken.
    """
    logs.configure(settings.log)
    host, key = settings.host, settings.api_key or os.environ.get("SEGDET_API_KEY") or None
    if host not in ("127.0.0.1", "localhost", "::1") and key is None:
        say(f"segdet: {host} accepts other machines and no API key is set: whoever reaches this port may use it")
    settings = settings.model_copy(update={"api_key": key})
    listener = _listen(host, settings.port)
    app = create_app(settings, logs.event)
    context: Context = app.state.context
    try:
        # Before the socket answers anything: a wrong file is one line at once.
        context.models.load(logs.event)
        place = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        logs.event(f"serving on {place} (the page; API at {place}/docs)", address=place)
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=round(settings.timeout + _GRACE),
        )
        _silence()
        _Server(config, context, listener, settings.drain_delay).run(sockets=[listener])
        logs.event("stopped")
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio turns off Nagle's algorithm for sockets that name their protocol; with it, the body of an answer waits for
        # the client's acknowledgement of its headers, which takes 40 ms on a connection that is kept open.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        place = f"{setting('host', host)} {setting('port', port)}"
        raise InputError(f"{place}: {error.strerror or error}; choose another") from error
    listener.listen(_QUEUE)
    return listener


# A program for the kernel's socket filter, as (operation, jump if true, jump if false, operand).
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags, byte 13 of the TCP header
    (0x45, 0, 1, 0x02),  # does this segment ask for a connection?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all others
)
_SO_ATTACH_FILTER = 26


def refuse_connections(listener: socket.socket) -> None:
    """Close a listening socket's queue to new clients; those in it, or on the way into it, can still be accepted.

    Whoever asks for a connection now gets no reply, asks again after a second, and is refused once the socket is closed.
    """
    listener.listen(0)  # where there is no filter, one client at a time can still slip in
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _DROP_SYN))
    try:
        filtered = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)
    except OSError:  # a kernel without socket filters
        return
    listener.listen(_QUEUE)  # handshakes that are under way find room


def _silence() -> None:
    """Silence libraries, whose lines would mix with ours.

    What uvicorn says of errors in the application, the middleware logs; what python_multipart says of a form, the client
    reads in the answer. The rest takes the form of our lines.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
