"""What the HTML pages share: one self-contained file each, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from segdet.data.doctor.leaks import Leak
from segdet.data.records import Dataset, by_photograph
from segdet.files import write_text
from segdet.metadata import Metadata
from segdet.reporting import plots

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--paper:#fff;--card:#f6f8fa;--warn:#9a6700;
--c0:#0072b2;--c1:#c25000;--c2:#00875f;--c3:#b0558a;--c4:#8a6500;--c5:#2f8fc4}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--card:#151b23;--warn:#e3b341;
--c0:#58a6e6;--c1:#ff9447;--c2:#3ccf9d;--c3:#e6a1cb;--c4:#e0b73c;--c5:#8fd0f5}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;
max-width:72rem;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
p.sub,td.why,figcaption{color:var(--soft)}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .8rem .3rem 0;text-align:left;
border-bottom:1px solid var(--line);vertical-align:top}td.n{font-variant-numeric:tabular-nums;white-space:nowrap}

.wide{overflow-x:auto}.wide table{font-size:.92rem}.wide tr:first-child th{white-space:normal;vertical-align:bottom}
.big{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}.big div{background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.8rem 1.2rem}
.big b{font-size:1.7rem;display:block}.big p{font-size:.8rem;line-height:1.3;margin:.3rem 0 0;max-width:13rem}
img{max-width:100%;height:auto}svg.plot{max-width:100%;height:auto}
code{background:var(--card);padding:.1rem .3rem;overflow-wrap:anywhere}
figure{margin:1rem 0}th{white-space:nowrap}.bar{display:inline-block;height:.8em;border-radius:2px;min-width:1px}
.k{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0 2rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.8rem}
.grid.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,32rem),1fr))}
.grid.crops{grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.grid figure{margin:0}.grid figcaption{font-size:.8rem;overflow-wrap:anywhere;line-height:1.3}
.grid img{display:block;margin-bottom:.2rem}.none{background:var(--card);border:1px dashed var(--line);padding:2rem .5rem;
text-align:center;color:var(--soft);font-size:.8rem}
.say{background:var(--card);border-left:4px solid var(--c0);padding:.6rem 1rem;border-radius:4px}
.say.bad{border-color:var(--warn)}summary{cursor:pointer;padding:.3rem 0}summary b{margin-right:.4em}
nav{font-size:.9rem;margin:.6rem 0}nav a{margin-right:1rem}
.tag{font-size:.75rem;font-weight:600;padding:.1rem .5rem;border-radius:1rem;color:#fff;white-space:nowrap}
.error{background:#c8232c}.warning{background:#9a6700}.note{background:#3a6ea5}a{color:inherit}
"""

# Nothing may be fetched, and nothing runs: pictures lie in the page itself.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Subject:
    """What a report is about, beside its scores.

    title: its heading. run: the run folder (None for a file alone). split: the images of `dataset` it was measured on.
    history: rows of `results.csv`. origin: the content of `provenance.json`, empty where it was not recorded.
    leaks: images of the split that training has seen, and whether photographs of the same object were searched for.
    """

    title: str
    run: Path | None
    dataset: Dataset
    split: str
    metadata: Metadata
    history: plots.History
    origin: Mapping[str, Any]
    leaks: tuple[list[Leak], bool]


def write(
    path: Path, subject: Subject, metrics: Mapping[str, Any], sections: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Write a report: heading, warnings, `sections` (heading and content), training, speed and provenance.

    The first section has no heading of its own.
    """
    rest: list[tuple[str, Sequence[str]]] = [
        ("Speed", [_speed(subject, metrics)]),
        ("How to get this again", [_provenance(subject)]),
    ]
    if subject.history:
        minutes = (subject.history[-1]["time"] or 0.0) / 60
        note = f"{len(subject.history)} epochs, {minutes:.1f} minutes; the weights of the dotted epoch were kept"
        rest.insert(0, ("Training", [drawing(plots.results(subject.history), note)]))
    first, others = sections[0][1], [*sections[1:], *rest]
    body = [
        f"<h1>{escape(subject.title)}</h1>",
        f"<p class=sub>{escape(subject.metadata.arch)} on {escape(subject.metadata.backbone)}, trained on "
        f"{escape(subject.metadata.data.name)}; measured on {escape(subject.dataset.name)}, {_counts(subject)}</p>",
        *first,
        *_warnings(subject, metrics),
        "<nav>" + "".join(f"<a href='#s{k}'>{escape(name)}</a>" for k, (name, _) in enumerate(others)) + "</nav>",
    ]
    for number, (name, content) in enumerate(others):
        body += [f"<h2 id=s{number}>{escape(name)}</h2>", *content]
    write_text(path, document(subject.title, body))


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; nothing in it is fetched from anywhere, and the page itself forbids it."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}"><link rel=icon href=data:,>'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def cards(metrics: Mapping[str, Any], titles: Mapping[str, str], hints: Mapping[str, str] | None = None) -> str:
    """The first scores a reader sees, with their intervals: name -> title of each card, and what it tells in a few words."""
    made = []
    for name, title in titles.items():
        interval = metrics["ci95"].get(name)
        small = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "&nbsp;"
        value = "none" if metrics[name] is None else f"{metrics[name]:.3f}"
        hint = f"<p class=sub>{escape(hints[name])}</p>" if hints and name in hints else ""
        made.append(f"<div>{escape(title)}<b>{value}</b>{small}{hint}</div>")
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


def table(heading: Sequence[str], rows: Sequence[str]) -> str:
    """A table that scrolls on its own when it is wider than the page; `rows` are `<tr>` elements."""
    return (
        f"<div class=wide><table><tr>{''.join(f'<th>{escape(name)}' for name in heading)}{''.join(rows)}</table></div>"
    )


def figure(content: bytes, kind: str, caption: str) -> str:
    """An image inside the page; `kind` is png or jpeg."""
    data = base64.b64encode(content).decode()
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/{kind};base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def drawing(made: Figure, caption: str) -> str:
    """Curves inside the page, in its own colours."""
    return f"<figure>{plots.svg(made)}<figcaption>{escape(caption)}</figcaption></figure>"


def unjudged(metrics: Mapping[str, Any]) -> str:
    """What a report says first where no image has an object."""
    threshold = "" if metrics["threshold"] is None else f" Threshold {metrics['threshold']:.3f} was not chosen by them."
    return (
        f"<p class='say bad'>No object is labelled in these {metrics['images']} images, so no score can be measured: what is marked "
        f"here is a false alarm, and nothing is known about what the model finds.{threshold}</p>"
    )


def escape(text: object) -> str:
    """Text made safe for HTML."""
    return html.escape(str(text), quote=True)


def _warnings(subject: Subject, metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    leaks, searched = subject.leaks
    scored = by_photograph(subject.dataset.splits[subject.split])
    notes = []
    if leaks:
        kinds = ", ".join(sorted({leak.why for leak in leaks}))
        rows = "".join(
            f"<li>{escape(leak.scored.name)}: {escape(leak.why)} ({escape(leak.seen.name)})" for leak in leaks[:200]
        )
        notes.append(
            f"<b>{len(leaks)} of {metrics['images']} images measured here were seen in training ({kinds}).</b> The scores are too good "
            f"by what that is worth; <code>segdet data check {escape(subject.dataset.name)} --fix FOLDER</code> writes a set "
            f"without them.<details><summary>which</summary><ul>{rows}</ul></details>"
        )
    if not searched:
        notes.append(
            "Copies and identical files were looked for; photographs of the same object were not: "
            f"<code>segdet data check {escape(subject.dataset.name)}</code> does, and later reports of this dataset tell of them."
        )
    if metrics["skipped"]:
        notes.append(f"{metrics['skipped']} images could not be read and are not in any score.")
    if len(scored) < 50:
        notes.append(
            f"Only {len(scored)} photographs were measured: the intervals are wide, and are to be taken seriously."
        )
    if subject.split == "val" and metrics["labelled_images"]:
        notes.append(
            f"{'Best epoch was' if metrics['threshold'] is None else 'Threshold and best epoch were'} chosen on these same images, so a "
            "new site will score a little lower; a "
            "<code>test</code> split, measured once, shows by how much."
        )
    return [f"<p class='say{' bad' if leaks and k == 0 else ''}'>{text}</p>" for k, text in enumerate(notes)]


def _speed(subject: Subject, metrics: Mapping[str, Any]) -> str:
    speed = metrics.get("speed")
    rows = []
    if speed:
        rows.append(
            f"<tr><th>Prediction<td>{1000 * speed['seconds_per_image']:.0f} ms per image while these scores were taken, in batches, "
            f"network only: {escape(speed['runtime'])} on {escape(speed['device'])}, {speed['threads']} threads, beside whatever "
            "else the machine did."
        )
    rates = [rate for row in subject.history if (rate := row.get("images_per_second"))]
    if rates:
        rows.append(
            f"<tr><th>Training<td>{sorted(rates)[len(rates) // 2]:.1f} images a second (half of the epochs were slower)"
        )
    return f"<table>{''.join(rows)}</table>" if rows else "<p class=sub>Not measured.</p>"


def _provenance(subject: Subject) -> str:
    origin, metadata = subject.origin, subject.metadata
    rows: dict[str, str] = {}
    if origin.get("command"):
        rows["Trained with"] = f"{origin['command']}   (in {origin.get('folder', '?')})"
    if subject.run is not None:
        rows["The same again"] = f"segdet train --config {subject.run / 'config.yaml'}"
    rows["Dataset"] = (
        f"{metadata.data.name}, licence: {metadata.data.licence or 'not stated'}, fingerprint {metadata.data.sha256} (names, "
        "sizes and labels of what it was trained and validated on)"
    )
    if origin.get("machine"):
        rows["Machine"] = f"{origin['machine']}; {origin.get('device', '')}"
    versions = origin.get("versions") or {"segdet": metadata.version}
    rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    made = "".join(f"<tr><th>{name}<td><code>{escape(value)}</code>" for name, value in rows.items())
    return f"<div class=wide><table>{made}</table></div>"


def _counts(subject: Subject) -> str:
    train, scored = subject.dataset.splits.get("train", ()), subject.dataset.splits[subject.split]
    seen = (
        f"{len(train)} training images of {len(by_photograph(train))} photographs, " if subject.run is not None else ""
    )
    return f"{seen}{len(scored)} images in {subject.split} of {len(by_photograph(scored))} photographs"
