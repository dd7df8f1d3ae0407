"""What each part of the training recipe is worth: the same training with one thing changed at a time.

    python scripts/bench_recipe.py --data crack --epochs 3 --jobs 2

All see the same number of pictures with the same seed. Runs that are there already are kept, so it can be stopped and started again; two at
a time use one thread each. What has no setting of its own, because nobody should want the other way, is changed inside the process that
trains: every augmented copy as a photograph of its own, and targets that are rounded after resampling. Prints Markdown: scores on
validation at each one's best threshold, the difference to the first line with its paired 95 % interval, and the IoU of dark and
blurred photographs at the same threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import segdet
from segdet.data.catalog import cards
from segdet.data.loading import augment, datasets
from segdet.evaluation import bootstrap
from segdet.models import weights
from segdet.training.config import TrainConfig
from segdet.training.run import train as go_on
from segdet.validation.run import validate


def copies_apart() -> None:
    """Every file is a photograph of its own."""
    vars(datasets)["by_photograph"] = lambda records: {str(index): [index] for index, _ in enumerate(records)}


def rounded_targets() -> None:
    """Coverage becomes 0 or 255 after it was resampled."""
    soft = augment.SegmentationAugment.__call__

    def hard(self: Any, image: np.ndarray, target: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
        image, target = soft(self, image, target, seed)
        return image, np.where(target >= 128, 255, 0).astype(np.uint8)

    augment.SegmentationAugment.__call__ = hard  # type: ignore[method-assign]


@dataclass(frozen=True)
class Variant:
    """One line of the table, which says `says`.

    settings: of the training, on top of what all share. change: made inside the process that trains. one_epoch: a third of the
    epochs. imgsz: longer side that photographs are enlarged to for validation.
    """

    says: str
    settings: dict[str, Any] = field(default_factory=dict)
    change: Callable[[], None] | None = None
    one_epoch: bool = False
    imgsz: int | None = None


VARIANTS = {
    "base": Variant("as it is: fine-tuned, standard augmentation, 320 px"),
    "again": Variant("the same with another seed: what chance alone does", {"seed": 1000}),
    "scratch": Variant("from random weights", {"weights": "none"}),
    "frozen": Variant("backbone frozen", {"freeze": "backbone"}),
    "no-ema": Variant("no averaged weights", {"ema": 0.0}),
    "none": Variant("no augmentation", {"augment": "none"}),
    "robust": Variant("robust augmentation", {"augment": "robust"}),
    "clean": Variant("robust, a third without scale and light changes", {"augment": "robust", "clean_fraction": 0.35}),
    "scale": Variant(
        "the same, magnified up to four times", {"augment": "robust", "clean_fraction": 0.35, "max_scale": 4.0}
    ),
    "copies": Variant("augmented copies as photographs of their own", change=copies_apart, one_epoch=True),
    "rounded": Variant("targets rounded after resampling", change=rounded_targets),
    **{
        loss: Variant(f"loss: {says}", {"loss": loss})
        for loss, says in {
            "ce": "cross entropy alone",
            "focal": "focal",
            "tversky": "focal Tversky",
            "lovasz": "Lovász hinge",
            "cldice": "cross entropy, Dice and centre-line Dice",
        }.items()
    },
    "one-cycle": Variant("one-cycle schedule", {"schedule": "one-cycle"}),
    "poly": Variant("poly schedule", {"schedule": "poly"}),
    "lite2": Variant("efficientnet_lite2", {"backbone": "efficientnet_lite2"}),
    "416": Variant("crops of 416", {"imgsz": 416}),
    "640": Variant("crops of 640, photographs enlarged to 640", {"imgsz": 640}, imgsz=640),
}


def train(name: str, asked: argparse.Namespace) -> None:
    variant = VARIANTS[name]
    if variant.change is not None:
        variant.change()
    # A training set of Roboflow has three copies of a photograph, and an epoch takes one of them.
    epochs = max(1, round(asked.epochs / 3)) if variant.one_epoch else asked.epochs
    settings = {
        "backbone": "efficientnet_lite0", "options": {"decoder_channels": [128, 64, 40, 24, 12]}, "imgsz": 320, "batch": 8,
        "epochs": epochs, "val_every": epochs, "logger": "none", "ema": 0.995, "seed": asked.seed, **variant.settings,
    }  # fmt: skip
    run = asked.out / name
    if (run / "resume" / "state.pt").is_file():
        go_on(TrainConfig.from_file(run / "config.yaml"), resume=run)
        return
    shutil.rmtree(run, ignore_errors=True)  # stopped before anything was learnt
    segdet.train("unet", asked.data, **settings, out=str(asked.out), name=name)


def measured(run: Path, records: Sequence[Any], imgsz: int | None) -> tuple[Any, float]:
    """Tally on validation photographs, and the IoU of spoilt ones."""
    kept = run / "spoilt.json"
    if not kept.is_file():
        kept.write_text(
            json.dumps(validate(weights.find(run), records, "val", imgsz=imgsz, degrade="dark+blur").metrics["iou"])
        )
    return validate(weights.find(run), records, "val", imgsz=imgsz), json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="crack")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        train(asked.one, asked)
        return
    names = list(dict.fromkeys(["base", *asked.only]))
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if asked.jobs > 1 else {})}

    def ready(name: str) -> None:
        if not (asked.out / name / "metrics.json").is_file():
            again = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            subprocess.run(again, check=True, env=environment)

    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(ready, names))
    torch.set_num_threads(os.cpu_count() or 1)
    records = cards.load(asked.data).splits["val"]
    print("| | IoU | against the first (95 %) | F1@2px | clDice | dark+blur |\n|---|---|---|---|---|---|")
    first: Any = None
    for name in names:
        found, spoilt = measured(asked.out / name, records, VARIANTS[name].imgsz)
        first = first or found
        gap = "" if first is found else _gap(found.tally, first.tally)
        iou, tolerant, lines = (f"{found.metrics[score]:.3f}" for score in ("iou", "f1_2px", "cldice"))
        print(f"| {VARIANTS[name].says} | {iou} | {gap} | {tolerant} | {lines} | {spoilt:.3f} |", flush=True)


def _gap(one: Any, other: Any) -> str:
    found = bootstrap.differences(one, other)["iou"]
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


if __name__ == "__main__":
    main()
