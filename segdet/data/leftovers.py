"""Files that were left out, counted by reason, with a few examples of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from segdet.data.folders import DeadEnd
from segdet.data.records import Reason, Unread

OTHER_IMAGES = frozenset({
    ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".jxr", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".raf",
    ".orf", ".rw2", ".raw", ".psd", ".svg", ".exr", ".hdr", ".tga", ".pbm", ".pgm", ".ppm", ".pnm", ".pcx", ".ico",
    ".dcm", ".ecw", ".sid", ".emf", ".wmf", ".eps",
})  # fmt: skip
ARCHIVES = frozenset([".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"])

_EXAMPLES = 10  # of each reason
_ENDINGS = 12  # unknown endings kept apart


@dataclass
class _Group:
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Leftovers:
    """Counts files by reason."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Reason, str], _Group] = defaultdict(_Group)
        self._endings: set[str] = set()

    def count(
        self, reason: Reason, what: str, files: Sequence[Path], short: Callable[[Path], object] = lambda file: file
    ) -> None:
        """Count files.

        Args:
            short: what to show of a file that becomes an example.
        """
        if not files:
            return
        group = self._groups[reason, what]
        group.count += len(files)
        group.examples += (str(short(file)) for file in files[: max(0, _EXAMPLES - len(group.examples))])

    def count_ending(
        self, ending: str, files: Sequence[Path], short: Callable[[Path], object] = lambda file: file
    ) -> None:
        """Count files of which only their ending says what they are."""
        if ending in OTHER_IMAGES:
            self.count("image-format", "images in formats that segdet does not decode", files, short)
        elif ending in ARCHIVES:
            self.count("archive", "archives", files, short)
        else:
            if ending not in self._endings and len(self._endings) >= _ENDINGS:
                ending = "other endings"
            self._endings.add(ending)
            self.count("unknown", f"other files ({ending or 'without ending'})", files, short)

    def count_dead_end(self, end: DeadEnd, short: Callable[[Path], object] = lambda file: file) -> None:
        """Count an entry that a walk did not follow."""
        self.count("dead-end", f"entries that were not followed: {end.why}", [end.path], short)

    def unread(self, spelled: Callable[[Reason, str], str] = lambda _, what: what) -> tuple[Unread, ...]:
        """Everything counted so far, in the order of the reasons.

        Args:
            spelled: what to say instead of the words that a group was counted under.
        """
        groups = (
            Unread(reason, spelled(reason, what), group.count, tuple(group.examples))
            for (reason, what), group in self._groups.items()
        )
        order = {reason: place for place, reason in enumerate(get_args(Reason))}
        return tuple(sorted(groups, key=lambda one: (order[one.reason], -one.count, one.what)))
