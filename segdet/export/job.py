"""`segdet export`: one ONNX file, written only if it agrees with the model it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx

from segdet.console import progress, say
from segdet.data import splits
from segdet.data.records import Dataset, Record
from segdet.errors import InputError, InvalidOption, SegdetError, nearest
from segdet.export import half, search, triton, worst
from segdet.export.card import card
from segdet.export.gate import PRECISIONS, Gate, against_torch, sentence
from segdet.export.onnx import OPSET, to_onnx, write
from segdet.export.ranges import measure
from segdet.files import replacing, sha256_of, write_json
from segdet.inference.session import open_session
from segdet.inference.sizes import SMALLEST
from segdet.metadata import Metadata
from segdet.models import weights
from segdet.text import encoded
from segdet.trained import Trained, dataset_for, open_trained

PARITY_IMAGES = {"fp32": 50, "fp16": 200, "int8": 200}  # a metric needs more images than a bound on each one
_HALF_IMAGES = 4  # images on which overflow is looked for
_PAPERS = (".md", ".parity.json", ".worst.jpg")  # what stands beside the file


def export(
    source: str | Path,
    out: str | Path | None = None,
    data: str | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
    precision: str = "fp32",
    calibration: int = search.CALIBRATION,
    triton_repository: str | Path | None = None,
    down_to: int | None = None,
) -> Path:
    """Export a run folder or weights file to ONNX and prove the file on real validation images.

    Args:
        out: file to write (default: `exports/<run or file name>.onnx`, with `-fp16` or `-int8`).
        data: dataset to compare on (default: the one it was trained on).
        tolerance: fp32: largest share of differing pixels on any image, or for detection the pixels by which a corner may
            move. fp16 and int8: largest loss of IoU or AP.
        limit: images to compare on (default: 50, for fp16 and int8 200).
        precision: fp32, fp16 or int8.
        calibration: training images that decide the ranges of int8.
        triton_repository: also write a Triton model repository into this folder.
        down_to: segdet shall look at large images again at half their size, a quarter, ..., down to a longer side of this many
            pixels (segmentation of one class; 0 or None: not). The ONNX graph itself stays as it is.

    Returns:
        The ONNX file; `<name>.parity.json`, `<name>.worst.jpg` and the model card `<name>.md` stand beside it.

    Raises:
        InputError: no such weights, or no images to compare on. SegdetError: the file does not agree; none is left.
    """
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: say fp32, fp16 or int8{nearest(precision, PRECISIONS)}")
    if tolerance is not None and not tolerance >= 0:
        raise InvalidOption("tolerance", tolerance, "must be 0 or more")
    run, file = Path(source), weights.find(source)
    model, metadata = weights.load(file)
    if down_to and (metadata.task != "segmentation" or len(metadata.classes) != 1):
        raise InputError(f"--down-to {down_to}: only for segmentation models of one class; leave it out")
    if down_to and down_to < SMALLEST:
        raise InputError(f"--down-to {down_to}: at least {SMALLEST} pixels, or 0 for no coarser looks")
    target = _target(run, file, out, precision)
    if triton_repository is not None:
        triton.place(target, Path(triton_repository))  # better now than after minutes of work
    trained = open_trained(source)
    dataset = _dataset(trained, data)
    records = splits.limited(dataset, limit or PARITY_IMAGES[precision]).splits["val"]
    about = {"opset": OPSET, "source_sha256": sha256_of(file), "precision": precision, "down_to": down_to or None}
    described = metadata.model_copy(update=about)
    proto = to_onnx(model, metadata)
    gate = against_torch(model, metadata, precision, tolerance)
    with ExitStack() as stack:
        # All are made before any takes its place, the model first: left in the opposite order.
        papers = {ending: stack.enter_context(replacing(target.with_suffix(ending))) for ending in _PAPERS}
        temporary = stack.enter_context(replacing(target))
        refusal = ""
        for made, account in _made(proto, described, precision, dataset, calibration, tolerance):
            if refusal:
                say(f"{refusal}; trying another recipe")
            write(made, described, temporary)
            compared = {"precision": precision, **account, **_compared(temporary, gate, records)}
            if compared["passed"]:
                break
            refusal = f"refused: {sentence(compared)}"
        else:
            raise SegdetError(
                f"{target}: not written, the file does not agree with {file}: {sentence(compared)}; "
                "the worst images are " + ", ".join(entry["image"] for entry in compared["worst"][:3])
            )
        brief = {key: value for key, value in compared.items() if key not in ("images", "worst")}
        final = described.model_copy(update={"parity": brief})
        write(made, final, temporary)
        picture = worst.picture(model, open_session(temporary, "cpu"), final, records, compared)
        papers[".worst.jpg"].write_bytes(picture)
        write_json(papers[".parity.json"], compared)
        size = temporary.stat().st_size
        papers[".md"].write_bytes(encoded(card(target, size, final, compared, trained.settings, dataset)))
    if triton_repository is not None:
        say(f"Triton: {triton.write_repository(target, final, Path(triton_repository))}")
    return target


def _made(
    proto: onnx.ModelProto,
    metadata: Metadata,
    precision: str,
    dataset: Dataset,
    calibration: int,
    tolerance: float | None,
) -> Iterator[tuple[onnx.ModelProto, dict[str, Any]]]:
    """Models in the wanted precision, best first, each with an account of how it was made."""
    train = dataset.splits.get("train", ())
    if precision == "fp32":
        yield proto, {}
    elif precision == "fp16":
        looked_at = splits.limited(dataset, _HALF_IMAGES).splits["val" if not train else "train"]
        images = search.calibration_images(looked_at, whole=metadata.task == "detection")
        made, kept = half.halved(proto, measure(proto, images, half.measured_tensors(proto)))
        yield made, {"kept_in_float32": kept}
    else:
        for candidate in search.candidates(proto, metadata, train, calibration, tolerance):
            yield candidate.proto, {"quantised": {**candidate.account(), "calibration_images": calibration}}


def _compared(file: Path, gate: Gate, records: Sequence[Record]) -> dict[str, Any]:
    session = open_session(file, "cpu")
    with progress("comparing with PyTorch", len(records)) as advance:
        return gate(session, records, advance)


def _target(run: Path, file: Path, out: str | Path | None, precision: str) -> Path:
    if out is None:
        name = run.resolve().name if run.is_dir() else file.stem
        return Path("exports") / f"{name}{'' if precision == 'fp32' else f'-{precision}'}.onnx"
    if Path(out).suffix != ".onnx":
        raise InputError(f"--out {out}: the file's name must end in .onnx")
    return Path(out)


def _dataset(trained: Trained, data: str | None) -> Dataset:
    """The dataset to compare on, divided as it was for training."""
    try:
        return splits.with_validation(dataset_for(trained, data), trained.seed)[0]
    except InputError as error:
        raise InputError(f"an export is proved on real images, and they cannot be had: {error}") from error
