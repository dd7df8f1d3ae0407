"""Load every output of segdet with the tool that it is meant for: python scripts/check_outputs.py

The tools live in an environment of their own, which is made in a temporary folder (or in --env FOLDER, and kept there):
none of them is a dependency of segdet, and Ultralytics (AGPL) must not become one. A tool that cannot be installed is
reported as absent; the exit status says whether every tool that is there takes its files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (("pycocotools",), ("supervision",), ("pyogrio", "shapely"), ("--no-deps", "ultralytics"), ("fiftyone",))
CLASSES = ("red", "green", "blue")
SAVE = {"boxes": "overlay,json,csv,coco,geojson,yolo", "masks": "overlay,mask,confidence,json,csv,coco,geojson,yolo"}


def make(folder: Path) -> None:
    """Write datasets, predictions of a detector and a segmenter, and a model repository below `folder`."""
    sys.path.insert(0, str(ROOT))
    from PIL import Image

    from tests.detectors import blob_dataset, blob_model
    from tests.segmenters import blots, dark_model

    blob_dataset(folder / "blobs", 5)
    photos = folder / "masks/images"
    photos.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(blots(number, 90, 120)).save(photos / f"wall{number}.png")
    models = {"boxes": blob_model(folder / "blobs.onnx"), "masks": dark_model(folder / "dark.onnx")}
    run("data", "convert", folder / "blobs", folder / "coco", "--to", "coco")
    run("data", "convert", folder / "blobs", folder / "voc", "--to", "voc")
    run("data", "convert", folder / "blobs", folder / "yolo", "--to", "yolo")
    truth = folder / "coco/annotations/instances_val.json"
    sources = {"boxes": folder / "coco/images/val", "masks": photos}
    for task, source in sources.items():
        ids = ("--coco-ids", truth) if task == "boxes" else ()
        out = folder / "found" / task
        run("predict", source, "--model", models[task], "--save", SAVE[task], "--out", out, *ids)


def run(*arguments: object) -> None:
    """Run one command of segdet."""
    subprocess.run([sys.executable, "-m", "segdet", *map(str, arguments)], check=True, cwd=ROOT)


def environment(folder: Path) -> Path:
    """Make the tools' environment, and return its interpreter. It borrows torch and OpenCV from segdet's."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        (borrowed,) = folder.glob("lib/python*/site-packages")
        (borrowed / "zz_segdet.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
        for packages in PACKAGES:
            done = subprocess.run([python, "-m", "pip", "install", "-q", *packages])
            if done.returncode:
                print(f"cannot install {packages[-1]}")
    return python


def check_pycocotools(folder: Path) -> str:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(folder / "coco/annotations/instances_val.json"))
    found = truth.loadRes(str(folder / "found/boxes/predictions.coco.json"))
    scored = COCOeval(truth, found, "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert scored.stats[1] > 0.99, scored.stats
    rows = json.loads((folder / "found/masks/predictions.coco.json").read_text())
    images = {row["image_id"]: row["file_name"] for row in rows}
    known = COCO()
    known.dataset = {
        "images": [{"id": i, "file_name": name, "height": 90, "width": 120} for i, name in images.items()],
        "categories": [{"id": 1, "name": "crack"}],
        "annotations": [],
    }
    known.createIndex()
    masks = known.loadRes(rows)
    assert all(masks.annToMask(row).sum() > 0 for row in masks.loadAnns(masks.getAnnIds()))
    return f"{len(found.anns)} boxes joined with the ground truth, AP50 {scored.stats[1]:.2f}; {len(rows)} masks"


def check_supervision(folder: Path) -> str:
    import cv2
    import numpy as np
    import supervision as sv

    rows = json.loads((folder / "found/masks/predictions.coco.json").read_text())
    from pycocotools import mask as rle

    masks = np.stack([rle.decode(row["segmentation"]).astype(bool) for row in rows])
    boxes = np.array([row["bbox"] for row in rows]) @ np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = sv.Detections(xyxy=boxes, mask=masks, class_id=np.array([row["category_id"] - 1 for row in rows]))
    assert np.array_equal(found.area, [row["area"] for row in rows])
    assert np.abs(sv.mask_to_xyxy(masks) + [0, 0, 1, 1] - boxes).max() <= 0
    mask = cv2.imread(str(folder / "found/masks/wall0_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape[:2] == (90, 120) and mask.any()
    labels = folder / "found/boxes/labels"
    dataset = sv.DetectionDataset.from_yolo(
        str(folder / "coco/images/val"), str(labels), str(folder / "yolo/data.yaml")
    )
    coco = sv.DetectionDataset.from_coco(
        str(folder / "coco/images/val"), str(folder / "coco/annotations/instances_val.json")
    )
    count = sum(len(found) for _, _, found in dataset)
    assert count == sum(len(found) for _, _, found in coco) > 0
    return f"Detections with {len(found)} masks; {count} boxes from YOLO rows, as many as in the COCO file"


def check_gdal(folder: Path) -> str:
    import pyogrio

    count = 0
    for file in sorted(folder.glob("found/*/*.geojson")):
        about = pyogrio.read_info(file)
        assert "Image pixels" in about["crs"] and "4326" not in about["crs"], about["crs"]
        count += about["features"]
    return f"{count} features, in {about['crs'].split(',')[0]}, by GDAL {'.'.join(map(str, pyogrio.__gdal_version__))}"


def check_ultralytics(folder: Path) -> str:
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    from ultralytics.data.utils import verify_image_label

    count = 0
    for task, images in (("boxes", folder / "coco/images/val"), ("masks", folder / "masks/images")):
        for image in sorted(images.iterdir()):
            label = folder / "found" / task / "labels" / f"{image.stem}.txt"
            read = verify_image_label((str(image), str(label), "", False, len(CLASSES), 0, 0, False))
            assert read[0] is not None and not read[8], read[-1]
            assert len(read[1]) == len(label.read_text().splitlines()), read[-1]
            count += len(read[1])
    return f"{count} rows"


def check_fiftyone(folder: Path) -> str:
    """Read the files as FiftyOne's importers do; its data sets themselves need a MongoDB."""
    from fiftyone.utils import coco, yolo

    _, classes, _, images, truth = coco.load_coco_detection_annotations(
        str(folder / "coco/annotations/instances_val.json")
    )
    rows = json.loads((folder / "found/boxes/predictions.coco.json").read_text())
    for row in rows:
        image = images[row["image_id"]]
        found = coco.COCOObject.from_anno_dict(row).to_detection((image["width"], image["height"]), classes)
        assert found.label in CLASSES and found.confidence == row["score"], found
    for file in (folder / "found/boxes/labels").glob("*.txt"):
        read = yolo.load_yolo_annotations(str(file), list(CLASSES))
        assert len(read.detections) == len(file.read_text().splitlines())
    return f"{len(rows)} results beside {sum(map(len, truth.values()))} objects of {len(images)} images; YOLO rows"


CHECKS: dict[str, Callable[[Path], str]] = {
    "pycocotools": check_pycocotools,
    "supervision": check_supervision,
    "pyogrio": check_gdal,
    "ultralytics": check_ultralytics,
    "fiftyone": check_fiftyone,
}


def check(folder: Path) -> int:
    """Run every check in this environment, print a line for each, and return how many failed."""
    failed = 0
    for name, function in CHECKS.items():
        try:
            __import__(name)
        except Exception as error:  # a tool may need a service that this machine does not have
            print(f"{name:12} absent ({type(error).__name__}: {str(error)[:80]})")
            continue
        try:
            print(f"{name:12} good: {function(folder)}")
        except Exception as error:  # a tool that refuses a file may raise anything
            failed += 1
            print(f"{name:12} FAILED: {type(error).__name__}: {error}")
    return failed


def main() -> int:
    """Write the outputs, make the environment, and check in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, help="folder of the tools' environment, kept for the next time")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        return min(1, check(options.check))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder / "outputs")
        python = environment((options.env or folder / "env").resolve())
        return subprocess.run([python, __file__, "--check", str(folder / "outputs")]).returncode


if __name__ == "__main__":
    sys.exit(main())
