"""`segdet predict`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output


def predict(
    source: list[str] = typer.Argument(..., help="Images, folders or patterns."),
    model: Path | None = typer.Option(
        None, help="Exported model.  [default: newest in exports/, then runs/, then segdet's own]"
    ),
    out: Path | None = typer.Option(None, help="Folder for the results.  [default: a new runs/predict]"),
    conf: float | None = typer.Option(
        None, help="Probability from which a pixel or a box counts.  [default: the model's threshold]"
    ),
    tile: str = typer.Option(
        "auto", help="auto (large images in tiles; detection: off), off, or the side of the tiles in pixels."
    ),
    save: str | None = typer.Option(
        None,
        help="What to write. Segmentation: overlay, mask, json (all by default); "
        "detection: overlay, json (by default), csv, coco, yolo.",
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N or tensorrt."),
) -> None:
    """Find objects in photographs: segdet predict image.jpg"""
    from segdet.inference.job import run_job
    from segdet.inference.models import find_model
    from segdet.inference.predictor import Predictor
    from segdet.inference.sources import expand
    from segdet.inference.writing import kinds_of

    sources = expand(source)
    predictor = Predictor(find_model(model), conf, tile, device)
    result = run_job(predictor, sources, out, kinds_of(save, predictor.session.metadata.task))
    output.emit(result.to_dict(), result.sentence())
