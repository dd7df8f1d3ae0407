"""`check.html`: every finding of the doctor with thumbnails, in one file without network use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdet.data.doctor.findings import Case, Checkup, Finding
from segdet.data.geometry import rasterize
from segdet.data.images import ImageError, encode_jpeg, read_image, resize
from segdet.data.records import Account, Box, Dataset, Record, iterate
from segdet.drawing import colour_of
from segdet.files import write_text
from segdet.reporting import page
from segdet.reporting.page import escape

_MEANING = (
    "Errors make training or its scores wrong, warnings may, notes are good to know. Labels are drawn on the pictures; what "
    "a finding is about is ringed in yellow where it is small."
)
_LAID = (
    "Left and middle: the two pictures with their labels. Right: the left one, laid where the middle one shows the same. "
    "Points are marks in the surface that both show in matching places; chance reaches six."
)
_RING = (255, 214, 0)
_SIDE = 260  # pixels of a thumbnail's longer side
_SHOWN = 48  # thumbnails of one finding; leaks are shown to four times as many


def write(path: Path, dataset: Dataset, checkup: Checkup) -> None:
    """Write the page to `path`."""
    records = {record.image: record for _, record in iterate(dataset)}
    figures = checkup.figures
    body = [
        f"<h1>{escape(dataset.name)}</h1>",
        f"<p class=sub>{escape(dataset.root)}, {escape(dataset.format)}; licence: "
        f"{escape(dataset.licence or 'not stated')}</p>",
        f"<p><b>{'Mend the data first' if checkup.errors else 'Good to train with'}: {checkup.verdict}.</b> {_MEANING}</p>",
        _splits(figures),
        "<h2>Findings</h2>",
        _contents(checkup),
        *(_finding(finding, number, records, dataset.root) for number, finding in enumerate(checkup.findings)),
        *_not_read(dataset.account),
        "<h2>Classes</h2>",
        _classes(figures["classes"]),
    ]
    write_text(path, page.document(f"{dataset.name}: check", body))


def _splits(figures: Mapping[str, Any]) -> str:
    rows = []
    for split, row in figures["splits"].items():
        share = "" if row["foreground"] is None else f"{row['foreground']:.2%}"
        area = "" if row["object_area"] is None else " / ".join(f"{value:,.0f}" for value in row["object_area"])
        cells = [row["images"], row["photographs"], row["objects"], row["crowds"], row["empty"], share, area]
        rows.append(f"<tr><th>{escape(split)}" + "".join(f"<td class=n>{escape(cell)}" for cell in cells))
    head = (
        "<tr><th>split<th>images<th>photographs<th>objects<th>crowds<th>images without<th>labelled pixels"
        "<th>object area, px² (5 / 50 / 95 %)"
    )
    copies = any(row["images"] > row["photographs"] for row in figures["splits"].values())
    more = (
        "<p class=sub>A photograph and its augmented copies (x.rf.&hellip;) are one photograph.</p>" if copies else ""
    )
    return f"<div style='overflow-x:auto'><table>{head}{''.join(rows)}</table></div>{more}"


def _not_read(account: Account | None) -> list[str]:
    """What became of the files in the folder, with a row for each reason to leave some out."""
    if account is None:
        return []
    body = ["<h2 id='not-read'>What was not read</h2>", f"<p>{escape(account)}.</p>"]
    rows = []
    for one in account.unread:
        more = f" and {one.count - len(one.examples)} more" if one.count > len(one.examples) else ""
        shown = ", ".join(f"<code>{escape(name)}</code>" for name in one.examples)
        rows.append(f"<tr><td class=n>{one.count}<td>{escape(one.what)}<td>{shown}{more}")
    return [*body, page.table(("files", "what", "examples"), rows)] if rows else body


def _contents(checkup: Checkup) -> str:
    if not checkup.findings:
        return "<p>Nothing to complain about.</p>"
    rows = [
        f"<tr><td style='width:6rem'>{_tag(finding)}<td><a href='#{finding.code}-{number}'>{escape(finding.title)}</a>"
        for number, finding in enumerate(checkup.findings)
    ]
    return f"<table>{''.join(rows)}</table>"


def _tag(finding: Finding) -> str:
    return f"<span class='tag {finding.severity}'>{finding.severity}</span>"


def _finding(finding: Finding, number: int, records: Mapping[Path, Record], root: Path) -> str:
    most = 4 * _SHOWN if finding.severity == "error" else _SHOWN
    cases = finding.cases
    if len(cases) > most:  # spread over all: neighbours are often copies of one photograph
        cases = tuple(cases[index] for index in np.linspace(0, len(cases) - 1, most).round().astype(int))
    shown = [_case(case, records, root) for case in cases if case.images]
    words = [escape(case.note) for case in cases if not case.images]
    pairs = any(len(case.images) > 1 for case in cases)
    laid = any(case.transform is not None for case in cases)
    more = len(finding.cases) - len(cases)
    return (
        f"<h2 id='{finding.code}-{number}'>{_tag(finding)} {escape(finding.title)}</h2><p>{_advice(finding)}</p>"
        + (f"<p class=sub>{_LAID}</p>" if laid else "")
        + (f"<div class='grid{' pairs' if pairs else ''}'>{''.join(shown)}</div>" if shown else "")
        + (f"<ul class=sub>{''.join(f'<li>{word}' for word in words)}</ul>" if words else "")
        + (f"<p class=sub>{more} more are listed in check.json.</p>" if more > 0 else "")
    )


def _advice(finding: Finding) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(finding.advice))


def _case(case: Case, records: Mapping[Path, Record], root: Path) -> str:
    # Roboflow's hashes are 32 characters that tell a reader nothing; check.json has them whole.
    caption = re.sub(r"(\.rf\.\w{6})\w{8,}", r"\1…", case.text(lambda path: _short(path, root)))
    tiles = [thumbnail(path, records.get(path), case.marks) for path in case.images]
    if any(tile is None for tile in tiles):
        return f"<figure><div class=none>cannot be shown</div><figcaption>{escape(caption)}</figcaption></figure>"
    if case.transform is not None:
        laid = _laid_over(case, records)
        tiles += [laid] if laid is not None else []
    return page.figure(encode_jpeg(_row([tile for tile in tiles if tile is not None]), 80), "jpeg", caption)


def _short(path: Path, root: Path) -> str:
    """The path below `root`, without the middle of what is long."""
    text = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return text if len(text) <= 60 else f"{text[:28]}…{text[-28:]}"


def thumbnail(path: Path, record: Record | None, marks: Sequence[Box] = ()) -> np.ndarray | None:
    """The picture made small with its labels drawn on it and a ring around small `marks`; None when it cannot be decoded.

    RGB uint8 `[h, w, 3]`.
    """
    try:
        image = read_image(path)
    except ImageError:
        return None
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale))).copy()
    for instance in record.instances if record is not None else ():
        colour = colour_of(instance.label)
        for polygon in instance.polygons:
            cv2.polylines(small, [np.round(polygon * scale * 16).astype(np.int32)], True, colour, 1, cv2.LINE_AA, 4)
        if instance.rle is not None and record is not None:
            mask = rasterize.class_index(Record(path, record.width, record.height, (instance,), ""))
            inside = resize((mask > 0).astype(np.uint8) * 255, *small.shape[:2]) >= 128
            outline, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(small, outline, -1, colour, 1)
        elif not instance.polygons:
            x1, y1, x2, y2 = (round(value * scale) for value in instance.box)
            cv2.rectangle(small, (x1, y1), (x2, y2), colour, 1)
    for x1, y1, x2, y2 in marks:
        radius = round(max(x2 - x1, y2 - y1) * scale / 2) + 8
        if radius < _SIDE / 4:
            centre = (round((x1 + x2) * scale / 2), round((y1 + y2) * scale / 2))
            cv2.circle(small, centre, radius, _RING, 2, cv2.LINE_AA)
    return small


def _laid_over(case: Case, records: Mapping[Path, Record]) -> np.ndarray | None:
    """The first picture of a pair moved to where the second shows the same, in the second's frame."""
    first, second = case.images
    if second not in records or case.transform is None:
        return None
    record = records[second]
    scale = _SIDE / max(record.size)
    size = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    moved = cv2.warpAffine(
        read_image(first), case.transform * scale, size, flags=cv2.INTER_AREA, borderValue=(127, 127, 127)
    )
    return np.asarray(moved)


def _row(tiles: list[np.ndarray]) -> np.ndarray:
    """Tiles side by side on white."""
    height = max(tile.shape[0] for tile in tiles)
    parts = []
    for tile in tiles:
        padded = np.full((height, tile.shape[1], 3), 255, np.uint8)
        padded[: tile.shape[0]] = tile
        parts += [padded, np.full((height, 4, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def _classes(classes: Mapping[str, int]) -> str:
    most = max(classes.values(), default=0) or 1
    rows = [
        f"<tr><th>{escape(name)}<td class=n>{count}<td style='width:60%'>"
        f"<div class=note style='height:.7em;border-radius:2px;width:{100 * count / most:.1f}%'></div>"
        for name, count in sorted(classes.items(), key=lambda item: -item[1])
    ]
    return f"<table><tr><th>class<th>objects<th>{''.join(rows)}</table>"
