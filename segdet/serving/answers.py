"""Results in the forms that clients ask for: which one, and how it is written."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from segdet.data.images import encode_jpeg, encode_png
from segdet.inference.io import serialize
from segdet.inference.io.coco_ids import keys_of
from segdet.inference.predict.results import SegmentationResult
from segdet.serving.predicting import Answer, Result
from segdet.serving.refusals import Refused, bad_request
from segdet.text import encoded

MEDIA = {
    "json": "application/json",
    "mask": "image/png",
    "overlay": "image/png",
    "overlay.jpg": "image/jpeg",
    "confidence": "image/png",
    "picture": "image/jpeg",
    "geojson": "application/geo+json",
    "coco": "application/json",
    "csv": "text/csv; charset=utf-8",
    "yolo": "text/plain; charset=utf-8",
}
FORMATS = tuple(MEDIA)
PICTURES = ("mask", "overlay", "overlay.jpg", "confidence", "picture", "yolo")  # of one image only
INCLUDES = ("polygons", "rle", "mask", "confidence")
_USUAL = ("polygons", "rle")

# What an Accept header means, most specific first; `render` chooses between pictures of one type.
_ACCEPTED = {
    "application/json": "json",
    "application/geo+json": "geojson",
    "image/png": "mask",
    "image/jpeg": "overlay.jpg",
    "text/csv": "csv",
    "*/*": "json",
    "application/*": "json",
    "image/*": "mask",
}
_RENDERED = {
    "image/png": {"mask": "mask", "overlay": "overlay", "confidence": "confidence"},
    "image/jpeg": {"overlay": "overlay.jpg"},
}
_SKIPPED_ONE, _SKIPPED_ALL = 150, 2000  # characters of a header; proxies take a few thousand for all
_PLAIN = "".join(map(chr, range(32, 127))).replace("%", "").replace(";", "")


def choose(accept: str | None, format: str | None) -> str:
    """One of `FORMATS`: what `format` says, else what the Accept header prefers.

    Raises:
        Refused: 406, none of them is acceptable.
    """
    if format:
        return format
    best, weight = None, 0.0
    for entry in (accept or "*/*").split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        given = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        chosen = _ACCEPTED.get(kind)
        if kind in _RENDERED and "render" in given:
            chosen = _RENDERED[kind].get(given["render"].strip('"'))
        quality = _quality(given.get("q", "1"))
        if chosen and quality > weight:
            best, weight = chosen, quality
    if best is None:
        raise Refused(
            406,
            "not_acceptable",
            f"Accept: one of {', '.join(_ACCEPTED)}, image/png;render=overlay, image/png;render=confidence; "
            f"or say format={'|'.join(FORMATS)}",
        )
    return best


def check_format(kind: str, task: str, images: int) -> None:
    """Refuse what this task or number of images has no form for.

    Raises:
        Refused: 400.
    """
    if images > 1 and kind in PICTURES:
        raise bad_request(f"{kind} is of one image; send one, or ask for json, geojson, coco or csv", "bad_option")
    if task == "detection" and kind in ("mask", "confidence"):
        raise bad_request(
            f"this model finds boxes and has no {kind}; ask for json, overlay, geojson, coco, csv or yolo", "bad_option"
        )


def includes(text: str | None) -> tuple[str, ...]:
    """What the JSON holds beside the regions.

    Raises:
        Refused: 400, a word that is none of `INCLUDES`.
    """
    if text is None:
        return _USUAL
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in words:
        if word not in INCLUDES:
            raise bad_request(f"include={word[:40]}: any of {','.join(INCLUDES)}", "bad_option")
    return words


def encoder(kind: str, name: str, include: Sequence[str]) -> Callable[[Result], Any]:
    """What turns one image's result into its part of the answer; slow, so it runs in the worker."""
    makers: dict[str, Callable[[Any], Any]] = {
        "json": lambda result: image_json(result, include),
        "mask": lambda result: result.mask_png(),
        "confidence": lambda result: result.confidence_png(),
        "picture": lambda result: encode_jpeg(result.image),
        "overlay": lambda result: encode_png(result.overlay()),
        "overlay.jpg": lambda result: encode_jpeg(result.overlay()),
        "geojson": lambda result: _features(result, name),
        "coco": lambda result: result.to_coco(),  # `assemble` names the images, which depends on the others
        "csv": lambda result: list(serialize.csv_rows({"image": name, **result.to_dict()})),
        "yolo": lambda result: result.to_yolo().encode(),
    }
    return makers[kind]


def image_json(result: Result, include: Sequence[str]) -> dict[str, Any]:
    """One image's part of the JSON answer."""
    content = result.to_dict()
    if not isinstance(result, SegmentationResult):
        return content
    if "polygons" not in include:
        content["regions"] = [{k: v for k, v in region.items() if k != "polygons"} for region in content["regions"]]
    if "rle" in include:
        content["rle"] = result.rle
    if "mask" in include:
        content["mask"] = _base64(result.mask_png())
    if "confidence" in include:
        content["confidence"] = _base64(result.confidence_png())
    return content


def assemble(kind: str, answers: Sequence[Answer], about: dict[str, Any]) -> tuple[bytes, str]:
    """The whole answer and its media type.

    Args:
        about: the request's id, model and timing (for JSON).
    """
    done = [answer for answer in answers if answer.error is None]
    if kind == "json":
        content: Any = {**about, "images": [_row(answer) for answer in answers]}
    elif kind == "geojson":
        content = serialize.collection(f for answer in done for f in answer.extra)
        if len(done) < len(answers):  # a foreign member, as RFC 7946 allows
            content["skipped"] = [_row(answer) for answer in answers if answer.error is not None]
    elif kind == "coco":
        keys = keys_of([answer.name for answer in answers])
        content = [
            row
            for key, answer in zip(keys, answers, strict=True)
            if answer.error is None
            for row in key.complete(answer.extra)
        ]
    elif kind == "csv":
        buffer = io.StringIO()
        rows = csv.writer(buffer, lineterminator="\n")
        rows.writerow(serialize.COLUMNS)
        for answer in done:
            rows.writerows([_harmless(cell) for cell in row] for row in answer.extra)
        return encoded(buffer.getvalue()), MEDIA[kind]
    else:
        return done[0].extra, MEDIA[kind]
    return encoded(json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))), MEDIA[kind]


def skipped(answers: Sequence[Answer]) -> str:
    """The images without a result as a header: `name: reason; name: reason`, percent-encoded where it is not plain ASCII."""
    text = ""
    failed = [answer for answer in answers if answer.error is not None]
    for number, answer in enumerate(failed):
        reason = str(answer.error).removeprefix(
            f"{answer.name}: "
        )  # most begin with it, and a long name must not hide them
        entry = quote(f"{answer.name[:60]}: {reason}"[:_SKIPPED_ONE], safe=_PLAIN)
        if len(text) + len(entry) > _SKIPPED_ALL:
            return f"{text}; {len(failed) - number} more"
        text += f"; {entry}" if text else entry
    return text


def _row(answer: Answer) -> dict[str, Any]:
    timing = {f"{stage}_ms": round(seconds * 1000, 2) for stage, seconds in answer.timing.items()}
    if answer.error is not None:
        return {"name": answer.name, "error": answer.error, "status": answer.status}
    return {"name": answer.name, **answer.extra, "timing": timing}


def _features(result: Result, name: str) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = result.to_geojson()["features"]
    for feature in features:
        feature["properties"]["image"] = name
    return features


def _harmless(cell: Any) -> Any:
    """A name given by a client must not become a formula in somebody's spreadsheet."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if np.isfinite(value) else 0.0
