"""What evaluation asks of a batch, so that it needs to know neither loaders nor torch."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from segdet.data.records import Problem


class Indexed(Protocol):
    """The records that a batch's images belong to, and what could not be read."""

    @property
    def indices(self) -> list[int]:
        """Index of each image's record."""

    @property
    def problems(self) -> list[Problem]:
        """Images that had to be left out."""


class Labelled(Indexed, Protocol):
    """A batch with the masks to be found."""

    @property
    def targets(self) -> Any:
        """uint8 tensor `[N, H, W]`."""


AnyBatch = TypeVar("AnyBatch", bound=Indexed)
AnyLabelled = TypeVar("AnyLabelled", bound=Labelled)
