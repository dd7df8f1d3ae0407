"""`segdet data list` and `segdet data info`"""

from __future__ import annotations

import typer

from segdet.cli import output


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
