"""Which layers can be quantised? Tried on training images, the cheapest answer first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from segdet.console import progress
from segdet.data.images import ImageError, read_ahead
from segdet.data.records import Record, by_photograph
from segdet.errors import InputError
from segdet.exporting import int8
from segdet.exporting.gate import Gate, against_file, loss
from segdet.exporting.int8 import Recipe
from segdet.exporting.onnx import write
from segdet.exporting.ranges import Range, measure
from segdet.exporting.surgery import Graph
from segdet.inference.backends.select import open_session
from segdet.inference.backends.session import Session
from segdet.metadata import Metadata

CALIBRATION = 32  # images whose values decide the ranges
HELD_OUT = 16  # further training images on which recipes are tried
WINDOW = 640  # pixels: of a larger photograph, a part of this side is enough to see the values
_GROUPS = 24  # parts into which a network is cut to find its sensitive ones
_SHARES = (0.1, 0.25, 0.5)  # of the layers that are left in float32, most sensitive first


@dataclass(frozen=True)
class Candidate:
    """A quantised model and how it did on the held-out training images."""

    recipe: Recipe
    proto: onnx.ModelProto
    layers: int
    compared: dict[str, Any]

    def account(self) -> dict[str, Any]:
        """What was done, for the file's metadata."""
        return {
            "recipe": self.recipe.name,
            "ranges": self.recipe.ranges,
            "layers": self.layers - len(self.recipe.floats),
            "in_float": sorted(self.recipe.floats),
            "on_training_images": {
                "images": self.compared["compared"],
                "agreement": self.compared["agreement"],
                "loss": loss(self.compared),
            },
        }


def training_images(records: Sequence[Record], calibration: int) -> tuple[list[Record], list[Record]]:
    """Training photographs for the ranges, and others for trying recipes, both spread over the whole set.

    Raises:
        InputError: fewer than two photographs.
    """
    each = [group[0] for group in by_photograph(records).values()]
    if len(each) < 2:
        raise InputError(f"int8 needs training images to look at; the dataset has {len(each)} photograph(s) in train")
    wanted = min(len(each), calibration + HELD_OUT)
    spread = [records[each[i]] for i in np.linspace(0, len(each) - 1, wanted).round().astype(int)]
    tried = max(1, min(HELD_OUT, wanted // 3))
    chosen = set(np.linspace(0, wanted - 1, tried).round().astype(int).tolist())
    return (
        [record for place, record in enumerate(spread) if place not in chosen],
        [record for place, record in enumerate(spread) if place in chosen],
    )


def calibration_images(records: Sequence[Record], whole: bool) -> Iterator[np.ndarray]:
    """RGB uint8 images; unless `whole`, of large ones the part around the first labelled object."""
    for record, image in zip(records, read_ahead(record.image for record in records), strict=True):
        if isinstance(image, ImageError):
            continue
        if not whole:
            x1, y1, x2, y2 = record.instances[0].box if record.instances else (0, 0, record.width, record.height)
            left, top = (
                int(min(max(0, centre - WINDOW / 2), max(0, side - WINDOW)))
                for centre, side in (((x1 + x2) / 2, image.shape[1]), ((y1 + y2) / 2, image.shape[0]))
            )
            image = np.ascontiguousarray(image[top : top + WINDOW, left : left + WINDOW])
        yield image


def candidates(
    proto: onnx.ModelProto, metadata: Metadata, train: Sequence[Record], calibration: int, tolerance: float | None
) -> Iterator[Candidate]:
    """Quantised models that hold on training images, the fastest first; when none does, at last the best of them.

    Args:
        proto: the fp32 model, with shapes and named nodes. calibration: images for the ranges.
        tolerance: the loss of the metric that the gate will allow.
    """
    looked_at, held_out = training_images(train, calibration)
    with progress("looking at training images", len(looked_at)) as advance:
        images = calibration_images(looked_at, whole=metadata.task == "detection")
        ranges = measure(proto, images, int8.measured_tensors(proto), advance)
    with opened(proto, metadata) as exact:
        gate = against_file(exact, "int8", tolerance)
        failed: list[Candidate] = []
        held = False

        def tried(recipe: Recipe) -> Candidate:
            return _try(proto, metadata, ranges, recipe, gate, held_out)

        for recipe in _recipes(proto, ranges, exact, held_out, lambda: failed):
            candidate = tried(recipe)
            failed.append(candidate)
            if candidate.compared["passed"]:
                held = True
                yield candidate
    if not held:
        yield max(failed, key=lambda candidate: (-loss(candidate.compared), candidate.compared["agreement"]))


@contextmanager
def opened(proto: onnx.ModelProto, metadata: Metadata) -> Iterator[Session]:
    """The model in a session, from a temporary file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        write(proto, metadata, file)
        yield open_session(file, "cpu")


def _try(
    proto: onnx.ModelProto,
    metadata: Metadata,
    ranges: Mapping[str, Range],
    recipe: Recipe,
    gate: Gate,
    held_out: Sequence[Record],
) -> Candidate:
    made = int8.quantised(proto, ranges, recipe)
    with (
        opened(made, metadata) as session,
        progress(f"trying int8 with {recipe.name}", len(held_out)) as advance,
    ):
        return Candidate(recipe, made, len(int8.layers(proto)), gate(session, held_out, advance))


def _recipes(
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    exact: Session,
    held_out: Sequence[Record],
    tried: Callable[[], Sequence[Candidate]],
) -> Iterator[Recipe]:
    """Recipes from the fastest to the most careful; the later ones look at how the earlier did."""
    first, last = ends(proto)
    yield (start := Recipe("all layers but the last", "widest", last))
    yield replace(start, name=f"{start.name}, rare values cut", ranges="clipped")
    best = max(tried(), key=lambda candidate: candidate.compared["agreement"]).recipe.ranges
    yield (both := Recipe("all layers but the first and last", best, first | last))
    order = _most_sensitive(proto, exact.metadata, ranges, replace(both, ranges=best), exact, held_out)
    for share in _SHARES:
        kept = frozenset(order[: max(1, round(share * len(order)))])
        yield replace(both, name=f"{both.name} and the most sensitive {share:.0%}", floats=both.floats | kept)


def ends(proto: onnx.ModelProto) -> tuple[frozenset[str], frozenset[str]]:
    """Layers with no other before them, and those with no other behind them."""
    graph, every = Graph(proto), set(int8.layers(proto))
    first = frozenset(name for name in every if not every & graph.before([name]))
    last = frozenset(name for name in every if not every & graph.after([name]))
    return first, last


def _most_sensitive(
    proto: onnx.ModelProto,
    metadata: Metadata,
    ranges: Mapping[str, Range],
    recipe: Recipe,
    exact: Session,
    records: Sequence[Record],
) -> list[str]:
    """Layers, the one first whose quantisation alone changes the answers most. Neighbours are tried together."""
    free = [name for name in int8.layers(proto) if name not in recipe.floats]
    groups = [part.tolist() for part in np.array_split(np.array(free, object), min(_GROUPS, len(free)))] if free else []
    images = list(calibration_images(records[:4], whole=metadata.task == "detection"))
    truth = [exact.run(image[None])[1] for image in images]  # confidence, or scores
    harm: list[float] = []
    with progress("finding sensitive layers", len(groups)) as advance:
        for group in groups:
            alone = replace(recipe, floats=frozenset(set(int8.layers(proto)) - set(group)))
            with opened(int8.quantised(proto, ranges, alone), metadata) as session:
                found = [session.run(image[None])[1] for image in images]
            harm.append(float(np.mean([np.abs(a - b).mean() for a, b in zip(found, truth, strict=True)])))
            advance(1)
    return [name for place in np.argsort(-np.array(harm)) for name in groups[int(place)]]
