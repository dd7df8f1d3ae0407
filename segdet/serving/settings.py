"""The settings of the server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segdet.errors import InvalidOption, setting
from segdet.settings import Settings, option

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a model: part of addresses and of metric labels


class ServeConfig(Settings):
    """The settings of `segdet serve`; they are fixed while the server runs."""

    model: list[str] = option(
        [],
        "Exported model, as NAME=FILE or FILE. Repeatable. The first answers requests that name none.",
        group="Models",
        metavar="NAME=FILE",
        shown_default="newest in exports/, then runs/, then segdet's own",
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N, tensorrt or openvino.", group="Models")
    workers: int | None = option(
        None, "Images processed at a time, per model.", group="Models", shown_default="from the machine", ge=1
    )
    threads: int | None = option(
        None, "Threads of one inference.", group="Models", shown_default="1; all cores for a single image", ge=1
    )
    batch: int | None = option(
        None, "Images in one inference.", group="Models", shown_default="1 on a CPU, 8 on a GPU", ge=1
    )
    batch_wait: float = option(
        0.005, "Seconds a batch waits for more images.", group="Models", ge=0, allow_inf_nan=False
    )

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 accepts other machines.", group="Network")
    port: int = option(8000, "Port; 0 takes a free one.", group="Network", ge=0, le=65535)
    api_key: str | None = option(
        None, "Key that requests must carry.", group="Network", shown_default="$SEGDET_API_KEY"
    )
    cors: list[str] = option([], "Origin whose pages may call the API; * for all. Repeatable.", group="Network")
    drain_delay: float = option(
        1.0, "Seconds to keep listening (not ready) after SIGTERM.", group="Network", ge=0, allow_inf_nan=False
    )

    queue: int = option(64, "Images that may wait, per model; more are refused with 503.", group="Limits", ge=0)
    max_wait: float = option(
        10.0,
        "Seconds an image may be expected to wait; longer is refused with 503.",
        group="Limits",
        ge=0,
        allow_inf_nan=False,
    )
    timeout: float = option(
        30.0, "Seconds from request to answer; later is answered with 504.", group="Limits", gt=0, allow_inf_nan=False
    )
    body_timeout: float = option(
        30.0,
        "Seconds for a request's body to arrive; later is refused with 408.",
        group="Limits",
        gt=0,
        allow_inf_nan=False,
    )
    max_body: int = option(32 << 20, "Megabytes of one request.", group="Limits", unit=1 << 20, gt=0)
    max_pixels: int = option(100_000_000, "Megapixels of one image.", group="Limits", unit=1_000_000, gt=0)
    max_images: int = option(16, "Images of one request.", group="Limits", ge=1)

    log: Literal["auto", "json", "text", "off"] = option(
        "auto", "Log format; auto is text on a terminal, else JSON lines.", group="Output"
    )

    @property
    def models(self) -> dict[str, Path | None]:
        """Name -> file of each model; None for the model that `segdet predict` would take."""
        return named_models(self.model)

    @property
    def max_held(self) -> int:
        """Bytes of request bodies held at a time, over all requests."""
        return max(16 * self.max_body, 64 << 20)


def named_models(texts: Sequence[str]) -> dict[str, Path | None]:
    """Names and files of models.

    Args:
        texts: each `NAME=FILE`, or only `FILE`, which is named after the file.

    Returns:
        Name -> path; without any text `default` -> None, which is the model that `segdet predict` would take.

    Raises:
        InvalidOption: a name that cannot be part of an address, or one that comes twice.
    """
    models: dict[str, Path | None] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():  # a file name may hold an equals sign
            name, path = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(text).stem).strip("-._") or "model", text
        if not re.fullmatch(NAME, name):
            reason = "a name has letters, digits, dots, dashes and underscores, 64 at most"
            raise InvalidOption("model", text, reason, "choose another name")
        if name in models:
            raise InvalidOption("model", text, f"the name {name} is taken", f"use {setting('model', f'OTHER={path}')}")
        if not path:
            raise InvalidOption("model", text, "names no file", f"use {setting('model', f'{name}=model.onnx')}")
        models[name] = Path(path)
    return models or {"default": None}
