"""Identifiers, messages and docstrings use the field's words; docs/style.md has the glossary."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Words of a private idiom, and what to write instead (docs/style.md).
BANNED = {
    "told": "reported, listed, passed", "anew": "again", "sure": "confident", "surer": "higher-scoring", "surest": "best",
    "shall": "must", "nobody": "no one, or name the thing", "resting": "frozen", "looked_again": "multiscale", "spoilt": "degraded",
    "spoil": "degrade", "wherefrom": "source", "whereby": "by which",
}  # fmt: skip
PHRASES = ("is no number", "no number", "stands in for", "what lies", "of each a", "goes on with")


def test_the_package_uses_the_words_of_the_field() -> None:
    word = re.compile(rf"(?<![A-Za-z])({'|'.join(BANNED)})(?![A-Za-z])")
    phrase = re.compile("|".join(PHRASES))
    hits = []
    for path in sorted((ROOT / "segdet").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for found in (*word.findall(line.replace("_", " ")), *phrase.findall(line)):
                hits.append(f"{path.relative_to(ROOT)}:{number}: {found!r} (write {BANNED.get(found, 'it plainly')})")
    assert not hits, "\n".join(hits)
