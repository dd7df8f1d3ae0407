"""What the doctor says: one finding for each kind of thing that is wrong, with every place where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segdet.data.records import Box

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Case:
    """One place where a finding holds.

    images: the picture it is about, or the two of a pair; empty when it is about the dataset or a label file.
    note: what is to be seen there.
    transform: float64 `[2, 3]`, takes pixels (x, y) of the first picture of a pair to the second, where it is known.
    marks: where in the picture to look.
    """

    images: tuple[Path, ...]
    note: str
    transform: np.ndarray | None = field(default=None, compare=False)
    marks: tuple[Box, ...] = ()

    def text(self, name: Callable[[Path], str] = lambda path: path.name) -> str:
        """One line: the pictures, as `name` calls them, and what is to be seen; a note that names its label file stands alone."""
        if not self.images or self.note.startswith(self.images[0].stem):
            return self.note
        return f"{' = '.join(map(name, self.images))}: {self.note}"


@dataclass(frozen=True)
class Finding:
    """A kind of trouble.

    code: stable name, for scripts. severity: "error" when training or its scores would be wrong, "warning" when they
    may be, "note" for what is good to know. title: one line. advice: what to do. count: how often, in the unit of
    `title`. cases: every place.
    """

    code: str
    severity: Severity
    title: str
    advice: str
    count: int
    cases: tuple[Case, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "advice": self.advice,
            "count": self.count,
            "cases": [{"images": [str(path) for path in case.images], "note": case.note} for case in self.cases],
        }


@dataclass(frozen=True)
class Checkup:
    """All findings, most serious first, and the dataset's figures."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, Any]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def verdict(self) -> str:
        """How many of each severity, in words."""
        counts = {kind: sum(one.severity == kind for one in self.findings) for kind in ORDER}
        return ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in counts.items())

    def to_dict(self) -> dict[str, Any]:
        return {**self.figures, "findings": [finding.to_dict() for finding in self.findings]}


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Most serious first; within a severity in the order they were found."""
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))
