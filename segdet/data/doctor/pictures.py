"""What is wrong or odd with the image files themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from segdet.data.doctor.findings import Case, Finding
from segdet.data.doctor.scan import Facts
from segdet.data.images import Header
from segdet.data.records import Dataset, iterate

_CORNERED = 0.1  # share of a split's images with black corners that is worth a word


def check(dataset: Dataset, facts: Mapping[Path, Facts]) -> Iterator[Finding]:
    """Damaged, unusual and turned images, and black corners."""
    damaged = [Case((problem.path,), problem.what) for problem in dataset.problems if problem.kind == "image"]
    damaged += [Case((path,), fact.damage) for path, fact in facts.items() if fact.damage]
    if damaged:
        yield Finding(
            "image-unreadable",
            "warning",
            f"{_images(len(damaged))} cannot be used",
            "Training skips and counts them; replace or remove the files.",
            len(damaged),
            tuple(damaged),
        )
    yield from _corners(dataset, facts)
    odd = [
        Case((path,), what)
        for path, fact in facts.items()
        if fact.header and not fact.damage and (what := _odd(fact.header))
    ]
    if odd:
        yield Finding(
            "image-unusual",
            "note",
            f"{_images(len(odd))} of an unusual kind",
            "segdet converts them all the same way in training and prediction (16 bits are scaled, alpha is dropped); "
            "check that they look right.",
            len(odd),
            tuple(odd),
        )
    turned = [
        Case((path,), f"EXIF orientation {fact.header.orientation}")
        for path, fact in facts.items()
        if fact.header and fact.header.orientation > 1
    ]
    if turned:
        yield Finding(
            "image-turned",
            "note",
            f"{_images(len(turned))} turned by EXIF",
            "segdet turns them upright and expects labels made on the upright picture, as labelling tools show it.",
            len(turned),
            tuple(turned),
        )


def _odd(header: Header) -> str | None:
    """What is unusual about a file's kind of picture; grey and plain RGB are not."""
    if header.bands > 4:
        return f"{header.kind} of {header.bands} bands, of which the first three are read"
    if header.deep:
        return f"{header.kind}, more than 8 bits a sample ({header.mode})"
    if header.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return f"{header.kind} with an alpha channel, which is dropped"
    if header.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        return f"{header.kind} in {header.mode}, converted to RGB"
    if header.mode in ("P", "1"):
        return f"{header.kind} with {'a palette' if header.mode == 'P' else '1 bit a pixel'}; is it a mask?"
    return None


def _corners(dataset: Dataset, facts: Mapping[Path, Facts]) -> Iterator[Finding]:
    shares = {}
    cases: dict[str, list[Case]] = {}
    for split, record in iterate(dataset):
        fact = facts.get(record.image)
        if fact is not None and fact.corners > 0:
            cases.setdefault(split, []).append(Case((record.image,), f"{fact.corners:.1%} of the picture is fill"))
    for split, records in dataset.splits.items():
        shares[split] = len(cases.get(split, [])) / max(1, len(records))
    worst = max(shares, key=lambda split: shares[split], default="")
    if not worst or shares[worst] < _CORNERED:
        return
    splits = ", ".join(f"{share:.0%} of {split}" for split, share in shares.items())
    differs = any(share < 0.2 * shares[worst] for share in shares.values())
    found = cases[worst]
    yield Finding(
        "black-corners",
        "warning" if differs else "note",
        f"black corners from rotation in {splits}",
        "A model spends its learning on black triangles, and on pictures cut short by them, that use does not have. Export "
        "again without the rotation step: segdet turns and scales pictures itself while it trains, and leaves no corners. "
        "Scores stay sound as long as validation has none.",
        len(found),
        tuple(found),
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
