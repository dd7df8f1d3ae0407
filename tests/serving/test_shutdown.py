"""The last moments of a server: nobody who got in is left without an answer."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from segdet.serving.server import refuse_connections
from tests.serving.conftest import StartServer


@pytest.mark.skipif(sys.platform != "linux", reason="needs socket filters")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_queue_that_ends_keeps_who_is_in_it(family: socket.AddressFamily, host: str) -> None:
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"no {host} here")
    place = listener.getsockname()[:2]
    inside = [socket.create_connection(place, timeout=5) for _ in range(3)]
    refuse_connections(listener)
    late = socket.socket(family)
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.connect(place)
    for client in inside:
        client.sendall(b"question")
        accepted, _ = listener.accept()
        accepted.settimeout(5)
        assert accepted.recv(20) == b"question"
        accepted.sendall(b"answer")
        assert client.recv(20) == b"answer"
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=5)


def test_a_request_that_has_begun_is_answered_after_the_socket_has_closed(
    start: StartServer, models: dict[str, Path]
) -> None:
    server = start("--model", models["walls"], "--drain-delay", 2)  # time for a busy machine to read what was sent
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    fresh, kept, silent = (socket.create_connection((host, int(port)), timeout=30) for _ in range(3))
    kept.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
    assert kept.recv(65536).startswith(b"HTTP/1.1 200")
    for client in (fresh, kept):
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-")
    server.process.send_signal(signal.SIGTERM)
    assert silent.recv(10) == b"", "who asks nothing is let go"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=30)
    for client in (fresh, kept):
        client.sendall(b"length: 3\r\n\r\nxyz")
        answer = _all(client)
        assert answer.startswith(b"HTTP/1.1 503") and b"shutting_down" in answer, answer
        assert b"connection: close" in answer.lower(), answer
    assert server.process.wait(30) == 0


def _all(client: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = [client.recv(65536)]
    while parts[-1]:
        parts.append(client.recv(65536))
    return b"".join(parts)


def test_new_connections_up_to_the_end_are_answered_or_refused(start: StartServer, models: dict[str, Path]) -> None:
    """Closing a listening socket resets connections in its queue; here none is, however many come."""
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            connection = HTTPConnection(host, int(port), timeout=60)
            try:
                connection.request("POST", "/v1/predict", b"no image")
                outcomes[str(connection.getresponse().status)] += 1
            except ConnectionRefusedError:
                outcomes["refused"] += 1
                time.sleep(0.02)
            except (OSError, HTTPException) as error:
                outcomes[repr(error)] += 1
            connection.close()

    server = start("--model", models["walls"], "--drain-delay", 1)
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    while not outcomes["400"]:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(60)
    ended.set()
    for thread in threads:
        thread.join()
    assert code == 0 and set(outcomes) <= {"400", "503", "refused"}, outcomes
    assert outcomes["503"]
