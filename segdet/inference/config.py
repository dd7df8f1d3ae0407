"""The settings of a prediction job."""

from __future__ import annotations

from pathlib import Path

from segdet.settings import Settings, option


class PredictConfig(Settings):
    """The settings of `segdet predict`."""

    model: Path | None = option(
        None, "Exported model.", group="Model", shown_default="newest in exports/, then runs/, then segdet's own"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32.", group="Model")
    threads: int | None = option(None, "Threads of the network.", group="Model", shown_default="all cores", ge=1)
    threshold: float | None = option(
        None,
        "Confidence at or above which a pixel or a box counts, 0 to 1.",
        group="Prediction",
        option="conf",
        shown_default="the model's threshold",
    )
    tile: str = option(
        "auto",
        "Side of tiles in pixels; auto tiles large images (detection: never); off never does.",
        group="Prediction",
        metavar="auto|off|N",
    )
    imgsz: int | None = option(
        None,
        "Segmentation: resize images to this longer side before the network.",
        group="Prediction",
        shown_default="their own size",
    )
    multiscale_to: int | None = option(
        None,
        "Predict large images also at 1/2, 1/4, ... of their size down to this longer side, to find wider objects "
        "than in training; 0 turns it off.",
        group="Prediction",
        shown_default="as the model was exported",
    )
    smooth: float = option(
        0.0, "Videos: fraction of the previous frames' confidence that is kept, 0 to 1.", group="Prediction"
    )
    bands: str | None = option(
        None,
        "TIFF bands to read as red, green and blue, e.g. 4,3,2, or a single band.",
        group="Input",
        shown_default="the first",
    )
    out: Path | None = option(None, "Folder for the results.", group="Output", shown_default="a new runs/predict")
    save: str | None = option(
        None,
        "What to write. Segmentation: overlay, mask, json (by default), confidence, csv, coco, geojson, yolo. "
        "Detection: overlay, json (by default), csv, coco, geojson, yolo.",
        group="Output",
    )
    coco_ids: Path | None = option(
        None,
        "COCO file of these images. The COCO results carry its image and category ids, so that both can be joined.",
        group="Output",
    )
    skip_done: bool = option(False, "Skip images that an earlier run into the same folder has done.", group="Output")
