"""A small client for `/v1`, with the standard library only.

from segdet.serving.client import Client

client = Client("http://127.0.0.1:8000")
found = client.predict("photo.jpg", threshold=0.4)
found["classes"]["crack"]["share"], found["regions"]
client.fetch("photo.jpg", format="overlay")      # bytes of a PNG
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from segdet.errors import SegdetError

Image = str | Path | bytes


class ServerError(SegdetError):
    """The server refused, in its own words. status: HTTP's; 0 when it did not answer at all."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[ServerError], tuple[int, str]]:
        return type(self), (self.status, self.message)


class Client:
    """Talks to one server over one connection; not for several threads at a time, make one for each.

    Args:
        address: such as `http://127.0.0.1:8000`.
        api_key: default: the environment's SEGDET_API_KEY.
        timeout: seconds to wait for an answer.
        patience: seconds to go on trying while the server is overloaded (503), as its Retry-After says.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        timeout: float = 60,
        patience: float = 60,
    ) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(0, f"{address}: an address looks like http://127.0.0.1:8000")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._address = address
        self._key = api_key or os.environ.get("SEGDET_API_KEY")
        self._patience = patience

    def predict(self, image: Image, **options: Any) -> dict[str, Any]:
        """One image's result: `width`, `height`, `classes`, and `regions` or `detections`.

        Args:
            image: a path, or the encoded bytes.
            options: model, threshold, classes (names), tile, imgsz, include, as in the API.

        Raises:
            ServerError: the image or an option is refused, or the server cannot answer.
        """
        result: dict[str, Any] = json.loads(self.fetch(image, format="json", **options))["images"][0]
        return result

    def predict_many(self, images: Sequence[Image], **options: Any) -> list[dict[str, Any]]:
        """Results of several images in one request, in their order; one that cannot be used has `error` instead."""
        results: list[dict[str, Any]] = json.loads(self._post(images, {**options, "format": "json"}))["images"]
        return results

    def fetch(self, image: Image, format: str, **options: Any) -> bytes:
        """One image's result as a file: json, mask, overlay, overlay.jpg, confidence, geojson, coco, csv or yolo."""
        return self._post([image], {**options, "format": format})

    def models(self) -> list[dict[str, Any]]:
        """The served models."""
        found: list[dict[str, Any]] = json.loads(self._call("GET", "/v1/models"))["models"]
        return found

    def reload(self, model: str) -> dict[str, Any]:
        """Have a model's file read again."""
        answer: dict[str, Any] = json.loads(self._call("POST", f"/v1/models/{quote(model, safe='')}/reload"))
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, images: Sequence[Image], options: Mapping[str, Any]) -> bytes:
        given = {key: value for key, value in options.items() if value is not None}
        if isinstance(given.get("classes"), (list, tuple)):
            given["classes"] = ",".join(given["classes"])
        delimiter = "-" * 2 + uuid.uuid4().hex
        parts = [_part(delimiter, image, number) for number, image in enumerate(images)]
        body = b"".join([*parts, f"{delimiter}--\r\n".encode()])
        kind = {"Content-Type": f"multipart/form-data; boundary={delimiter[2:]}"}
        return self._call("POST", f"/v1/predict?{urlencode(given)}", body, kind)

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        sent = {**(headers or {}), **({"X-API-Key": self._key} if self._key else {})}
        end = time.monotonic() + self._patience
        while True:
            answer, content = self._exchange(method, self._prefix + path, body, sent)
            if answer.status == 503 and time.monotonic() < end:
                # A random part, so that those who were refused together do not come back together.
                time.sleep(float(answer.getheader("Retry-After") or 1) * random.uniform(0.5, 1.2))
                continue
            if answer.status == 200:
                return content
            try:
                message = str(json.loads(content)["error"])
            except (ValueError, KeyError, TypeError):
                message = f"{self._address}: status {answer.status}"
            raise ServerError(answer.status, message)

    def _exchange(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[Any, bytes]:
        """One request; once more on a new connection when the kept one turns out to be closed."""
        for again in (True, False):
            kept = self._connection.sock is not None
            try:
                self._connection.request(method, path, body, headers)
                answer = self._connection.getresponse()
                return answer, answer.read()
            except (OSError, HTTPException) as error:
                self._connection.close()
                if not (again and kept):
                    raise ServerError(0, f"{self._address}: no answer ({error or type(error).__name__})") from error
        raise AssertionError


def _part(delimiter: str, image: Image, number: int) -> bytes:
    """One file of a form."""
    if isinstance(image, bytes):
        name, content = f"image-{number}", image
    else:
        try:
            name, content = Path(image).name, Path(image).read_bytes()
        except OSError as error:
            raise ServerError(0, f"{image}: cannot be read ({error.strerror})") from error
    safe = name.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
    head = f'{delimiter}\r\nContent-Disposition: form-data; name="image"; filename="{safe}"\r\n\r\n'
    return head.encode() + content + b"\r\n"
