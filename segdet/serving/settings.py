"""What a server is told at its start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segdet.errors import InputError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a model: part of addresses and of metric labels


@dataclass(frozen=True)
class Settings:
    """Everything that is fixed while the server runs.

    models: name -> what was given for it (an ONNX file or a run folder; None = the rule of `inference.models`). The first is
    the one that answers when a request names none.
    workers: images worked on at a time, threads: of one inference, batch: images in one inference; None = for the machine.
    batch_wait: seconds a batch that is not full waits for more. queue: images waiting at most, per model. max_wait: seconds
    an image may be expected to wait; beyond it the request is refused at once. timeout: seconds from acceptance to answer.
    max_body: bytes. max_pixels: of one image. max_images: of one request. body_timeout: seconds for a body to arrive.
    cors: origins whose pages may call the API ("*" = all).
    """

    models: dict[str, Path | None] = field(default_factory=lambda: {"default": None})
    device: str = "auto"
    api_key: str | None = None
    workers: int | None = None
    threads: int | None = None
    batch: int | None = None
    batch_wait: float = 0.005
    queue: int = 64
    max_wait: float = 10.0
    timeout: float = 30.0
    max_body: int = 32 << 20
    max_pixels: int = 100_000_000
    max_images: int = 16
    body_timeout: float = 30.0
    cors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (
            ("workers", 1),
            ("threads", 1),
            ("batch", 1),
            ("queue", 0),
            ("max_images", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"--{name.replace('_', '-')} {value}: at least {least}")
        for name, unit, size in (("max_body", "megabytes", 1 << 20), ("max_pixels", "megapixels", 1_000_000)):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name) / size:g}: {unit}, more than 0")
        for name in ("timeout", "body_timeout"):
            if not 0 < getattr(self, name) < math.inf:  # NaN is neither
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name):g}: seconds, more than 0")
        for name in ("batch_wait", "max_wait"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name):g}: seconds, not less than 0")

    @property
    def max_held(self) -> int:
        """Bytes of request bodies held at a time, over all requests."""
        return max(16 * self.max_body, 64 << 20)


def named_models(given: Sequence[str]) -> dict[str, Path | None]:
    """`NAME=FILE`, or only `FILE` (named after it), several times -> name -> path; nothing given -> the usual model.

    Raises:
        InputError: a name that cannot be part of an address, or one that comes twice.
    """
    import re

    models: dict[str, Path | None] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():  # a file name may hold an equals sign
            name, path = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).stem).strip("-._") or "model", text
        if not re.fullmatch(NAME, name):
            raise InputError(f"--model {text}: a name has letters, digits, dots, dashes and underscores, 64 at most")
        if name in models:
            raise InputError(f"--model {text}: the name {name} is taken; say --model OTHER={path}")
        if not path:
            raise InputError(f"--model {text}: name a file: --model {name}=model.onnx")
        models[name] = Path(path)
    return models or {"default": None}
