"""Can a network know how wide a photograph's labels were drawn? Whole data sets of cracks are labelled by several hands.

    python scripts/bench_label_width.py runs/unet-crack-shipped --data crack

For every photograph (of training: one of its augmented copies) the IoU at all thresholds is counted. Then a threshold is chosen: one for
all; one for each photograph from what the network's encoder makes of it (averages over the image, over what is called crack, and their
spread; a random forest learns it); one from traces of camera and compression (spectrum, cosine blocks, noise, colours); one from the
number in the file's name alone, which says when it was labelled and nothing about what it shows; and the best there is. Training
photographs are judged in ten folds by forests that have not seen them, validation photographs by what all of training teaches. If the
name knows what the photograph does not, the difference is the labellers' and not to be learnt. At last the labels are replaced by the
network's own outlines, each at the threshold at which it is as large as its label: then nothing but the width is unknown, and one
threshold for all reaches what width alone leaves. Prints Markdown.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.fft import dctn
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold
from torch.nn.functional import adaptive_avg_pool2d

from segdet.data.catalog import cards
from segdet.data.geometry.rasterize import target
from segdet.data.images import read_image
from segdet.data.records import Record, by_photograph
from segdet.errors import InputError
from segdet.models import weights
from segdet.models.common import normalise

EDGES = np.linspace(-8, 8, 129)[1:-1]  # of logits: 128 bins, 127 thresholds between them


@dataclass(frozen=True)
class Counts:
    """features, traces `[N, D]`; number `[N]`; hits, false `[N, 128]`: pixels from bin k on, on and beside the label.

    size `[N]`: label pixels.
    """

    features: np.ndarray
    traces: np.ndarray
    number: np.ndarray
    hits: np.ndarray
    false: np.ndarray
    size: np.ndarray

    def pooled(self, bins: np.ndarray) -> float:
        """IoU of all photographs together, `bins` int `[N]` being the threshold of each."""
        rows, bins = np.arange(len(self.size)), np.clip(np.round(bins), 0, 127).astype(int)
        return float(self.hits[rows, bins].sum() / (self.size.sum() + self.false[rows, bins].sum()))

    def best(self) -> np.ndarray:
        """The best bin of each photograph; of those without a label one that calls nothing crack."""
        iou = self.hits / np.maximum(1, self.size[:, None] + self.false)
        return np.where(self.size > 0, iou.argmax(axis=1), 127)

    def as_large(self) -> np.ndarray:
        """The bin of each photograph at which what is called crack is as large as its label."""
        return np.asarray(np.abs(self.hits + self.false - self.size[:, None]).argmin(axis=1))

    def against_own_outlines(self, bins: np.ndarray) -> float:
        """Pooled IoU of the best threshold for all against the network's own outlines at `bins`: one lies within the other."""
        areas = self.hits + self.false
        own = areas[np.arange(len(bins)), bins][:, None]
        return float((np.minimum(areas, own).sum(axis=0) / np.maximum(1, np.maximum(areas, own).sum(axis=0))).max())

    def shifted(self, bins: np.ndarray) -> float:
        """`pooled`, all thresholds moved together to where it is best: a forest pulls everything to the mean."""
        return max(self.pooled(bins + shift) for shift in range(-16, 17))


def traces(image: np.ndarray) -> np.ndarray:
    """What a camera, a resize and a JPEG leave in a photograph whatever it shows: RGB uint8 `[H, W, 3]` -> float64 `[D]`."""
    pixels = image.astype(np.float32)
    grey = pixels.mean(axis=2)
    side = min(grey.shape) // 16 * 16
    grey = grey[:side, :side]
    window = np.outer(np.hanning(side), np.hanning(side))
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window))))
    rows, columns = np.indices(spectrum.shape) - side // 2
    ring = (np.hypot(rows, columns) // 8).astype(int)
    rings = (np.bincount(ring.ravel(), spectrum.ravel()) / np.bincount(ring.ravel()))[: side // 16]
    lines = [
        spectrum[side // 2 - 2 : side // 2 + 3].mean(axis=0),
        spectrum[:, side // 2 - 2 : side // 2 + 3].mean(axis=1),
    ]
    halves = [line[side // 2 :].reshape(-1, 8).mean(axis=1) for line in lines]
    blocks = grey.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3)
    cosines = np.abs(dctn(blocks, axes=(2, 3), norm="ortho")).reshape(-1, 64)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1)
    colours = [*pixels.mean((0, 1)), *pixels.std((0, 1)), *np.quantile(grey, (0.01, 0.1, 0.5, 0.9, 0.99))]
    neighbours = [
        np.corrcoef(fine[:, 1:].ravel(), fine[:, :-1].ravel())[0, 1],
        np.corrcoef(fine[1:].ravel(), fine[:-1].ravel())[0, 1],
    ]
    small = (cosines < 0.5).mean(axis=0)
    found = np.concatenate(
        [rings, *halves, np.log(cosines.mean(axis=0) + 0.1), small, colours, [fine.std()], neighbours]
    )
    return np.nan_to_num(found)


@torch.inference_mode()
def count(model: torch.nn.Module, mean: Sequence[float], std: Sequence[float], records: Sequence[Record]) -> Counts:
    seen: list[torch.Tensor] = []
    hook = model.encoder.register_forward_hook(lambda module, given, made: seen.extend(made))
    features, marks, on, off, numbers = [], [], [], [], []
    for record in records:
        seen.clear()
        pixels = read_image(record.image)
        marks.append(traces(pixels))
        image = torch.from_numpy(pixels)[None]
        logits = model(normalise(image, mean, std))[0, 0]
        pools = []
        for level in seen:
            called = adaptive_avg_pool2d(logits.sigmoid()[None, None], level.shape[-2:])
            where = (level * called).sum((2, 3)) / (called.sum((2, 3)) + 1e-3)
            pools += [level.mean((2, 3)), level.std((2, 3)), where]
        features.append(torch.cat(pools, 1)[0].numpy())
        bins, label = np.digitize(logits.numpy(), EDGES), target(record, 1) > 0
        on.append(np.bincount(bins[label], minlength=128))
        off.append(np.bincount(bins[~label], minlength=128))
        found = re.match(r"\d+", record.image.name)
        if found is None:
            raise InputError(f"{record.image}: its name does not begin with a number")
        numbers.append(int(found[0]))
    hook.remove()
    hits, false = (np.array(rows)[:, ::-1].cumsum(axis=1)[:, ::-1] for rows in (on, off))
    return Counts(np.array(features), np.array(marks), np.array(numbers), hits, false, hits[:, 0])


def learnt(train: Counts, val: Counts, x: np.ndarray, x_val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds of the training photographs, each by a forest that has not seen it, and of the validation photographs."""
    y, weight = np.clip(train.best(), 24, 104), np.sqrt(train.size + 1.0)

    def forest(rows: np.ndarray) -> RandomForestRegressor:
        made = RandomForestRegressor(200, min_samples_leaf=5, max_features=0.2, n_jobs=-1, random_state=0)
        return made.fit(x[rows], y[rows], sample_weight=weight[rows])

    held = np.zeros(len(y))
    for known, unknown in KFold(10, shuffle=True, random_state=0).split(x):
        held[unknown] = forest(known).predict(x[unknown])
    return held, forest(np.arange(len(y))).predict(x_val)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data", default="crack")
    asked = parser.parse_args()
    model, metadata = weights.load(weights.find(asked.run))
    splits = cards.load(asked.data).splits
    rng = np.random.default_rng(0)
    copies = [splits["train"][group[rng.integers(len(group))]] for group in by_photograph(splits["train"]).values()]
    train, val = (count(model.eval(), metadata.mean, metadata.std, records) for records in (copies, splits["val"]))
    print("| threshold | training photographs | validation photographs |\n|---|---|---|")
    flat = [np.full(len(part.size), 64) for part in (train, val)]
    print(f"| one for all | {train.shifted(flat[0]):.3f} | {val.shifted(flat[1]):.3f} |", flush=True)
    for name, x, x_val in (
        ("from the photograph", train.features, val.features),
        ("from traces of camera and compression", train.traces, val.traces),
        ("from the number in its name", train.number[:, None], val.number[:, None]),
    ):
        held, told = learnt(train, val, x, x_val)
        both = (np.corrcoef(held, train.best())[0, 1], np.corrcoef(told, val.best())[0, 1])
        print(f"| {name} (correlation with the best {both[0]:.2f}, {both[1]:.2f}) | {train.shifted(held):.3f} | "
              f"{val.shifted(told):.3f} |", flush=True)  # fmt: skip
    print(f"| the best for each | {train.pooled(train.best()):.3f} | {val.pooled(val.best()):.3f} |")
    for says, scores in (
        ("at which it is as large as the label", [part.pooled(part.as_large()) for part in (train, val)]),
        ("one for all, against these outlines", [part.against_own_outlines(part.as_large()) for part in (train, val)]),
    ):
        print(f"| {says} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
