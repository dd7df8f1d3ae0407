"""`segdet predict`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output
from segdet.errors import InputError

KINDS = ("overlay", "mask", "json")


def predict(
    source: list[str] = typer.Argument(..., help="Images, folders or patterns."),
    model: Path | None = typer.Option(
        None, help="Exported model.  [default: newest in exports/, then runs/, then segdet's own]"
    ),
    out: Path | None = typer.Option(None, help="Folder for the results.  [default: a new runs/predict]"),
    conf: float | None = typer.Option(
        None, help="Probability from which a pixel counts.  [default: the model's threshold]"
    ),
    tile: str = typer.Option("auto", help="auto (large images in tiles), off, or the side of the tiles in pixels."),
    save: str = typer.Option("overlay,mask,json", help="What to write: overlay, mask, json."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N or tensorrt."),
) -> None:
    """Find objects in photographs: segdet predict image.jpg"""
    from segdet.inference.job import run_job
    from segdet.inference.models import find_model
    from segdet.inference.predictor import Predictor
    from segdet.inference.sources import expand

    kinds = tuple(kind.strip() for kind in save.split(",") if kind.strip())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"--save {save}: say any of {','.join(KINDS)}")
    sources = expand(source)
    chosen = find_model(model)
    result = run_job(Predictor(chosen, conf, tile, device), sources, out, kinds)
    output.emit(result.to_dict(), result.sentence())
