"""The Python client against a real server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segdet
from segdet.serving.client import Client, ServerError
from tests.serving.conftest import Server, StartServer, blobs, wall


def test_the_client_does_what_the_api_does(server: Server, models: dict[str, Path], tmp_path: Path) -> None:
    photo = tmp_path / 'wall "7" ü.png'
    photo.write_bytes(wall(1))
    expected = segdet.load(models["walls"]).predict(photo)
    with Client(server.address) as client:
        assert [model["name"] for model in client.models()] == ["walls", "blobs"]
        found = client.predict(photo)
        assert found["classes"]["crack"]["pixels"] == expected.areas["crack"] and found["name"] == "wall _7_ ü.png"
        assert (np.asarray(Image.open(io.BytesIO(client.fetch(photo, "mask")))) == expected.mask).all()
        boxes = client.predict(blobs(), model="blobs", classes=["red", "green"], threshold=0.1)["detections"]
        assert [box["class"] for box in boxes] == ["red"]
        good, bad = client.predict_many([photo, b"nothing"])
        assert good["regions"] and "not an image" in bad["error"]
        for call, status, said in (
            (lambda: client.predict(b"nothing"), 400, "not an image"),
            (lambda: client.predict(photo, model="none"), 404, "no model"),
            (lambda: client.predict(photo, treshold=1), 422, "treshold"),
            (lambda: client.predict(tmp_path / "none.png"), 0, "cannot be read"),
            (lambda: client.reload("a/b"), 404, ""),
        ):
            with pytest.raises(ServerError, match=said) as told:
                call()
            assert told.value.status == status
        before = int(client.models()[1]["version"])
        assert int(client.reload("blobs")["version"]) == before + 1


def test_nobody_at_home() -> None:
    with pytest.raises(ServerError, match="no answer"):
        Client("http://127.0.0.1:9").models()
    with pytest.raises(ServerError, match="an address looks like"):
        Client("ftp://x")


def test_it_comes_back_while_the_server_is_overloaded_and_after_a_restart(
    start: StartServer, models: dict[str, Path]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = start("--model", models["walls"], "--workers", 1, "--queue", 0, "--drain-delay", 0)
    image = wall(1, 300, 300)

    def send(_: int) -> int:
        with Client(server.address) as client:
            return int(client.predict(image)["width"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(send, range(4))) == [300] * 4
    impatient = Client(server.address, patience=0)
    port = server.address.rsplit(":", 1)[1]
    assert impatient.models()
    server.stop()
    start("--model", models["walls"], "--port", port)
    assert impatient.models()  # its connection was closed meanwhile
