"""`segdet data download`: a named dataset from where its card says, into the folder where it is looked for.

A card may name archives (`download`, each with `url` and perhaps `sha256` and `strip`) and a Roboflow project
(`roboflow: workspace/project/version/format`), which is taken when ROBOFLOW_API_KEY is set.
"""

from __future__ import annotations

import os
import shutil
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from segdet.data import formats
from segdet.data.catalog import cards as catalog
from segdet.data.catalog.cards import Card
from segdet.data.catalog.http import FetchError, fetch, get_json, shown, unpack
from segdet.errors import InputError, nearest, setting
from segdet.files import building
from segdet.places import expanded

ROBOFLOW = "https://api.roboflow.com"
_EXPORT_WAIT = 600.0  # seconds for Roboflow to prepare an export

Progress = Callable[[str, int, int | None], object]


@dataclass(frozen=True)
class Archive:
    """One ZIP file to fetch; `strip` leaves out its top folder."""

    url: str
    sha256: str | None = None
    strip: bool = False


@dataclass(frozen=True)
class Downloaded:
    """Where the dataset is now, where it came from, and under which licence."""

    name: str
    folder: Path
    sources: tuple[str, ...]
    files: int
    licence: str


def download(
    name: str, to: Path | None = None, progress: Progress = lambda what, done, total: None, pause: float = 1.0
) -> Downloaded:
    """Fetch, check and unpack a named dataset; it appears in its folder only once it is complete.

    Args:
        to: the folder to make; default `<name>` in `$SEGDET_DATASETS`, else in `./datasets`.
        progress: called with (file, bytes so far, bytes in all or None).

    Raises:
        InputError: no such card, a card without a source, a folder that is not empty, or no way to get the files; the
            message names the ways out, and what has arrived is kept for the next attempt.
    """
    card = _card(name)
    folder = expanded(to) if to is not None else catalog.homes()[0] / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; remove it, or choose another folder with {setting('to')}")
    parts = folder.parent / f".{folder.name}.download"
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = f"choose another folder with {setting('to')}"
        raise InputError(f"{folder}: cannot write there ({error.strerror}); {hint}") from error
    try:
        archives = _archives(card, pause)
        files = []
        for number, archive in enumerate(archives):
            file = parts / f"{number}-{Path(urllib.parse.urlsplit(archive.url).path).name or 'archive'}"
            fetch(archive.url, file, archive.sha256, _named(progress, archive.url), pause)
            files.append(file)
    except FetchError as error:
        if not any(parts.iterdir()):
            parts.rmdir()
        raise InputError(f"{error}. {_ways_out(card, folder)}") from error
    try:
        with building(folder) as root:
            count = sum(unpack(file, root, archive.strip) for file, archive in zip(files, archives, strict=True))
            _complete(card, root)
            _recognised(card, root)
    finally:  # an archive that could not be unpacked is no use to the next attempt
        shutil.rmtree(parts, ignore_errors=True)
    return Downloaded(name, folder, tuple(shown(archive.url) for archive in archives), count, card.licence)


def _card(name: str) -> Card:
    cards = catalog.cards(name)
    if name not in cards:
        hint = nearest(name, cards) or "."
        raise InputError(f"{name}: no dataset of that name{hint} Known: {', '.join(sorted(cards))}")
    card = cards[name]
    if card.generated:
        hint = f"nothing to download, use {setting('data', name)}"
        raise InputError(f"{name}: is drawn by segdet on first use; {hint}")
    if not card.download and not card.roboflow:
        where = f" Get it from {card.source}." if card.source else ""
        raise InputError(f"{name}: its card names no file to download.{where}")
    return card


def _archives(card: Card, pause: float) -> list[Archive]:
    key = os.environ.get("ROBOFLOW_API_KEY", "").strip()
    if card.roboflow and (key or not card.download):
        if not key:
            raise InputError(
                f"{card.name}: comes from Roboflow; set ROBOFLOW_API_KEY to your key (roboflow.com, Settings, API Keys)"
            )
        return [Archive(_roboflow_link(card, key, pause), strip=True)]
    try:
        return [Archive(**entry) for entry in card.download]
    except TypeError as error:
        raise InputError(
            f"datasets/{card.name}.yaml: `download` is a list of url, sha256 and strip ({error})"
        ) from error


def _roboflow_link(card: Card, key: str, pause: float) -> str:
    """Ask for an export and wait until it is ready; the key is in no message."""
    url = f"{ROBOFLOW}/{card.roboflow}?{urllib.parse.urlencode({'api_key': key})}"
    deadline = time.monotonic() + _EXPORT_WAIT
    hiccups = 0
    while time.monotonic() < deadline:
        try:
            answer = get_json(url)
        except FetchError as error:
            if error.status in (401, 403):
                raise FetchError(
                    f"{shown(url)}: Roboflow does not accept the key in ROBOFLOW_API_KEY; correct it", error.status
                ) from None
            hiccups += 1
            if hiccups == 3 or (error.status is not None and error.status < 500 and error.status != 429):
                raise
            time.sleep(2 * pause)
            continue
        hiccups = 0
        export = answer.get("export") if isinstance(answer, dict) else None
        link = export.get("link") if isinstance(export, dict) else None
        if isinstance(link, str):
            return link
        if not isinstance(answer, dict) or "progress" not in answer:
            raise FetchError(f"{shown(url)}: the answer names no export to download")
        time.sleep(2 * pause)
    raise FetchError(f"{shown(url)}: the export was not ready after {_EXPORT_WAIT / 60:.0f} minutes")


def _complete(card: Card, root: Path) -> None:
    """A YOLO archive without data.yaml gets one from the card: only there are the class names written down."""
    if card.classes and (root / "labels").is_dir() and not any(root.glob("*.y*ml")):
        splits = {s: f"images/{s}" for s in ("train", "val", "test") if (root / "images" / s).is_dir()}
        text = yaml.safe_dump(
            {**splits, "names": dict(enumerate(card.classes)), "license": card.licence}, sort_keys=False
        )
        (root / "data.yaml").write_text(text, encoding="utf-8")


def _recognised(card: Card, root: Path) -> None:
    try:
        formats.recognise(root)
    except InputError:
        held = ", ".join(sorted(path.name for path in root.iterdir())[:8])
        raise InputError(
            f"{card.name}: what arrived is not a dataset that segdet can read; it has {held}. Get it by hand from {card.source}"
        ) from None


def _named(progress: Progress, url: str) -> Callable[[int, int | None], object]:
    name = shown(url).rsplit("/", 1)[-1]
    return lambda done, total: progress(name, done, total)


def _ways_out(card: Card, folder: Path) -> str:
    known = " and ".join(shown(str(entry.get("url"))) for entry in card.download) or card.source
    key = (
        " or unset ROBOFLOW_API_KEY to take the public file,"
        if os.environ.get("ROBOFLOW_API_KEY") and card.download
        else ""
    )
    return (
        f"Run it again later (what arrived is kept),{key} or get {known} by hand and unpack it to {folder}, or set "
        f"SEGDET_DATASETS to the folder that holds {card.name}/; {setting('data', 'crack-demo')} needs no network"
    )
