"""What a head that decides at a coarse stride can reach at best: the labels themselves, shrunk and enlarged again.

    python scripts/bench_stride.py --data crack

Each label mask is averaged over cells of the stride, enlarged bilinearly as heads do, and cut at the threshold with the best
pooled F1. No network is in it: what is lost here no training brings back, unless the head sees the image enlarged.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F

from segdet.data.catalog import cards
from segdet.data.geometry import rasterize
from segdet.evaluation import ratios, thin
from segdet.evaluation.binary import BinaryScores, binned, histogram

STRIDES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="crack")
    options = parser.parse_args()
    records = cards.load(options.data).splits["val"]
    masks = [rasterize.binary(rasterize.foreground(record)) for record in records]
    print("| stride | IoU | F1 | F1@2px | clDice |\n|---|---|---|---|---|")
    for stride in STRIDES:
        scores = BinaryScores()
        answers = [coarse(torch.from_numpy(mask).float(), stride) for mask in masks]
        for answer, mask in zip(answers, masks, strict=True):
            scores.add(*histogram(binned(answer), mask))
        threshold = scores.best_threshold()
        pooled = scores.counts(threshold).sum(axis=0)
        counts = sum(thin.counts(answer >= threshold, mask) for answer, mask in zip(answers, masks, strict=True))
        fine = thin.scores(np.asarray(counts))
        overall = f"{ratios.iou(*pooled):.3f} | {ratios.f1(*pooled):.3f}"
        print(f"| {stride} | {overall} | {fine['f1_2px']:.3f} | {fine['cldice']:.3f} |", flush=True)


def coarse(mask: torch.Tensor, stride: int) -> np.ndarray:
    """float32 `[H, W]` averaged over cells and enlarged again, as NumPy."""
    height, width = mask.shape
    padded = F.pad(mask[None, None], (0, -width % stride, 0, -height % stride), mode="replicate")
    cells = F.avg_pool2d(padded, stride)
    return F.interpolate(cells, size=padded.shape[-2:], mode="bilinear", align_corners=False)[
        0, 0, :height, :width
    ].numpy()


if __name__ == "__main__":
    main()
