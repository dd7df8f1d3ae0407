# ruff: noqa: T201
"""A program that uses the whole public API; `mypy --strict` must accept it (test_api.py)."""

from __future__ import annotations

from pathlib import Path

import segdet


def main() -> int:
    """Train, measure, export and predict."""
    dataset: segdet.Dataset = segdet.open_dataset("crack-demo")
    print(dataset.classes, len(dataset.splits["train"]))
    run: Path = segdet.train("unet", "crack-demo", epochs=1, batch="auto", precision="fp32", mix={"other": 0.3})
    result: segdet.EvaluationResult = segdet.evaluate(run, threshold_rule="recall=0.95", workers=0)
    print(result.metrics["iou"], result.notes)
    file: Path = segdet.export(run, precision="fp16", out=Path("model.onnx"))
    model: segdet.Predictor = segdet.load(file, threshold=0.4, tile="off", device="cpu")
    metadata: segdet.Metadata = model.session.metadata
    found = model.predict("photo.jpg")
    if isinstance(found, segdet.SegmentationResult):
        print(found.mask.shape, found.to_dict(), found.to_geojson())
    elif isinstance(found, segdet.DetectionResult):
        print(found.boxes.shape, found.to_coco("photo"))
    job: segdet.JobResult = segdet.predict(["photos", Path("a.jpg")], model=file, save="mask,json", out=Path("out"))
    print(job.images, metadata.classes)
    try:
        segdet.load(file, threshold=2)
    except segdet.InvalidOption as error:
        print(error.field, error.value, error.reason, error.hint)
        return error.exit_code
    except segdet.InputError as error:
        print(error.render())
        return error.exit_code
    except segdet.SegdetError as error:
        return error.exit_code
    return 0
