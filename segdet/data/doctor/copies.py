"""The same picture more than once: augmented copies, identical files, and the same wall photographed again."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segdet.data.doctor import retrieval
from segdet.data.doctor.findings import Case, Finding
from segdet.data.doctor.scan import Facts
from segdet.data.doctor.verify import same_place
from segdet.data.records import Dataset, Record, by_photograph, iterate, photograph_of

SPLITS = ("train", "val", "test")  # of two copies the one further right is kept: it is what scores are taken on

_LEAK_ADVICE = (
    "Validation must measure how well a model finds what it has never seen; on pictures that training has seen too, scores are "
    "better than what use will show. `fix=FOLDER` writes a copy without the training images of these pairs."
)


@dataclass(frozen=True)
class Pair:
    """Two images of the same thing. Of two splits, `first` is in the earlier one (train, val, test).

    identical: the same pixels; of such a pair within one split `first` can go.
    """

    first: Record
    second: Record
    splits: tuple[str, str]
    case: Case
    identical: bool = False

    @property
    def leaks(self) -> bool:
        return self.splits[0] != self.splits[1]


def siblings(dataset: Dataset) -> Iterator[Finding]:
    """Augmented copies: how many there are, and whether one photograph's stand in two splits."""
    for split, records in dataset.splits.items():
        groups = [group for group in by_photograph(records).values() if len(group) > 1]
        if groups:
            photographs = len(by_photograph(records))
            sizes = sorted(len(group) for group in groups)
            copies = sizes[len(sizes) // 2]
            shown = sorted(groups, key=len, reverse=True)[:12]
            yield Finding(
                "augmented-copies",
                "note",
                f"{split}: {len(records)} images are {photographs} photographs, mostly x {copies} "
                "(augmented when they were exported)",
                "segdet takes one copy of each photograph an epoch and keeps copies on one side of every split.",
                len(records) - photographs,
                tuple(
                    Case((records[g[0]].image, records[g[1]].image), f"{records[g[0]].photograph}: {len(g)} copies")
                    for g in shown
                ),
            )
    pairs = sibling_leaks(dataset)
    if pairs:
        yield _leak("leak-siblings", pairs, "augmented copies of one photograph")


def sibling_leaks(dataset: Dataset) -> list[Pair]:
    """Copies (`x.rf.<hash>`) of one photograph in two splits, one pair for each photograph and pair of splits.

    Plain names such as 0001.jpg may well repeat in another split; they say nothing.
    """
    seen: dict[str, dict[str, Record]] = defaultdict(dict)
    for split, record in _ordered(dataset):
        if photograph_of(record.image) != record.image.stem:
            seen[record.photograph].setdefault(split, record)
    pairs = []
    for name, found in seen.items():
        for a, b in _combinations(list(found)):
            case = Case((found[a].image, found[b].image), f"photograph {name} in {a} and {b}")
            pairs.append(Pair(found[a], found[b], (a, b), case))
    return pairs


def identical(dataset: Dataset, facts: Mapping[Path, Facts]) -> list[Pair]:
    """Images with the same bytes or the same pixels; each copy is paired with the one that would be kept."""
    groups: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    for split, record in _ordered(dataset):
        fact = facts.get(record.image)
        if fact is not None and fact.pixels:
            groups[fact.pixels].append((split, record))
    pairs = []
    for members in groups.values():
        # the first of the last split stays
        last = members[-1][0]
        kept = next(record for split, record in members if split == last)
        for split, record in members:
            if record is not kept:
                same = "the same file" if facts[record.image].file == facts[kept.image].file else "the same pixels"
                case = Case((record.image, kept.image), f"{same}; {split} and {last}")
                pairs.append(Pair(record, kept, (split, last), case, identical=True))
    return pairs


def lookalikes(dataset: Dataset, facts: Mapping[Path, Facts], known: set[frozenset[Path]]) -> list[Pair]:
    """Photographs that show the same thing as another one, the most certain first.

    Args:
        known: pairs of images that are reported already.
    """
    members: list[tuple[str, Record]] = []
    groups: list[int] = []
    for split in _splits(dataset):
        records = dataset.splits[split]
        for indices in by_photograph(records).values():
            usable = [records[i] for i in indices if _has_features(facts.get(records[i].image))]
            if usable:
                groups += [groups[-1] + 1 if groups else 0] * len(usable)
                members += [(split, record) for record in usable]
    features = [facts[record.image].features for _, record in members]
    found = retrieval.candidates([one for one in features if one is not None], groups)

    def verify(candidate: retrieval.Candidate) -> tuple[int, Pair] | None:
        best = None
        for i, j in candidate.images:
            a, b = features[i], features[j]
            assert a is not None and b is not None
            match = same_place(a, b, members[j][1].size)
            if match is not None and (best is None or match.points > best[0]):
                best = (match.points, _pair(members[i], members[j], match.points, match.mirrored, match.transform))
        return best

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        verified = [one for one in pool.map(verify, found) if one is not None]
    verified.sort(key=lambda one: -one[0])
    return [pair for _, pair in verified if frozenset((pair.first.image, pair.second.image)) not in known]


def _pair(
    first: tuple[str, Record], second: tuple[str, Record], points: int, mirrored: bool, transform: object
) -> Pair:
    splits = (first[0], second[0])
    where = " and ".join(splits) if splits[0] != splits[1] else f"both in {splits[0]}"
    note = f"{where}; {points} points agree{', mirrored' if mirrored else ''}"
    case = Case((first[1].image, second[1].image), note, transform)  # type: ignore[arg-type]
    return Pair(first[1], second[1], splits, case)


def report(same: Sequence[Pair], alike: Sequence[Pair]) -> Iterator[Finding]:
    """Findings about identical and similar pictures."""
    leaks, inside = [p for p in same if p.leaks], [p for p in same if not p.leaks]
    if leaks:
        yield _leak("leak-duplicates", leaks, "identical pictures")
    leaks, within = [p for p in alike if p.leaks], [p for p in alike if not p.leaks]
    if leaks:
        yield _leak("leak-lookalikes", leaks, "the same object photographed")
    if inside:
        yield Finding(
            "duplicates",
            "warning",
            f"{len(inside)} pictures are there twice within a split",
            "They count twice in training and scores. `fix=FOLDER` writes a copy without them.",
            len(inside),
            tuple(pair.case for pair in inside),
        )
    if within:
        yield Finding(
            "lookalikes",
            "note",
            f"{len(within)} pairs of photographs show the same object within a split",
            "Harmless where they are. Dividing the set again (`fold`, `segdet data split`) may put the two on different sides: "
            "check the result.",
            len(within),
            tuple(pair.case for pair in within),
        )


def _leak(code: str, pairs: Sequence[Pair], what: str) -> Finding:
    scored = {pair.second.photograph for pair in pairs}
    where = sorted({pair.splits for pair in pairs}, key=lambda one: (SPLITS.index(one[1]), SPLITS.index(one[0])))
    shown = [(one, len({p.second.photograph for p in pairs if p.splits == one})) for one in where]
    counts = "; ".join(
        f"{count} photograph{'' if count == 1 else 's'} of {later} also in {earlier}"
        for (earlier, later), count in shown
    )
    cases = tuple(pair.case for pair in pairs)
    return Finding(code, "error", f"leak, {what}: {counts}", _LEAK_ADVICE, len(scored), cases)


def _has_features(fact: Facts | None) -> bool:
    return fact is not None and fact.features is not None


def _splits(dataset: Dataset) -> list[str]:
    return [split for split in SPLITS if split in dataset.splits]


def _ordered(dataset: Dataset) -> Iterator[tuple[str, Record]]:
    """All (split, record) pairs, train first."""
    return iter(sorted(iterate(dataset), key=lambda one: SPLITS.index(one[0])))


def _combinations(splits: Sequence[str]) -> Iterator[tuple[str, str]]:
    ordered = [split for split in SPLITS if split in splits]
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            yield a, b
