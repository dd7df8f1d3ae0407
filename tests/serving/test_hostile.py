"""Requests that mean harm, or are damaged: each gets its 4xx, costs little, and the next good request is answered."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import Server, StartServer, encoded, wall


def _address(server: Server) -> tuple[str, int]:
    host, port = server.address.removeprefix("http://").split(":")
    return host, int(port)


def _raw(server: Server, *parts: bytes, pause: float = 0.0, close: bool = False) -> bytes:
    """What comes back when these bytes are sent as they are."""
    with socket.create_connection(_address(server), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        if close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if b"\r\n\r\n" in answer and len(answer.split(b"\r\n\r\n", 1)[1]) >= _length(answer):
                break
        return answer


def _length(answer: bytes) -> int:
    for line in answer.split(b"\r\n\r\n", 1)[0].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 1 << 60


def _bomb(side: int) -> bytes:
    """A PNG of `side` x `side` black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packed.compress(row * 64) for _ in range(side // 64)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.full((8, 8), n, np.uint8)) for n in (0, 200)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


_BIG = np.zeros((3000, 3000, 3), np.uint8)  # 9 megapixels, the server takes 8


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_bomb(32768), 413, "million pixels"),
        (_bomb(12032), 413, "million pixels"),
        (encoded(_BIG), 413, "9.0 million pixels; 8 million at most"),
        (wall(1)[:300], 400, "image"),
        (encoded(np.zeros((64, 64, 3), np.uint8), "JPEG")[:-200], 400, "image"),
        (_animation(), 400, "animation of 2 frames"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5000), 400, "image"),
        (b"GIF89a" + b"\xff" * 5000, 400, "image"),
        (b"II*\x00" + struct.pack("<I", 8) + b"\xff\xff" + bytes(4000), 400, "image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "not an image"),
        (np.random.default_rng(0).bytes(1 << 20), 400, "not an image"),
    ],
)  # fmt: skip
def test_hostile_images(server: Server, body: bytes, status: int, said: str) -> None:
    answer = server.client.post("/v1/predict", content=body)
    assert answer.status_code == status and said in answer.json()["error"], answer.text
    assert server.good()


def test_forty_megabytes_are_told_413_whether_announced_or_not(server: Server) -> None:
    noise = np.random.default_rng(1).bytes(40 << 20)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(noise), 1 << 20):
            yield noise[start : start + (1 << 20)]

    for content in (noise, pieces()):  # with Content-Length, and chunked
        answer = server.client.post("/v1/predict", content=content)
        assert answer.status_code == 413 and "4,194,304" in answer.json()["error"], answer.text
        assert server.good()
    for path in ("/v2/models/walls/infer", "/v1/nothing", "/v1/models"):
        assert server.client.post(path, content=noise).status_code in (404, 405, 413)
    assert server.good()


def test_damaged_forms(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    many = b"".join(b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n' for _ in range(200)) + b"--b--\r\n"
    for body, kind, said in (
        (part + wall(1)[:100], "multipart/form-data; boundary=b", "ends before its last boundary"),
        (part + wall(1), "multipart/form-data; boundary=b", "ends before its last boundary"),
        (wall(1), "multipart/form-data; boundary=b", "multipart"),
        (wall(1), "multipart/form-data", "without a boundary"),
        (b"", "multipart/form-data; boundary=b", "ends before"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", "no image in the form"),
        (wall(1), "multipart/form-data; boundary=" + "b" * 5000, "multipart"),
        (b"--b\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", "multipart"),
        (many, "multipart/form-data; boundary=b", "64 parts"),
    ):
        answer = server.client.post("/v1/predict", content=body, headers={"content-type": kind})
        assert answer.status_code in (400, 413) and said in answer.json()["error"], (kind[:60], answer.text)
        assert server.good()


def test_bytes_that_are_no_http(server: Server) -> None:
    huge = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Junk: " + b"j" * 500_000 + b"\r\n\r\n"
    many = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n"
    for sent in (huge, many, b"nonsense\r\n\r\n", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"POST / HTTP/1.1\r\nHost: x\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"):  # fmt: skip
        answer = _raw(server, sent)
        assert answer.split(b" ")[1] in (b"400", b"404", b"405", b"431"), answer[:200]
        assert server.good()
    for target in ("/v1/models/%00", "/v1/models/..%2f..%2fetc", "/page/../app.py", "/page/%2e%2e%2fapp.py", "/%ff%fe"):
        assert server.client.get(target).status_code == 404
    assert server.client.request("BREW", "/v1/predict").status_code == 405
    assert server.good()


def test_a_compressed_body_is_refused(server: Server) -> None:
    answer = server.client.post(
        "/v1/predict", content=zlib.compress(bytes(1 << 22)), headers={"content-encoding": "deflate"}
    )
    assert answer.status_code == 415 and server.good()


def test_slow_and_broken_senders_hold_nothing_up(start: StartServer, models: dict) -> None:  # type: ignore[type-arg]
    server = start("--model", models["walls"], "--body-timeout", 1, "--drain-delay", 0)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    slow = [socket.create_connection(_address(server), timeout=30) for _ in range(50)]
    for connection in slow:
        connection.sendall(head + b"x")
    assert server.good()
    for connection in slow:
        assert b" 408 " in connection.recv(4096)
        connection.close()
    for _ in range(20):  # gone before the body is complete
        with socket.create_connection(_address(server), timeout=30) as connection:
            connection.sendall(head + b"half")
    assert server.good()
    held = [line for line in server.client.get("/metrics").text.splitlines() if line.startswith("segdet_body_bytes ")]
    assert held == ["segdet_body_bytes 0.0"]
    assert not [line for line in server.log if "traceback" in line]


def test_only_who_may_is_let_in(start: StartServer, models: dict) -> None:  # type: ignore[type-arg]
    server = start("--model", models["walls"], "--drain-delay", 0, env={"SEGDET_API_KEY": "käse-7"})
    client = server.client
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v2", "/v2/models/walls"):
        refused = client.get(path)
        assert (
            refused.status_code == 401 and "error" in refused.json() and refused.headers["www-authenticate"] == "Bearer"
        )
    assert client.post("/v1/predict", content=wall(1)).status_code == 401
    assert client.post("/v1/predict", content=wall(1), headers={"x-api-key": "wrong"}).status_code == 401
    for path in ("/", "/page/app.js", "/healthz", "/readyz", "/v2/health/ready"):
        assert client.get(path).status_code == 200, path
    key = "käse-7".encode()
    for headers in ({b"x-api-key": key}, {b"authorization": b"Bearer " + key}):
        assert client.post("/v1/predict", content=wall(1), headers=headers).status_code == 200
    other_site = {b"x-api-key": key, b"sec-fetch-site": b"cross-site"}
    assert client.post("/v1/predict", content=wall(1), headers=other_site).status_code == 403
    assert (
        "access-control-allow-origin" not in client.get("/healthz", headers={"origin": "http://evil.example"}).headers
    )
    assert not [line for line in server.log if "käse" in line or "k\\u00e4se" in line]


def test_pages_of_other_origins_when_they_are_allowed(start: StartServer, models: dict) -> None:  # type: ignore[type-arg]
    server = start("--model", models["walls"], "--cors", "https://bridge.example", "--drain-delay", 0)
    preflight = {"origin": "https://bridge.example", "access-control-request-method": "POST"}
    answer = server.client.options("/v1/predict", headers=preflight)
    assert answer.headers["access-control-allow-origin"] == "https://bridge.example"
    other = server.client.options("/v1/predict", headers={**preflight, "origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
    headers = {"origin": "https://bridge.example", "sec-fetch-site": "cross-site"}
    assert server.client.post("/v1/predict", content=wall(1), headers=headers).status_code == 200
    for foreign in ({**headers, "origin": "https://other.example"}, {"sec-fetch-site": "cross-site"}):
        refused = server.client.post("/v1/predict", content=wall(1), headers=foreign)
        assert refused.status_code == 403 and "setting cors" in refused.json()["error"], foreign


def test_pages_of_other_origins_are_known_without_sec_fetch_site(server: Server) -> None:
    """Browsers send Sec-Fetch-Site to https and localhost only; Origin they send with every POST."""
    host = server.address.removeprefix("http://")
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-site"}, 403),
        ({}, 200),
        ({"origin": server.address}, 200),
        ({"origin": f"https://{host}"}, 200),  # TLS ends at a proxy
        ({"origin": "https://Bridge.example", "host": "bridge.example:443"}, 200),
        ({"origin": "http://bridge.example:8443", "x-forwarded-host": "bridge.example:8443, inner"}, 200),
        ({"origin": "https://bridge.example", "sec-fetch-site": "same-origin"}, 200),  # a proxy that passes no host on
    ):
        for path in ("/v1/predict", "/v2/models/walls/infer"):
            content = wall(1)
            length = {"inference-header-content-length": "0"}
            answer = server.client.post(path, content=content, headers={**headers, **length})
            assert answer.status_code == status, (headers, answer.text)
    foreign = {"origin": "http://evil.example"}
    told = server.client.post("/v1/predict", content=wall(1), headers=foreign).json()
    assert told["code"] == "cross_site" and "page of another site" in told["error"]
    assert server.client.get("/v1/models", headers=foreign).status_code == 200  # its answer is kept from that page
