"""`segdet data list`, `info`, `check` and `download`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segdet.cli import output

if TYPE_CHECKING:
    from segdet.data.doctor.findings import Checkup, Finding


def list_datasets() -> None:
    """Datasets that are known by name, and where they are."""
    from segdet.data import catalog

    rows: list[tuple[str, ...]] = [("name", "where", "what")]
    found = []
    for name, card in sorted(catalog.cards().items()):
        folder = catalog.folder_of(name)
        where = str(folder) if folder else ("drawn on first use" if card.generated else "not on disk")
        rows.append((name, where, card.title))
        found.append(
            {"name": name, "folder": str(folder) if folder else None, "title": card.title, "licence": card.licence}
        )
    for home in catalog.homes():
        for folder in sorted(p for p in home.glob("*") if p.is_dir() and p.name not in catalog.cards()):
            rows.append((folder.name, str(folder), "a folder of yours"))
            found.append({"name": folder.name, "folder": str(folder), "title": None, "licence": None})
    output.emit({"datasets": found}, output.table(rows))


def info(data: str = typer.Argument(..., help="Dataset name or folder.")) -> None:
    """What a dataset holds: its layout, classes, splits, sizes, and what could not be used."""
    from segdet.console import progress
    from segdet.data import catalog, summary

    with progress("drawing", 220) as advance:
        dataset = catalog.load(data, lambda done, total: advance(1))
    described = summary.describe(dataset)
    rows: list[tuple[str, ...]] = [("split", "images", "photographs", "objects", "empty", "sizes")]
    for split, row in described["splits"].items():
        rows.append((split, *(str(row[key]) for key in ("images", "photographs", "objects", "empty", "sizes"))))
    lines = [
        f"{dataset.name} in {dataset.root}: {dataset.format} ({'; '.join(dataset.notes)})",
        f"licence: {dataset.licence or 'not stated'}; sha256 {described['sha256'][:16]}",
        output.table(rows),
        "classes: " + ", ".join(f"{name} ({count})" for name, count in described["objects"].items()),
    ]
    if described["foreground"] is not None:
        lines.append(f"foreground: {described['foreground']:.2%} of the pixels of {described['sampled']} images")
    if dataset.problems:
        lines.append(
            f"{len(dataset.problems)} things left out; the first: " + "; ".join(str(p) for p in dataset.problems[:3])
        )
    output.emit(described, "\n".join(lines))


def check(
    data: str = typer.Argument(..., help="Dataset name or folder."),
    fix: Path | None = typer.Option(None, help="Write a cleaned copy to this new folder; the source is not touched."),
    out: Path | None = typer.Option(None, help="Folder for the page and the JSON.  [default: a new runs/check-NAME]"),
    quick: bool = typer.Option(False, help="Skip the search for photographs of the same object."),
) -> None:
    """The doctor: what would make training wrong or its scores too good. Exit code 1 when something would."""
    from segdet import files
    from segdet.console import progress
    from segdet.data import catalog, doctor
    from segdet.data.doctor import fix as fixing
    from segdet.reporting import checkup as page

    dataset = catalog.load(data)
    with progress("looking", sum(len(records) for records in dataset.splits.values())) as advance:
        examination = doctor.examine(dataset, not quick, advance)
    found = examination.checkup
    cleaned = fixing.write(dataset, examination, fix) if fix is not None else None
    folder = files.new_folder("runs", f"check-{dataset.name}") if out is None else out
    page.write(folder / "check.html", dataset, found)
    result = {**found.to_dict(), "page": str(folder / "check.html")}
    if cleaned is not None:
        result["fixed"] = {
            "folder": str(cleaned.folder), "format": cleaned.layout, "images": cleaned.images, "dropped": list(cleaned.dropped),
        }  # fmt: skip
    files.write_json(folder / "check.json", result)
    lines = _told(found)
    if cleaned is not None:
        lines.append(
            f"{cleaned.folder}: a cleaned copy in {cleaned.layout} layout, {cleaned.images} images; "
            f"{len(cleaned.dropped)} things left out, listed in dropped.txt"
        )
    lines.append(f"with pictures: {folder / 'check.html'}")
    output.emit(result, "\n".join(lines))
    if found.errors:
        raise typer.Exit(1)


def download(
    name: str = typer.Argument(..., help="Dataset name: crack or coco."),
    to: Path | None = typer.Option(
        None, help="Folder to make.  [default: NAME in $SEGDET_DATASETS, else in ./datasets]"
    ),
) -> None:
    """Fetch a named dataset. A broken transfer goes on where it stopped. ROBOFLOW_API_KEY, when set, is used for Roboflow."""
    from segdet.console import progress
    from segdet.data import download as downloading

    with progress("downloading", 100) as advance:
        shown = 0

        def tell(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            percent = 100 * done // total if total else 0
            advance(percent - shown, f"{what}, {done >> 20} MB")
            shown = percent

        got = downloading.download(name, to, tell)
    result = {
        "name": got.name, "folder": str(got.folder), "sources": list(got.sources), "files": got.files, "licence": got.licence,
    }  # fmt: skip
    output.emit(result, f"{got.folder}: {got.files} files from {', '.join(got.sources)}; licence: {got.licence}")


def _told(found: Checkup) -> list[str]:
    """Findings for the terminal: one line each with up to three examples, and what to do."""
    counts = {kind: sum(one.severity == kind for one in found.findings) for kind in ("error", "warning", "note")}
    lines = [", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())]
    for finding in found.findings:
        lines.append(f"{finding.severity:<8}{finding.title}{_examples(finding)}")
        lines.append(f"        {finding.advice}")
    return lines


def _examples(finding: Finding) -> str:
    shown = [" = ".join(path.name for path in case.images) for case in finding.cases[:3] if case.images]
    return f": {'; '.join(shown)}" + ("; ..." if len(finding.cases) > 3 else "") if shown else ""
