"""`segdet export`: one ONNX file, written only if it agrees with the model it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx

from segdet.console import progress, say
from segdet.contract import OPSET
from segdet.data.catalog import splits
from segdet.data.records import Dataset, Record
from segdet.errors import InputError, InvalidOption, SegdetError
from segdet.exporting import half, search, triton, worst
from segdet.exporting.card import card
from segdet.exporting.config import ExportConfig
from segdet.exporting.gate import Gate, against_torch, sentence
from segdet.exporting.onnx import to_onnx, write
from segdet.exporting.ranges import measure
from segdet.files import replacing, sha256_of, write_json
from segdet.inference.backends.select import open_session
from segdet.inference.predict.sizes import SMALLEST
from segdet.metadata import Metadata
from segdet.models import weights
from segdet.text import encoded
from segdet.validation.checkpoint import Trained, dataset_for, open_trained

PARITY_IMAGES = {"fp32": 50, "fp16": 200, "int8": 200}  # a metric needs more images than a bound on each one
_HALF_IMAGES = 4  # images on which overflow is looked for
_PAPERS = (".md", ".parity.json", ".worst.jpg")  # what stands beside the file


def export(source: str | Path, config: ExportConfig) -> Path:
    """Export a run folder or weights file to ONNX and prove the file on real validation images.

    `multiscale_to` is for segmentation of one class. The ONNX graph itself does not depend on it.

    Returns:
        The ONNX file; `<name>.parity.json`, `<name>.worst.jpg` and the model card `<name>.md` stand beside it.

    Raises:
        InputError: no such weights, or no images to compare on. SegdetError: the file does not agree; none is left.
    """
    precision, multiscale_to = config.precision, config.multiscale_to
    run, file = Path(source), weights.find(source)
    model, metadata = weights.load(file)
    if multiscale_to and not metadata.is_binary:
        reason = "only segmentation models of one class predict at several scales"
        raise InvalidOption("multiscale_to", multiscale_to, reason, "remove the setting")
    if multiscale_to and multiscale_to < SMALLEST:
        raise InvalidOption("multiscale_to", multiscale_to, f"must be at least {SMALLEST} pixels, or 0 for one scale")
    target = _target(run, file, config.out, precision)
    if config.triton is not None:
        triton.place(target, config.triton)  # better now than after minutes of work
    trained = open_trained(source)
    dataset = _dataset(trained, config.data)
    records = splits.limited(dataset, config.limit or PARITY_IMAGES[precision]).splits["val"]
    about = {"opset": OPSET, "source_sha256": sha256_of(file), "precision": precision, "down_to": multiscale_to or None}
    described = metadata.model_copy(update=about)
    proto = to_onnx(model, metadata)
    gate = against_torch(model, metadata, precision, config.tolerance)
    with ExitStack() as stack:
        # All are made before any takes its place, the model first: left in the opposite order.
        papers = {ending: stack.enter_context(replacing(target.with_suffix(ending))) for ending in _PAPERS}
        temporary = stack.enter_context(replacing(target))
        refusal = ""
        for made, account in _made(proto, described, dataset, config):
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
    if config.triton is not None:
        say(f"Triton: {triton.write_repository(target, final, config.triton)}")
    return target


def _made(
    proto: onnx.ModelProto, metadata: Metadata, dataset: Dataset, config: ExportConfig
) -> Iterator[tuple[onnx.ModelProto, dict[str, Any]]]:
    """Models in the wanted precision, best first, each with an account of how it was made."""
    train = dataset.splits.get("train", ())
    if config.precision == "fp32":
        yield proto, {}
    elif config.precision == "fp16":
        looked_at = splits.limited(dataset, _HALF_IMAGES).splits["val" if not train else "train"]
        images = search.calibration_images(looked_at, whole=metadata.task == "detection")
        made, kept = half.halved(proto, measure(proto, images, half.measured_tensors(proto)))
        yield made, {"kept_in_float32": kept}
    else:
        for candidate in search.candidates(proto, metadata, train, config.calibration, config.tolerance):
            yield candidate.proto, {"quantised": {**candidate.account(), "calibration_images": config.calibration}}


def _compared(file: Path, gate: Gate, records: Sequence[Record]) -> dict[str, Any]:
    session = open_session(file, "cpu")
    with progress("comparing with PyTorch", len(records)) as advance:
        return gate(session, records, advance)


def _target(run: Path, file: Path, out: Path | None, precision: str) -> Path:
    if out is None:
        name = run.resolve().name if run.is_dir() else file.stem
        return Path("exports") / f"{name}{'' if precision == 'fp32' else f'-{precision}'}.onnx"
    if out.suffix != ".onnx":
        raise InvalidOption("out", out, "the file's name must end in .onnx")
    return out


def _dataset(trained: Trained, data: str | None) -> Dataset:
    """The dataset to compare on, divided as it was for training."""
    try:
        return splits.with_validation(dataset_for(trained, data), trained.seed)[0]
    except InputError as error:
        raise InputError(f"an export is compared on real images: {error.message}") from error
