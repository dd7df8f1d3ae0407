"""What an export says about itself: Roboflow's README.roboflow.txt and README.dataset.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from segdet.data.doctor.findings import Case, Finding
from segdet.text import decoded

_FILES = ("README.roboflow.txt", "README.dataset.txt")
_STEP = re.compile(r"^\*\s+(.+?)\s*$", re.MULTILINE)


def check(root: Path) -> Iterator[Finding]:
    """Steps that were applied to the pictures before they were exported, as the export declares them."""
    texts = {name: decoded((root / name).read_bytes(), "replace") for name in _FILES if (root / name).is_file()}
    steps = [step for text in texts.values() for step in _STEP.findall(text)]
    stretched = [step for step in steps if re.search(r"resize.*stretch", step, re.IGNORECASE)]
    if stretched:
        yield Finding(
            "stretched",
            "warning",
            f"the export declares: {stretched[0]}",
            "Widths and lengths differ by direction, and photographs at prediction are not stretched. Export with "
            "`Fit` or without resizing if measurements matter.",
            1,
            tuple(Case((), step) for step in stretched),
        )
    text = "\n".join(texts.values())
    versions = re.search(r"create\s+(\d+)\s+versions?\s+of\s+each\s+source\s+image", text, re.IGNORECASE)
    augmented = [step for step in steps if step not in stretched and not re.match(r"auto-orient", step, re.IGNORECASE)]
    if versions or "augmentation was applied" in text.replace("No image augmentation", ""):
        times = f"{versions[1]} versions of each photograph" if versions else "augmented pictures"
        yield Finding(
            "augmented-export",
            "note",
            f"the export declares {times}",
            "segdet augments while it trains; an export without augmentation is smaller and keeps the photographs whole.",
            int(versions[1]) if versions else 1,
            tuple(Case((), step) for step in augmented),
        )
