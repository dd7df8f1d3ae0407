"""Reads thousands of damaged datasets, and reports every answer that is not records or one clear error.

    python scripts/fuzz_data.py [--trials 2000] [--formats yolo,coco] [--seed 0] [--out runs/fuzz]

For every format so many label files and so many images and masks are changed, one a trial. A trial fails on an exception
that is not a `SegdetError`, on a step of more than `--seconds`, on more than `--memory` MB, and on a file that the account of the
folder does not count.
Each failing dataset is saved. The same seed makes the same changes. Exit code 1 when a trial failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzzing.sets import FORMATS
from tests.fuzzing.trials import KINDS, Kind, Sound


@dataclass
class Tally:
    """What came of the trials of one format and kind."""

    name: str
    kind: Kind
    trials: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)  # seconds, number of the trial


def _work(pipe: Connection, name: str, folder: str, memory: int) -> None:
    """In a process of its own: run the trials it is sent, and send back what went wrong and for how long it ran."""
    os.environ["SEGDET_CACHE"] = f"{folder}/cache"
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # decoders warn of damage there
    sound = Sound(name, Path(folder))
    sound.try_change(sound.change("images", 0, 0))  # loads what is loaded late
    limit = _virtual() + (memory << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        began = time.monotonic()
        why = sound.try_change(sound.change(*task), lambda: pipe.send(None))
        pipe.send((why, time.monotonic() - began))


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Worker:
    """A process that runs trials, started again whenever one kills it or takes too long."""

    def __init__(self, name: str, folder: Path, memory: int, seconds: float) -> None:
        self.arguments = (name, str(folder), memory)
        self.seconds = seconds
        self.process: multiprocessing.process.BaseProcess | None = None

    def run(self, kind: Kind, seed: int, number: int) -> tuple[str, float]:
        """What went wrong in a trial, or an empty string, and how long it took. One that is slow gets a second chance."""
        for attempt in range(2):
            self._start()
            self.pipe.send((kind, seed, number))
            try:
                while self.pipe.poll(self.seconds):
                    answer = self.pipe.recv()
                    if answer is not None:
                        return answer
                self.stop()
                if attempt:
                    return f"one step still at work after {self.seconds:g} s", self.seconds
            except EOFError:
                assert self.process is not None
                self.process.join()
                why = f"the process ended with code {self.process.exitcode}"
                self.process = None
                return why, 0.0
        raise AssertionError

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def _start(self) -> None:
        if self.process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()


def fuzz(name: str, options: argparse.Namespace, out: Path) -> Iterator[Tally]:
    """All trials of one format; failing datasets are saved below `out`."""
    with tempfile.TemporaryDirectory(prefix="segdet-fuzz-") as scratch:
        sound = Sound(name, Path(scratch) / "here")
        worker = Worker(name, Path(scratch) / "worker", options.memory, options.seconds)
        for kind in KINDS:
            tally = Tally(name, kind)
            began = time.monotonic()
            for number in range(options.first, options.first + options.trials):
                why, seconds = worker.run(kind, options.seed, number)
                tally.trials += 1
                tally.slowest = max(tally.slowest, (seconds, number))
                if why:
                    tally.failures.append((number, why))
                    change = sound.change(kind, options.seed, number)
                    folder = out / f"{name}-{kind}-{number}"
                    sound.write(folder / "set", change)
                    (folder / "why.txt").write_text(f"{change.text}\n{why}\n", errors="backslashreplace")
                if tally.trials % 500 == 0:
                    print(f"{name} {kind}: {tally.trials}, {len(tally.failures)} failed", file=sys.stderr, flush=True)
            tally.seconds = time.monotonic() - began
            yield tally
        worker.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="label files, and as many images, for each format")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--formats", default=",".join(FORMATS), help=f"some of {', '.join(FORMATS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="longest time of one step: decode, read, info, check or draw"
    )
    parser.add_argument("--memory", type=int, default=1024, help="most MB that a trial takes")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for failing datasets")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="2")
    chosen = options.formats.split(",")
    unknown = set(chosen) - FORMATS.keys()
    if unknown:
        parser.error(f"unknown formats: {', '.join(sorted(unknown))}")
    with ThreadPoolExecutor(options.workers) as pool:
        tallies = [
            one for found in pool.map(lambda name: list(fuzz(name, options, options.out)), chosen) for one in found
        ]
    print("| format | changed | trials | failed | s | slowest |\n|---|---|---|---|---|---|")
    for one in tallies:
        seconds, number = one.slowest
        cells = (
            one.name,
            one.kind,
            one.trials,
            len(one.failures),
            f"{one.seconds:.0f}",
            f"{seconds:.2f} s (trial {number})",
        )
        print("| " + " | ".join(map(str, cells)) + " |")
    reasons = Counter(_kind_of(why) for one in tallies for _, why in one.failures)
    for why, count in reasons.most_common(40):
        print(f"{count} x {why}")
    if reasons:
        print(f"saved in {options.out}")
    return 1 if reasons else 0


def _kind_of(why: str) -> str:
    """The same text for failures of the same kind."""
    if why.startswith("account: "):
        return re.sub(r"\\d+|\\[.*", "…", why)[:80]
    return re.sub(r"'[^']*'|\"[^\"]*\"", "…", why)[:200]


if __name__ == "__main__":
    sys.exit(main())
