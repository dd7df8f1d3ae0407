"""Which pictures may show the same thing: visual words (Sivic and Zisserman 2003) with Hamming embedding (Jegou 2008).

Every descriptor falls into one of up to 16,384 words and carries 64 bits that say where in the word's cell it lies; two
pictures get a vote for each pair of descriptors in the same word whose bits nearly agree, the more the rarer the word.
Unlike hashes of whole pictures this finds a part of a wall again, turned, mirrored, brightened and photographed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from segdet.data.doctor.features import MIRROR, Features, rooted

_CELLS = 128  # coarse cells, and words in each, at most
_PER_WORD = 90  # descriptors a word should hold
_SAMPLE = 200_000  # descriptors the words are learned from
_BLOCK = 65_536
_FAR = 22  # differing bits (of 64) beyond which two descriptors do not match
_SPREAD = 16.0
_LIKELY = 0.0015  # score below which a pair is chance; the weakest true pair of the crack set has 0.0028
_NEAREST = 8  # candidates looked at for each photograph
_VIEWS = 2  # pairs of copies tried for each pair of photographs
_TABLE = 64_000_000  # votes held at a time


@dataclass(frozen=True)
class Candidate:
    """Two photographs that may show the same, by their index, with the image pairs most like each other."""

    first: int
    second: int
    images: tuple[tuple[int, int], ...]
    score: float


def candidates(features: Sequence[Features], groups: Sequence[int], seed: int = 0) -> list[Candidate]:
    """Pairs of groups worth a closer look.

    Args:
        features: of each image.
        groups: the photograph each image belongs to, numbered 0, 1, ... and ascending: copies stand together.
    """
    counts = np.array([len(one.descriptors) for one in features])
    if counts.sum() < 16 or len(set(groups)) < 2:
        return []
    descriptors = np.concatenate([one.descriptors for one in features])
    words = _Words(descriptors, np.random.default_rng(seed))
    plain, mirrored = words.of(descriptors), words.of(descriptors[:, MIRROR])
    owner = np.repeat(np.arange(len(features)), counts)
    starts = np.flatnonzero(np.diff(np.asarray(groups), prepend=-1))
    ends = np.append(starts[1:], len(features))
    found: dict[tuple[int, int], Candidate] = {}
    rows = max(1, _TABLE // len(features))
    first = 0
    while first < len(starts):  # blocks of whole groups against everything
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + rows, side="right")))
        block = slice(int(starts[first]), int(ends[last - 1]))
        count = partial(_votes, known=plain, owner=owner, block=block, words=words.count)
        votes = np.maximum(*_in_threads(count, (plain, mirrored)))
        votes /= np.sqrt(np.maximum(counts, 20)[block, None] * np.maximum(counts, 20)[None].astype(np.float32))
        for one in _likely(votes, range(first, last), starts, ends):
            key = (one.first, one.second)
            if key not in found or found[key].score < one.score:
                found[key] = one
        first = last
    return sorted(found.values(), key=lambda one: -one.score)


def _likely(votes: np.ndarray, block: range, starts: np.ndarray, ends: np.ndarray) -> list[Candidate]:
    """The nearest groups of each group in `block`; votes is float32 `[images of the block, all images]`."""
    by_column = np.maximum.reduceat(votes, starts, axis=1)
    offset = int(starts[block[0]])
    table = np.maximum.reduceat(by_column, starts[block.start : block.stop] - offset, axis=0)
    found = []
    for row, group in enumerate(block):
        table[row, group] = 0
        for other in np.argsort(-table[row], kind="stable")[:_NEAREST]:
            if table[row, other] < _LIKELY:
                break
            pairs = votes[starts[group] - offset : ends[group] - offset, starts[other] : ends[other]]
            best = np.argsort(-pairs, axis=None, kind="stable")[:_VIEWS]
            images = [(int(starts[group] + k // pairs.shape[1]), int(starts[other] + k % pairs.shape[1])) for k in best]
            ordered = tuple((i, j) if group < other else (j, i) for i, j in images)
            found.append(Candidate(min(group, int(other)), max(group, int(other)), ordered, float(table[row, other])))
    return found


@dataclass(frozen=True)
class _Coded:
    """Each descriptor's word int32 `[n]` and signature uint64 `[n]`."""

    word: np.ndarray
    bits: np.ndarray


class _Words:
    """A two-level vocabulary learned from the descriptors themselves."""

    def __init__(self, descriptors: np.ndarray, rng: np.random.Generator) -> None:
        cells = int(np.clip(np.sqrt(len(descriptors) / _PER_WORD), 4, _CELLS))
        chosen = rng.choice(len(descriptors), min(_SAMPLE, len(descriptors)), replace=False)
        sample = rooted(descriptors[np.sort(chosen)])
        self.coarse = _kmeans(sample, cells, rng)
        cell = _nearest(sample, self.coarse)
        members = [_some(sample[cell == k], sample) for k in range(len(self.coarse))]
        # Drawn in order, so that the answer does not depend on which thread is first.
        seeds = [_seeds(values, cells, rng) for values in members]
        self.fine = np.stack(_in_threads(lambda k: _moved(members[k], seeds[k]), range(len(members))))
        self.count = len(self.coarse) * cells
        self.turn = np.linalg.qr(rng.normal(size=(128, 128)))[0][:, :64].astype(np.float32)
        projected = sample @ self.turn
        self.middle = np.stack(
            [np.median(_some(projected[cell == k], projected), axis=0) for k in range(len(self.coarse))]
        )

    def of(self, descriptors: np.ndarray) -> _Coded:
        blocks = range(0, len(descriptors), _BLOCK)
        parts = _in_threads(lambda i: self._block(rooted(descriptors[i : i + _BLOCK])), blocks)
        return _Coded(np.concatenate([word for word, _ in parts]), np.concatenate([bits for _, bits in parts]))

    def _block(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cell = _nearest(values, self.coarse)
        word = np.empty(len(values), np.int32)
        for k in np.unique(cell):
            members = np.flatnonzero(cell == k)
            word[members] = k * self.fine.shape[1] + _nearest(values[members], self.fine[k])
        above = values @ self.turn > self.middle[cell]
        return word, np.packbits(above, axis=1, bitorder="little").view(np.uint64).ravel()


def _some(values: np.ndarray, instead: np.ndarray) -> np.ndarray:
    return values if len(values) else instead


def _nearest(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((values @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1))


def _kmeans(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 `[count, d]` centres; when there are fewer values than centres, they repeat."""
    return _moved(values, _seeds(values, count, rng))


def _seeds(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the values, to begin with."""
    if len(values) <= count:
        return np.resize(values, (count, values.shape[1]))
    return values[rng.choice(len(values), count, replace=False)]


def _moved(values: np.ndarray, seeds: np.ndarray, rounds: int = 8) -> np.ndarray:
    """Centres that started at the seeds, each moved to the middle of the values nearest to it (Lloyd)."""
    centres = seeds.copy()
    for _ in range(rounds if len(values) > len(seeds) else 0):
        nearest = _nearest(values, centres)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(values[order], starts, axis=0)
        centres[used] = sums / np.diff(np.append(starts, len(values)))[:, None]
    return centres


def _in_threads(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """`work` on each item, in order; numpy's heavy parts leave the interpreter's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))


def _votes(query: _Coded, known: _Coded, owner: np.ndarray, block: slice, words: int) -> np.ndarray:
    """float32 `[images of the block, all images]`: how much speaks for each pair of images."""
    images = int(owner[-1]) + 1
    votes = np.zeros((block.stop - block.start) * images, np.float32)
    mine = np.flatnonzero((owner >= block.start) & (owner < block.stop))
    order_q = mine[np.argsort(query.word[mine], kind="stable")]
    order_k = np.argsort(known.word, kind="stable")
    edges = np.arange(words + 1)
    start_q, start_k = np.searchsorted(query.word[order_q], edges), np.searchsorted(known.word[order_k], edges)
    for word in np.flatnonzero((np.diff(start_q) > 0) & (np.diff(start_k) > 0)):
        asked = order_q[start_q[word] : start_q[word + 1]]
        listed = order_k[start_k[word] : start_k[word + 1]]
        apart = np.bitwise_count(query.bits[asked][:, None] ^ known.bits[listed][None])
        a, b = np.nonzero(apart <= _FAR)
        i, j = owner[asked[a]], owner[listed[b]]
        rare = np.log1p(images / len(np.unique(owner[listed]))) / np.log1p(images)  # never 0: small sets have few words
        weight = rare**2 * np.exp(-((apart[a, b].astype(np.float32) / _SPREAD) ** 2))
        other = i != j
        np.add.at(votes, (i[other] - block.start) * images + j[other], weight[other].astype(np.float32))
    return votes.reshape(-1, images)
