"""Runs segdet's real commands on copies of small folders, and judges what happened.

A case lists what its README accepts, as alternatives (`Reads`, `Refuses`, `Says`, ...). It holds when one of them holds.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from segdet.cli import main

ROOT = Path(__file__).parents[2]
TINY = {
    "backbone": "test_efficientnet", "weights": "none", "imgsz": 64, "batch": 4, "precision": "fp32", "device": "cpu",
    "workers": 0, "ema": 0.9, "epochs": 1, "logger": "none",
}  # fmt: skip
UNET = {**TINY, "options": {"decoder_channels": [32, 24, 16, 12, 8]}}


@dataclass(frozen=True)
class Result:
    """What one command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def last(self) -> str:
        """The last line on standard error: the error message of a command that failed."""
        return (self.err.strip().splitlines() or [""])[-1]

    @property
    def clean(self) -> bool:
        """Whether no exception reached the user: neither a traceback nor the line about an unexpected error."""
        return not re.search(r"Traceback|unexpected \w+(Error|Exception)", self.text)


class Place:
    """A writable copy of one folder, with the commands that run on it. Each command runs once and is remembered."""

    def __init__(self, source: Path, work: Path) -> None:
        self.source = source
        self.work = work
        self.data = work / "data" / "set"  # not its own name, which says what is wrong with it
        shutil.copytree(source, self.data, symlinks=True)
        for path in (self.data, *self.data.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)
                path.chmod(path.stat().st_mode | (stat.S_IXGRP | stat.S_IXOTH if path.is_dir() else 0))
        self.results: list[Result] = []

    def run(self, *arguments: object) -> Result:
        """Run a command line in this process."""
        out, err = io.StringIO(), io.StringIO()
        before = Path.cwd()
        os.chdir(self.work)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main.run([str(argument) for argument in arguments])
        finally:
            os.chdir(before)
        return self._keep(Result(code, out.getvalue(), err.getvalue()))

    def process(self, *commands: Sequence[object], user: int | None = None, **environment: str | None) -> list[Result]:
        """Run command lines one after another in one process of its own, and return a result for each.

        Args:
            user: run as this user and group id (with the right to read every file, for environments in /root).
            environment: variables to set, or to remove (None).
        """
        script = (
            "import json, sys\nfrom segdet.cli.main import run\n"
            "for line in json.loads(sys.argv[1]):\n"
            "    code = run(line)\n"
            "    for stream in (sys.stdout, sys.stderr): print('\\n<<<', code, '>>>', file=stream, flush=True)\n"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT), **{k: v for k, v in environment.items() if v is not None}}
        for name in (key for key, value in environment.items() if value is None):
            env.pop(name, None)
        lines = json.dumps([[str(word) for word in command] for command in commands])
        prefix = [] if user is None else _as_user(user)
        done = subprocess.run(
            [*prefix, sys.executable, "-c", script, lines], cwd=self.work, env=env, capture_output=True, timeout=170
        )
        split = [
            re.split(r"\n<<< (\d+) >>>\n", stream.decode("utf-8", "replace")) for stream in (done.stdout, done.stderr)
        ]
        ended = [
            Result(int(split[0][2 * k + 1]), split[0][2 * k], (split[1] + [""] * len(split[0]))[2 * k])
            for k in range(len(split[0]) // 2)
        ]
        if len(ended) < len(commands):  # the process ended before its last command did
            ended.append(Result(done.returncode or 1, split[0][-1], split[1][-1]))
        return [self._keep(result) for result in ended]

    def _keep(self, result: Result) -> Result:
        """Remember a result, without the folder's own path, whose name is no message of segdet."""
        result = Result(result.code, *(text.replace(f"{self.work}/", "") for text in (result.out, result.err)))
        self.results.append(result)
        return result

    @cached_property
    def info(self) -> Result:
        return self.run("data", "info", self.data)

    @cached_property
    def described(self) -> Mapping[str, Any]:
        """What `segdet --json data info` prints; empty when it fails."""
        result = self.run("--json", "data", "info", self.data)
        return json.loads(result.out) if result.code == 0 else {}

    @cached_property
    def check(self) -> Result:
        return self.run("data", "check", "--quick", self.data, "--out", self.work / "check")

    @cached_property
    def findings(self) -> list[Mapping[str, Any]]:
        """The findings of `segdet data check`, from its JSON."""
        _ = self.check
        file = self.work / "check" / "check.json"
        if not file.is_file():
            return []
        text = file.read_text(encoding="utf-8").replace(str(self.work), "")
        return json.loads(text)["findings"]

    def train(self, arch: str = "unet", **settings: Any) -> Result:
        """One epoch of a tiny network, with `segdet train ARCH --config`."""
        file = self.work / f"{arch}.json"  # JSON is YAML
        file.write_text(json.dumps({**(UNET if arch == "unet" else TINY), **settings}))
        return self.run("train", arch, "--config", file, "--data", self.data, "--out", self.work / "runs")

    @cached_property
    def trained(self) -> Result:
        return self.train()

    @property
    def weights(self) -> list[Path]:
        return sorted((self.work / "runs").glob("*/weights/best.safetensors"))


def _as_user(user: int) -> list[str]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        raise Skipped("only root can become another user, with setpriv")
    reading = "-all,+dac_read_search"
    ids = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps", reading, "--ambient-caps", reading]


class Alternative(Protocol):
    """One outcome that a README accepts."""

    def why_not(self, place: Place) -> str:
        """Say in a few words why it does not hold; an empty string when it does."""

    def evidence(self, place: Place) -> str:
        """What segdet did or printed, where it holds."""


def _missing(words: Iterable[str], text: str) -> list[str]:
    return [word for word in words if not re.search(word, text, re.IGNORECASE | re.DOTALL)]


def _plain(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


@dataclass(frozen=True)
class Reads:
    """`data info` reads the folder.

    images: how many in each split. objects: in all splits. classes: their names. share: smallest and largest share of
    the pixels that the objects cover.
    """

    images: Mapping[str, int] = field(default_factory=dict)
    objects: int | None = None
    classes: tuple[str, ...] | None = None
    share: tuple[float, float] | None = None

    def why_not(self, place: Place) -> str:
        if not place.described:
            return f"refused: {place.info.last}"
        seen = place.described
        images = {split: row["images"] for split, row in seen["splits"].items()}
        objects = sum(row["objects"] for row in seen["splits"].values())
        if self.images and images != dict(self.images):
            return f"images {images}"
        if self.objects is not None and objects != self.objects:
            return f"{objects} objects"
        if self.classes is not None and tuple(seen["classes"]) != self.classes:
            return f"classes {seen['classes']}"
        if self.share and not self.share[0] <= (seen["foreground"] or 0) <= self.share[1]:
            return f"foreground {seen['foreground']}"
        return ""

    def evidence(self, place: Place) -> str:
        seen = place.described
        images = ", ".join(f"{split} {row['images']}" for split, row in seen["splits"].items())
        objects = ", ".join(f"{name} {count}" for name, count in seen["objects"].items())
        share = f"; {seen['foreground']:.1%} marked" if self.share else ""
        return f"read: {images}; {objects}{share}"


@dataclass(frozen=True)
class Refuses:
    """A command fails with one line that has all `words` (regular expressions); `data info` unless `command` says otherwise."""

    words: tuple[str, ...]
    command: Callable[[Place], Result] = lambda place: place.info

    def why_not(self, place: Place) -> str:
        result = self.command(place)
        if result.code not in (1, 2):
            return f"not refused (exit {result.code})"
        lacks = _missing(self.words, result.last.partition("segdet reads:")[0])  # a list of all formats says nothing
        return f"error lacks {_plain(lacks)}: {result.last}" if lacks else ""

    def evidence(self, place: Place) -> str:
        return f"refused: {self.command(place).last}"


@dataclass(frozen=True)
class Says:
    """`data info` or `data check` mentions all `words`, in what it prints or lists."""

    words: tuple[str, ...]

    def why_not(self, place: Place) -> str:
        texts = (place.info.text, place.check.text + json.dumps(place.findings, ensure_ascii=False))
        lacks = min((_missing(self.words, text) for text in texts), key=len)
        return f"info and check lack {_plain(lacks)}" if lacks else ""

    def evidence(self, place: Place) -> str:
        lines = [*place.info.text.splitlines(), *place.check.text.splitlines()]
        return "says: " + max(lines, key=lambda line: len(self.words) - len(_missing(self.words, line))).strip()


@dataclass(frozen=True)
class Finds:
    """`data check` has one finding, an error or a warning, whose title, advice and cases have all `words`."""

    words: tuple[str, ...]

    def why_not(self, place: Place) -> str:
        serious = [one for one in place.findings if one["severity"] != "note"]
        if self._fits(place):
            return ""
        titles = "; ".join(one["title"] for one in serious) or place.check.last
        return f"no error or warning of check has {_plain(self.words)} ({titles})"

    def evidence(self, place: Place) -> str:
        return f"check: {self._fits(place)[0]['title']}"

    def _fits(self, place: Place) -> list[Mapping[str, Any]]:
        return [
            one
            for one in place.findings
            if one["severity"] != "note" and not _missing(self.words, json.dumps(one, ensure_ascii=False))
        ]


@dataclass(frozen=True)
class TrainsLoudly:
    """`segdet train` refuses, or trains to the end, and has all `words` in what it prints."""

    words: tuple[str, ...]

    def why_not(self, place: Place) -> str:
        lacks = _missing(self.words, place.trained.text)
        return f"train (exit {place.trained.code}) lacks {_plain(lacks)}" if lacks else ""

    def evidence(self, place: Place) -> str:
        lines = place.trained.text.splitlines()
        return "train: " + max(lines, key=lambda line: len(self.words) - len(_missing(self.words, line))).strip()


@dataclass(frozen=True)
class Judged:
    """Anything else: `judge` returns why it does not hold, or an empty string."""

    text: str
    judge: Callable[[Place], str]

    def why_not(self, place: Place) -> str:
        return self.judge(place)

    def evidence(self, place: Place) -> str:
        return self.text


@dataclass(frozen=True)
class All:
    """All parts hold."""

    parts: tuple[Alternative, ...]

    def why_not(self, place: Place) -> str:
        return next((why for part in self.parts if (why := part.why_not(place))), "")

    def evidence(self, place: Place) -> str:
        return "; ".join(part.evidence(place) for part in self.parts)


@dataclass(frozen=True)
class Case:
    """What a README accepts, as alternatives; `prepare` makes what a plain copy cannot hold (links, odd file names)."""

    accepted: tuple[Alternative, ...]
    prepare: Callable[[Place], object] = lambda place: None


@dataclass(frozen=True)
class Outcome:
    """A row of the table. holds: None when this machine cannot run the case."""

    name: str
    expected: str
    happened: str
    holds: bool | None


def judge(name: str, case: Case, source: Path, work: Path) -> Outcome:
    """Run one case on a copy of its folder."""
    expected = _expected(source)
    place = Place(source, work)
    reasons = []
    try:
        case.prepare(place)
        for alternative in case.accepted:
            why = alternative.why_not(place)
            if not why:
                loud = [result for result in place.results if not result.clean]
                if loud:
                    return Outcome(name, expected, loud[0].last, False)
                return Outcome(name, expected, alternative.evidence(place), True)
            reasons.append(why)
    except Skipped as skipped:
        return Outcome(name, expected, f"skipped: {skipped}", None)
    except Exception as error:  # a fault of segdet that reached a public function, or of this script
        reasons.append(f"{type(error).__name__}: {error}")
    return Outcome(name, expected, "; ".join(dict.fromkeys(reasons)), False)


def _expected(source: Path) -> str:
    """What the README says after "Expected:"; nothing where a folder has no such README."""
    readme = source / "README"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    return " ".join(text.partition("Expected:")[2].split())


class Skipped(Exception):
    """This machine cannot run the case."""


def table(outcomes: Iterable[Outcome]) -> str:
    """A Markdown table."""
    words = {True: "ok", False: "**NOT**", None: "skipped"}
    rows = ["| case | expected | what happened | |", "|---|---|---|---|"]
    for one in outcomes:
        cells = (one.name, one.expected[:300], " ".join(one.happened.split())[:300], words[one.holds])
        rows.append("| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in cells) + " |")
    return "\n".join(rows)
