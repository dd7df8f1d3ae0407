"""Training speed of segdet against ultralytics' own segmentation training, at similar parameters, the same images and sizes.

    python scripts/bench_train_ultralytics.py --python other/bin/python --data crack --images 240

`--python` is an interpreter with ultralytics (AGPL-3.0: never a dependency of segdet, and nothing of it is copied here). Its
networks start at random from their YAML. Each side runs in a process of its own, in turn, both with all cores; the first epoch of
each warms up, the second is timed, without validation. Both augment as they do by default.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from bench_train import Ours

from segdet.data.catalog import cards

_THEIRS = """
import json, sys, time
from ultralytics import YOLO
model, data, side, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
marks = []
yolo = YOLO(model)
yolo.add_callback("on_train_epoch_start", lambda trainer: marks.append(time.perf_counter()))
yolo.add_callback("on_train_epoch_end", lambda trainer: marks.append(time.perf_counter()))
yolo.train(data=data, imgsz=side, batch=batch, epochs=2, val=False, plots=False, save=False, verbose=False, device="cpu",
           workers=2, project=sys.argv[5], name="run", exist_ok=True)
print(json.dumps({"seconds": marks[3] - marks[2], "parameters": sum(p.numel() for p in yolo.model.parameters())}))
"""


def theirs(asked: argparse.Namespace, model: str, folder: Path) -> tuple[float, int]:
    """(seconds of an epoch, parameters)."""
    given = [model, str(folder / "data.yaml"), str(asked.imgsz), str(asked.batch), str(folder / "runs")]
    done = subprocess.run([asked.python, "-c", _THEIRS, *given], capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"ultralytics failed:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return told["seconds"], told["parameters"]


def work(asked: argparse.Namespace, pipe: Connection) -> None:
    """In a process of its own: as many steps twice, the second time timed."""
    ours = Ours(asked.data, "efficientnet_lite0", asked.imgsz, asked.batch, "auto", {"decoder_channels": asked.decoder})
    steps, count = ours.steps(), asked.images // asked.batch
    for _ in range(count):
        next(steps)
    began = time.perf_counter()
    for _ in range(count):
        next(steps)
    pipe.send((time.perf_counter() - began, sum(p.numel() for p in ours.setup.model.parameters())))


def segdet(asked: argparse.Namespace) -> tuple[float, int]:
    """(seconds of an epoch, parameters)."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(asked, there))
    process.start()
    found: tuple[float, int] = here.recv()
    process.join()
    return found


def subset(data: str, images: int, folder: Path) -> None:
    """A dataset in ultralytics' layout: lists of files whose labels lie beside them."""
    splits = cards.load(data).splits
    for split, count in (("train", images), ("val", 8)):
        files = [str(record.image) for record in splits[split][:count]]
        (folder / f"{split}.txt").write_text("\n".join(files) + "\n")
    names = json.dumps(dict(enumerate(cards.load(data).classes)))
    (folder / "data.yaml").write_text(f"path: {folder}\ntrain: train.txt\nval: val.txt\nnames: {names}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter that has ultralytics")
    parser.add_argument("--models", nargs="+", default=["yolo11n-seg.yaml"], help="of ultralytics")
    parser.add_argument("--data", default="crack", help="a dataset in ultralytics' layout")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--decoder", type=int, nargs=5, default=[128, 64, 40, 24, 12], help="channels of segdet's U-Net"
    )
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ("segdet", *asked.models)}
    with tempfile.TemporaryDirectory() as name:
        subset(asked.data, asked.images, Path(name))
        for _ in range(asked.rounds):
            found["segdet"].append(segdet(asked))
            for model in asked.models:
                found[model].append(theirs(asked, model, Path(name)))
    print(
        f"| {asked.images} images of {asked.imgsz}, batch {asked.batch} | M parameters | s an epoch | images/s |\n|---|---|---|---|"
    )
    for network, rows in found.items():
        seconds = statistics.median(row[0] for row in rows)
        print(f"| {network} | {rows[0][1] / 1e6:.1f} | {seconds:.1f} | {asked.images / seconds:.1f} |")


if __name__ == "__main__":
    main()
