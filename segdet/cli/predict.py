"""`segdet predict`"""

from __future__ import annotations

from typing import Any

import typer

from segdet.cli import output
from segdet.cli.options import from_settings
from segdet.inference.config import PredictConfig


@from_settings(PredictConfig)
def predict(
    written: dict[str, Any],
    *,
    source: list[str] = typer.Argument(
        ..., help="Images, videos, folders, patterns, lists (.txt), or - (standard input)."
    ),
) -> None:
    """Find objects in photographs and videos: segdet predict image.jpg"""
    from segdet.inference.batch.job import predict_sources

    result = predict_sources(source, PredictConfig.from_options(**written))
    output.emit(result.to_dict(), result.sentence())
