"""`segdet serve`"""

from __future__ import annotations

from typing import Any

from segdet.cli.options import from_settings
from segdet.serving.settings import ServeConfig


@from_settings(ServeConfig)
def serve(written: dict[str, Any]) -> None:
    """Serve models over HTTP, with a page to try them: segdet serve --model crack=exports/unet-crack.onnx"""
    from segdet.serving.server import serve as run

    run(ServeConfig.from_options(**written))
