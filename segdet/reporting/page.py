"""What every HTML page of segdet shares: one self-contained file, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

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
figure{margin:1rem 0}.k{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 .8em}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.8rem}
.grid.pairs{grid-template-columns:repeat(auto-fill,minmax(min(100%,32rem),1fr))}
.grid figure{margin:0}.grid figcaption{font-size:.8rem;overflow-wrap:anywhere;line-height:1.3}
.grid img{display:block;margin-bottom:.2rem}.none{background:var(--card);border:1px dashed var(--line);padding:2rem .5rem;
text-align:center;color:var(--soft);font-size:.8rem}
.tag{font-size:.75rem;font-weight:600;padding:.1rem .5rem;border-radius:1rem;color:#fff;white-space:nowrap}
.error{background:#c8232c}.warning{background:#9a6700}.note{background:#3a6ea5}a{color:inherit}
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page; nothing in it is fetched from anywhere."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escaped(title)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def figure(content: bytes, kind: str, caption: str) -> str:
    """An image (`kind`: "png" or "jpeg") inside the page, with a caption."""
    data = base64.b64encode(content).decode()
    text = escaped(caption)
    return f"<figure><img alt='{text}' src='data:image/{kind};base64,{data}'><figcaption>{text}</figcaption></figure>"


def escaped(text: object) -> str:
    """Text that is safe inside HTML and its attributes."""
    return html.escape(str(text), quote=True)
