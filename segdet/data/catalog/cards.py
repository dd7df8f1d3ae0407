"""Datasets by name: where their folders are looked for, and what their cards say.

A card is `datasets/<name>.yaml`; the data lies in `$SEGDET_DATASETS/<name>` (default `./datasets/<name>`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from segdet.data import formats
from segdet.data.records import Dataset
from segdet.errors import InputError, InvalidOption, nearest, setting
from segdet.places import expanded
from segdet.text import decoded

_CARD_FOLDERS = (Path(__file__).parents[3] / "datasets", Path(__file__).parents[2] / "datasets")  # checkout, wheel

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Card:
    """What is known about a named dataset before it is on disk."""

    name: str
    title: str
    task: str
    licence: str
    notes: str = ""
    source: str | None = None
    generated: bool = False
    drawing: dict[str, Any] | None = None  # arguments of `synthetic.write`
    classes: tuple[str, ...] = ()
    images: dict[str, int] | None = None
    download: tuple[dict[str, Any], ...] = ()
    roboflow: str | None = None

    @property
    def pictures(self) -> int:
        """How many are drawn of a generated dataset."""
        usual = {"train": 160, "val": 40, "test": 20}  # of `synthetic.write`
        return sum({**usual, **(self.drawing or {})}[split] for split in usual)


def cards(asked: str = "") -> dict[str, Card]:
    """All cards, by name: the ones that come with segdet, and those in `./datasets`. Broken ones are left out.

    Raises:
        InputError: the card of the name `asked` is broken.
    """
    found: dict[str, Card] = {}
    for folder in (*_CARD_FOLDERS, Path("datasets")):
        for path in sorted(folder.glob("*.yaml")):
            try:
                card = _read_card(path)
            except InputError:
                if path.stem == asked:
                    raise
                continue
            if card is not None:
                found[path.stem] = card
    return found


def homes() -> list[Path]:
    """Folders that hold datasets by name, in order of preference."""
    chosen = os.environ.get("SEGDET_DATASETS")
    return [expanded(chosen), Path("datasets")] if chosen else [Path("datasets")]


def folder_of(name: str) -> Path | None:
    """The folder of a named dataset if it is on disk."""
    for home in homes():
        folder = home / name
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    return None


def is_there(name_or_path: str) -> bool:
    """Whether `load` has something to read: a folder or file, or a dataset that is drawn on demand."""
    card = cards().get(name_or_path)
    if _is_name(name_or_path) and (folder_of(name_or_path) is not None or card is not None):
        return folder_of(name_or_path) is not None or (card is not None and card.generated)
    return expanded(name_or_path).exists()


def load(name_or_path: str, progress: Progress | None = None, refuse: bool = True) -> Dataset:
    """Read a dataset by name or path; the drawn ones are drawn first when they are not there yet.

    Args:
        progress: called with (done, total) while pictures are drawn.
        refuse: as `formats.read`.

    Raises:
        InputError: unknown name, nothing on disk, or data that cannot be read.
    """
    card = cards(name_or_path).get(name_or_path)
    folder = folder_of(name_or_path) if _is_name(name_or_path) else None
    if folder is None and card is None:
        path = expanded(name_or_path)
        if not path.exists():
            _refuse_broken_card(name_or_path)
            reason = f"no such folder and no dataset of that name{_ways_out(name_or_path)}"
            raise InvalidOption("data", name_or_path, reason)
        return formats.read(path, refuse=refuse)
    if folder is None and card is not None:
        if not card.generated:
            raise _missing(card)
        folder = _draw(card, progress)
    assert folder is not None
    dataset = formats.read(folder, name_or_path, refuse)
    if card is not None and (dataset.licence is None or card.task == "detection"):
        dataset = replace(dataset, licence=card.licence)
    return dataset


def _refuse_broken_card(name: str) -> None:
    """A file of the right name that is no card is what the user meant; any other stray YAML is not our business."""
    file = Path("datasets") / f"{name}.yaml"
    if _is_name(name) and file.is_file():
        raise InputError(f"{file}: not a dataset card: it needs name, title, task and licence; see datasets/crack.yaml")


def _is_name(text: str) -> bool:
    return os.sep not in text and text not in (".", "..")


def _ways_out(name: str) -> str:
    known = cards()
    hint = nearest(name, known) if _is_name(name) else ""
    return f"{hint or '.'} Give the folder's path, or one of: {', '.join(sorted(known))}"


def _missing(card: Card) -> InvalidOption:
    looked = " and ".join(str(home / card.name) for home in homes())
    first = f"`segdet data download {card.name}` gets it; or take it" if card.download or card.roboflow else "get it"
    return InvalidOption(
        "data",
        card.name,
        f"not found at {looked}",
        f"{first} from {card.source} and unpack it there, set SEGDET_DATASETS to the folder that holds {card.name}/, "
        f"or give its path; {setting('data', 'crack-demo')} works at once without any download",
    )


def _draw(card: Card, progress: Progress | None) -> Path:
    from segdet.data.synthetic import cracks

    for home in homes():
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if (
            os.access(home, os.W_OK) and home.stat().st_mode & 0o222
        ):  # root may write anywhere, although the user protected it
            return cracks.write(home / card.name, progress=progress, **(card.drawing or {}))
    hint = "set SEGDET_DATASETS to one that can be written"
    raise InvalidOption("data", card.name, "no folder to draw it in", hint)


def _read_card(path: Path) -> Card | None:
    """The card in a file; None when it is some other YAML (a data.yaml, say).

    Raises:
        InputError: no YAML, or a card with a value that cannot be what it should.
    """
    try:
        content = yaml.safe_load(decoded(path.read_bytes()))
        if not isinstance(content, dict) or not {"name", "title", "task", "licence"} <= content.keys():
            return None
        known = {key: content[key] for key in Card.__dataclass_fields__ if key in content}
        lists = {key: tuple(content.get(key) or ()) for key in ("classes", "download")}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OSError) as error:
        raise InputError(
            f"{path}: not a dataset card ({str(error).splitlines()[0]}); see datasets/crack.yaml"
        ) from error
    return Card(**{**known, **lists})
