"""`segdet compare`"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from segdet.cli import output


def compare(
    sources: list[Path] = typer.Argument(..., metavar="RUN RUN...", help="Run folders, weights or exported models."),
    data: str | None = typer.Option(None, help="Measure all on this dataset.  \\[default: as they were validated]"),
    split: str = typer.Option("val", help="val or test."),
    folds: bool = typer.Option(False, "--folds", help="Sum up runs trained with --fold K/N: mean and spread."),
    limit: int | None = typer.Option(None, min=1, help="At most this many images."),
    pictures: int = typer.Option(6, min=0, help="Images on the page in which the two best differ most."),
    out: Path | None = typer.Option(
        None, help="Folder for the page and the JSON.  \\[default: a new runs/compare-NAME]"
    ),
    device: str = typer.Option("cpu", help="auto, cpu, cuda or cuda:N."),
    workers: int | None = typer.Option(None, min=0, help="Loader processes.  \\[default: from the machine]"),
) -> None:
    """Say which model is better, by how much, and whether these images can tell."""
    from segdet import files
    from segdet.reporting import compared as page
    from segdet.validation import compare as comparison

    how = comparison.How(data, split, limit, device, workers)
    found = comparison.folds(sources, how) if folds else comparison.compare(sources, how)
    gallery = [] if folds else _gallery(found, how, pictures)
    name = Path(str(found.result["data"])).name
    folder = files.new_folder("runs", f"compare-{name}") if out is None else out
    files.write_json(folder / "compare.json", found.result)
    page.write(folder / "compare.html", found.result, gallery)
    table = _folds(found.result) if folds else _table(found.result)
    output.emit({**found.result, "page": str(folder / "compare.html")}, f"{table}\npage: {folder / 'compare.html'}")


def _gallery(found: Any, how: Any, count: int) -> list[tuple[str, bytes]]:
    """Pictures of the images in which the two best differ most: caption and JPEG."""
    from segdet.console import say
    from segdet.errors import SegdetError
    from segdet.reporting import compared as page
    from segdet.validation import compare as comparison
    from segdet.validation.checkpoint import dataset_for

    first, second = found.entrants[:2]
    chosen = comparison.telling(first.tally, second.tally, count)
    if not chosen:
        return []
    try:
        dataset = found.dataset or dataset_for(first.trained, how.data, how.limit)
        places = _numbered([record.image.name for record in dataset.splits[how.split]])
        by_name = {name: index for index, name in enumerate(places)}
        counted = _numbered(first.tally.images)
        indices = [by_name[counted[k]] for k in chosen]
        answers = [comparison.seen(entrant, dataset, how.split, indices, how) for entrant in (first, second)]
    except (SegdetError, KeyError) as error:
        say(f"without pictures: {error}")
        return []
    records = [dataset.splits[how.split][index] for index in indices]
    return page.gallery(records, chosen, (first, second), [answer.evaluation for answer in answers])


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Each name with how often it came before: files of several folders may share one, in the same order everywhere."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        out.append((name, seen[name]))
        seen[name] += 1
    return out


_COLUMNS = {
    "segmentation": ("iou", "f1", "precision", "recall", "f1_2px", "cldice", "boundary_iou"),
    "detection": ("ap", "ap50", "f1", "precision", "recall"),
}


def _table(result: dict[str, Any]) -> str:
    main, columns = result["main"], _COLUMNS[result["task"]]
    rows: list[tuple[str, ...]] = [("run", main, "95 % interval", *columns[1:])]
    for row in result["runs"]:
        interval = row["ci95"][main]
        span = f"{interval[0]:.4f} .. {interval[1]:.4f}" if interval else ""
        rows.append((row["name"], _number(row[main]), span, *(_number(row.get(name)) for name in columns[1:])))
    heading = f"{result['data']} {result['split']}: {result['images']} images of {result['photographs']} photographs"
    return "\n".join([heading, output.table(rows), *(pair["sentence"] for pair in result["differences"])])


def _folds(result: dict[str, Any]) -> str:
    lines = []
    for one in result["experiments"]:
        lines.append(f"{one['name']} on {result['data']}: {len(one['folds'])} folds")
        rows: list[tuple[str, ...]] = [("score", "mean", "sd", "lowest", "highest", "all photographs", "95 % interval")]
        for name in _COLUMNS[result["task"]]:
            spread = one["spread"].get(name)
            if spread is None:
                continue
            interval = one.get("ci95", {}).get(name)
            span = f"{interval[0]:.4f} .. {interval[1]:.4f}" if interval else ""
            cells = [_number(spread[key]) for key in ("mean", "sd", "min", "max")]
            rows.append((name, *cells, _number(one.get("pooled", {}).get(name)), span))
        lines.append(output.table(rows))
        if one["missing"]:
            lines.append(f"missing: {', '.join(one['missing'])}")
    return "\n".join([*lines, *(pair["sentence"] for pair in result["differences"])])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
