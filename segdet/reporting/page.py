"""What the HTML pages share: one self-contained file each, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segdet.data.records import Dataset, by_photograph
from segdet.files import write_text
from segdet.metadata import Metadata

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--paper:#fff;--card:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--card:#151b23}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;
max-width:72rem;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
p.sub,td.why,figcaption{color:var(--soft)}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .8rem .3rem 0;text-align:left;
border-bottom:1px solid var(--line);vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.big{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}.big div{background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.8rem 1.2rem}
.big b{font-size:1.7rem;display:block}img{max-width:100%;height:auto;background:#fff}
code{background:var(--card);padding:.1rem .3rem;overflow-wrap:anywhere}
figure{margin:1rem 0}th{white-space:nowrap}.bar{display:inline-block;height:.8em;border-radius:2px;min-width:1px}
.k{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.8rem}
.grid.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,32rem),1fr))}
.grid figure{margin:0}.grid figcaption{font-size:.8rem;overflow-wrap:anywhere;line-height:1.3}
.grid img{display:block;margin-bottom:.2rem}.none{background:var(--card);border:1px dashed var(--line);padding:2rem .5rem;
text-align:center;color:var(--soft);font-size:.8rem}
.tag{font-size:.75rem;font-weight:600;padding:.1rem .5rem;border-radius:1rem;color:#fff;white-space:nowrap}
.error{background:#c8232c}.warning{background:#9a6700}.note{background:#3a6ea5}a{color:inherit}
"""


def write(
    run: Path,
    dataset: Dataset,
    history: Sequence[Mapping[str, float | None]],
    metadata: Metadata,
    curves: bytes,
    body: Sequence[str],
) -> None:
    """Write `report.html` into the run folder: heading, `body`, training curves (PNG) and provenance."""
    minutes = (history[-1]["time"] or 0.0) / 60
    parts = [
        f"<h1>{escape(run.name)}</h1>",
        f"<p class=sub>{escape(metadata.arch)} on {escape(metadata.backbone)}, trained on {escape(dataset.name)}: "
        f"{_counts(dataset)}</p>",
        *body,
        "<h2>Training</h2>",
        figure(curves, "png", f"{len(history)} epochs, {minutes:.1f} minutes"),
        "<h2>How to get this again</h2>",
        _provenance(run, metadata),
    ]
    write_text(run / "report.html", document(run.name, parts))


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; nothing in it is fetched from anywhere."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def cards(metrics: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The first scores a reader sees, with their intervals: name -> title of each card."""
    made = []
    for name, title in titles.items():
        interval = metrics["ci95"].get(name)
        small = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "&nbsp;"
        value = "none" if metrics[name] is None else f"{metrics[name]:.3f}"
        made.append(f"<div>{escape(title)}<b>{value}</b>{small}</div>")
    return f"<div class=big>{''.join(made)}</div>"


def score_rows(metrics: Mapping[str, Any], explained: Mapping[str, tuple[str, str]]) -> list[str]:
    """A table row for each score that was measured: title, value, interval and meaning."""
    rows = []
    for name, (title, why) in explained.items():
        if name in metrics:
            interval = metrics["ci95"].get(name)
            span = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            value = "none" if metrics[name] is None else f"{metrics[name]:.4f}"
            rows.append(f"<tr><th>{title}<td class=n>{value}<td class=n>{span}<td class=why>{escape(why)}")
    return rows


def figure(content: bytes, kind: str, caption: str) -> str:
    """An image inside the page; `kind` is png or jpeg."""
    data = base64.b64encode(content).decode()
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/{kind};base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def escape(text: object) -> str:
    """Text made safe for HTML."""
    return html.escape(str(text), quote=True)


def _provenance(run: Path, metadata: Metadata) -> str:
    rows = {
        "Command": f"segdet train --config {run / 'config.yaml'}",
        "Dataset": f"{metadata.data.name}, licence: {metadata.data.licence or 'not stated'}, sha256 {metadata.data.sha256}",
        "segdet": metadata.version,
        "Python": f"{sys.version.split()[0]} on {platform.platform()}",
    }
    return f"<table>{''.join(f'<tr><th>{k}<td><code>{escape(v)}</code>' for k, v in rows.items())}</table>"


def _counts(dataset: Dataset) -> str:
    train, val = dataset.splits["train"], dataset.splits["val"]
    return f"{len(train)} training images of {len(by_photograph(train))} photographs, {len(val)} validation images"
