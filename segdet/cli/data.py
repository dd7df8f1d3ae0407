"""`segdet data list`, `info`, `convert`, `unpack` and `split`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segdet.cli import output
from segdet.errors import InputError

if TYPE_CHECKING:
    from segdet.data.convert import Report
    from segdet.data.records import Dataset


def list_datasets() -> None:
    """Datasets that are known by name, and where they are."""
    from segdet.data.catalog import cards

    rows: list[tuple[str, ...]] = [("name", "where", "what")]
    found = []
    for name, card in sorted(cards.cards().items()):
        folder = cards.folder_of(name)
        where = str(folder) if folder else ("drawn on first use" if card.generated else "not on disk")
        rows.append((name, where, card.title))
        found.append(
            {"name": name, "folder": str(folder) if folder else None, "title": card.title, "licence": card.licence}
        )
    for home in cards.homes():
        for folder in sorted(p for p in home.glob("*") if p.is_dir() and p.name not in cards.cards()):
            rows.append((folder.name, str(folder), "a folder of yours"))
            found.append({"name": folder.name, "folder": str(folder), "title": None, "licence": None})
    output.emit({"datasets": found}, output.table(rows))


def info(data: str = typer.Argument(..., help="Dataset name, folder or COCO file.")) -> None:
    """What a dataset holds: its layout, classes, splits, sizes, and what could not be used."""
    from segdet.console import progress
    from segdet.data import summary
    from segdet.data.catalog import cards

    card = cards.cards().get(data)
    drawn = card.pictures if card is not None and card.generated else 0
    with progress(f"drawing {data}", drawn) as advance:
        dataset = cards.load(data, lambda done, total: advance(1))
    described = summary.describe(dataset)
    from segdet.data.learnable import shortened

    crowds = any(row["crowds"] for row in described["splits"].values())
    columns = ("images", "photographs", "objects", *(("crowds",) if crowds else ()), "empty", "sizes")
    rows: list[tuple[str, ...]] = [("split", *columns)]
    for split, row in described["splits"].items():
        rows.append((split, *(str(row[key]) for key in columns)))
    lines = [
        f"{dataset.name} in {dataset.root}: {dataset.format} ({'; '.join(dataset.notes)})",
        f"licence: {dataset.licence or 'not stated'}; sha256 {described['sha256'][:16]}",
        output.table(rows),
        "classes: " + ", ".join(f"{name} ({count})" for name, count in described["objects"].items()),
    ]
    for split, row in described["splits"].items():
        if row["lacking"]:
            lines.append(f"no object in {split} of: {shortened(row['lacking'])}")
    if not any(described["objects"].values()):
        marked = "; all labels are marked as crowds (`iscrowd`), which are left out of training" if crowds else ""
        lines.append(f"no object is labelled: there is nothing to learn{marked}")
    if described["foreground"] is not None:
        lines.append(f"foreground: {described['foreground']:.2%} of the pixels of {described['sampled']} images")
    if dataset.account is not None:
        lines += dataset.account.lines
    if dataset.problems:
        lines.append(
            f"{len(dataset.problems)} things left out; the first: " + "; ".join(str(p) for p in dataset.problems[:3])
        )
    output.emit(described, "\n".join(lines))


def convert(
    data: str = typer.Argument(..., help="Dataset name, folder or COCO file."),
    folder: Path = typer.Argument(..., help="Folder to make."),
    to: str = typer.Option(..., help="coco, yolo, png-mask or voc."),
    compare: str = typer.Option("200", help="Images whose masks are compared with the original: a number, or all."),
) -> None:
    """Write a dataset in another layout, and say what that layout could not hold."""
    from segdet.data.catalog import cards

    report = _convert(cards.load(data), folder, to, compare)
    output.emit(report.to_dict(), _text(report))


def unpack(
    folder: Path = typer.Argument(..., help="Folder with LabelMe's JSON files."),
) -> None:
    """Write the pictures that LabelMe files hold inside (imageData) beside them, where they are missing."""
    from segdet.data.formats import labelme_pictures

    written, problems = labelme_pictures.unpack(folder)
    if problems and not written:
        more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    lines = [f"{folder}: {len(written)} pictures written", *(f"left out: {problem}" for problem in problems)]
    output.emit({"written": [str(file) for file in written], "problems": problems}, "\n".join(lines))


def split(
    data: str = typer.Argument(..., help="Dataset name, folder or COCO file."),
    folder: Path = typer.Argument(..., help="Folder to make."),
    val: float = typer.Option(0.2, help="Share of the photographs for validation."),
    test: float = typer.Option(0.0, help="Share of the photographs for testing."),
    seed: int = typer.Option(0, help="Of the draw."),
    to: str = typer.Option("coco", help="Layout to write: coco, yolo, png-mask or voc."),
    compare: str = typer.Option("200", help="Images whose masks are compared with the original: a number, or all."),
) -> None:
    """Split all images of a dataset again, by photograph, with classes, sizes and negatives in proportion."""
    from segdet.data import summary
    from segdet.data.catalog import cards, splits

    divided = splits.divide(cards.load(data), val, test, seed)
    report = _convert(divided, folder, to, compare)
    rows: list[tuple[str, ...]] = [("split", "images", "photographs", "objects", "empty")]
    described = summary.by_split(divided)
    for name, row in described.items():
        rows.append((name, *(str(row[key]) for key in rows[0][1:])))
    output.emit({**report.to_dict(), "seed": seed, "drawn": described}, f"{output.table(rows)}\n{_text(report)}")


def _convert(dataset: Dataset, folder: Path, to: str, compare: str) -> Report:
    from segdet.console import progress
    from segdet.data.convert import convert as run

    if compare != "all" and not (compare.isascii() and compare.isdigit()):
        raise InputError(f"--compare {compare}: a number of images, or all")
    total = sum(len(records) for records in dataset.splits.values())
    with progress(f"writing {to}", 2 * total) as advance:
        return run(dataset, folder, to, None if compare == "all" else int(compare), advance)


def _text(report: Report) -> str:
    """What was written, what was lost, and how far the masks agree."""
    images = ", ".join(f"{split} {count}" for split, count in report.splits.items())
    lines = [f"{report.folder}: {report.target}, {images}"]
    lines += [f"lost or changed: {what} ({count})" for what, count in report.losses.items()]
    if not report.losses:
        lines.append("nothing lost")
    if report.problems:
        lines.append(f"read back with {len(report.problems)} remarks; the first: {report.problems[0]}")
    found = report.agreement
    if found.iou is None:
        lines.append(f"no masks to compare in {found.images} images")
    else:
        worst = f"; worst {found.worst[0]} {found.worst[1]:.5f}" if found.worst else ""
        lines.append(
            f"masks of {found.images} images against the original: IoU {found.iou:.6f}, {found.pixels:.5%} of the pixels differ{worst}"
        )
    return "\n".join(lines)
