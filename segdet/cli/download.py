"""`segdet data download`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output


def download(
    name: str = typer.Argument(..., help="Dataset name: crack or coco."),
    to: Path | None = typer.Option(
        None, help="Folder to make.  \\[default: NAME in $SEGDET_DATASETS, else in ./datasets]"
    ),
) -> None:
    """Fetch a named dataset. A broken transfer goes on where it stopped. ROBOFLOW_API_KEY, when set, is used for Roboflow."""
    from segdet.console import progress
    from segdet.data.catalog import download as downloading

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
