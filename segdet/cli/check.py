"""`segdet data check`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segdet.cli import output

if TYPE_CHECKING:
    from segdet.data.doctor.findings import Checkup

_EXAMPLES = 3


def check(
    data: str = typer.Argument(..., help="Dataset name, folder or COCO file."),
    fix: Path | None = typer.Option(None, help="Write a cleaned copy to this new folder; the source is not touched."),
    out: Path | None = typer.Option(None, help="Folder for the page and the JSON.  \\[default: a new runs/check-NAME]"),
    quick: bool = typer.Option(False, help="Skip the search for photographs of the same object."),
) -> None:
    """The doctor: what would make training wrong or its scores too good. Exit code 1 when something would."""
    # The doctor keeps the cores busy with threads of its own; those of matrix products would wait for one another beside them
    # (and took 60 % more processor time). Read when numpy is first imported, which is below.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from segdet import files, memory
    from segdet.console import progress
    from segdet.data import doctor
    from segdet.data.catalog import cards
    from segdet.data.doctor import fix as fixing
    from segdet.data.doctor import leaks
    from segdet.reporting import checkup as page

    memory.keep_freed_memory()
    dataset = cards.load(data, refuse=False)
    with progress("looking", sum(len(records) for records in dataset.splits.values())) as advance:
        examination = doctor.examine(dataset, not quick, advance)
    found = examination.checkup
    if not quick:
        leaks.remember(dataset, examination.pairs)
    cleaned = fixing.write(dataset, examination, fix) if fix is not None else None
    folder = files.new_folder("runs", f"check-{dataset.name}") if out is None else out
    page.write(folder / "check.html", dataset, found)
    result = {**found.to_dict(), "page": str(folder / "check.html")}
    if cleaned is not None:
        result["fixed"] = {
            "folder": str(cleaned.folder), "format": cleaned.layout, "images": cleaned.images, "dropped": list(cleaned.dropped),
        }  # fmt: skip
    files.write_json(folder / "check.json", result)
    lines = _text(found)
    if dataset.account is not None:
        lines += ["what was not read:" if dataset.account.left_out else "every file was read:", *dataset.account.lines]
    if cleaned is not None:
        lines.append(
            f"{cleaned.folder}: a cleaned copy in {cleaned.layout} layout, {cleaned.images} images; "
            f"{len(cleaned.dropped)} things left out, listed in dropped.txt"
        )
    lines.append(f"with pictures: {folder / 'check.html'}")
    output.emit(result, "\n".join(lines))
    if found.errors:
        raise typer.Exit(1)


def _text(found: Checkup) -> list[str]:
    """Findings for the terminal: each with up to three examples, and what to do."""
    lines = [found.verdict]
    for finding in found.findings:
        lines.append(f"{finding.severity:<8}{finding.title}")
        cases = [case for case in finding.cases if case.note not in finding.title]
        lines += [f"        - {case.text()}" for case in cases[:_EXAMPLES]]
        if len(cases) > _EXAMPLES:
            lines.append(f"        - and {len(cases) - _EXAMPLES} more")
        lines.append(f"        {finding.advice}")
    return lines
