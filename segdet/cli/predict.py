"""`segdet predict`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output


def predict(
    source: list[str] = typer.Argument(
        ..., help="Images, videos, folders, patterns, lists (.txt), or - (standard input)."
    ),
    model: Path | None = typer.Option(
        None, help="Exported model.  \\[default: newest in exports/, then runs/, then segdet's own]"
    ),
    out: Path | None = typer.Option(None, help="Folder for the results.  \\[default: a new runs/predict]"),
    conf: float | None = typer.Option(
        None, help="Probability from which a pixel or a box counts.  \\[default: the model's threshold]"
    ),
    tile: str = typer.Option(
        "auto", help="auto (large images in tiles; detection: off), off, or the side of the tiles in pixels."
    ),
    imgsz: int | None = typer.Option(
        None, help="Segmentation: longer side of the images as the network sees them.  \\[default: their own size]"
    ),
    down_to: int | None = typer.Option(
        None,
        help="Look at large images again at half their size, a quarter, ..., down to this longer side, for what is larger than in "
        "training; 0: do not.  \\[default: as the model was exported]",
    ),
    save: str | None = typer.Option(
        None,
        help="What to write. Segmentation: overlay, mask, json (by default), confidence, csv, coco, geojson, yolo; "
        "detection: overlay, json (by default), csv, coco, geojson, yolo.",
    ),
    bands: str | None = typer.Option(
        None,
        help="TIFFs: numbers of the bands to read as red, green and blue (4,3,2), or of one.  \\[default: the first]",
    ),
    coco_ids: Path | None = typer.Option(
        None,
        help="COCO file of these images (instances_val.json): the COCO results carry its ids, so that the two join.",
    ),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32."),
    skip_done: bool = typer.Option(False, help="Leave out what an earlier run into --out has done already."),
    smooth: float = typer.Option(0.0, help="Videos: share of the previous frames' confidence that stays, 0 to 1."),
    threads: int | None = typer.Option(None, min=1, help="Threads of the network.  \\[default: all cores]"),
) -> None:
    """Find objects in photographs and videos: segdet predict image.jpg"""
    from segdet.data.tiff import bands_of
    from segdet.inference.job import run_job
    from segdet.inference.models import find_model
    from segdet.inference.predictor import Predictor
    from segdet.inference.settle import settled
    from segdet.inference.sources import expand
    from segdet.inference.writing import kinds_of

    chosen = None if bands is None else bands_of(bands)
    sources = expand(source, out or Path("runs"))
    file = find_model(model)
    predictor = Predictor(file, conf, tile, settled(file, device, sources, threads), threads, imgsz, down_to)
    kinds = kinds_of(save, predictor.session.metadata.task)
    result = run_job(
        predictor, sources, out, kinds, skip_done=skip_done, smooth=smooth, bands=chosen, coco_ids=coco_ids
    )
    output.emit(result.to_dict(), result.sentence())
