"""Proves and measures segdet on an NVIDIA GPU, in less than ten minutes; docs/gpu.md says how and what it needs.

    python scripts/bench_gpu.py --out results.jsonl                       # everything
    python scripts/bench_gpu.py --table results.jsonl --plot results.png  # the same as Markdown, and a picture
    python scripts/bench_gpu.py --device cpu --quick --out quick.jsonl    # the same steps, small, without a GPU

Every step leaves one line of JSON at once, so a run that is cut off leaves what it had. Parts run in this order: machine,
correct, speed, training, serving, learning. Each has a share of the time, and a process of its own on a GPU: a fault of one does
not take the next ones with it. What a step lacks (a package, a provider) is written in its line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
for _folder in (_ROOT, _ROOT / "scripts"):  # segdet need not be installed
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from gpu_kit import record  # noqa: E402

# Share of the time after which a part has to end. A quick run has no shares: it proves that every step works.
PARTS = {"machine": 0.03, "correct": 0.3, "speed": 0.53, "training": 0.66, "serving": 0.72, "learning": 1.0}
_GRACE = 60  # seconds that the last step of a part may take beyond its share, before its process is ended


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it says; returns 1 when a step failed."""
    options = _parser().parse_args(arguments)
    if options.table is not None:
        return _table(options)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    began = options.began or time.time()
    log = record.Log(options.out, began + 60 * options.minutes)
    with tempfile.TemporaryDirectory(prefix="segdet-gpu-") as temporary:
        work = options.work or Path(temporary)
        device = _device(options.device)
        for part in [part for part in PARTS if part in options.parts]:
            log.begin(part, began + 60 * options.minutes * (1.0 if options.quick else PARTS[part]))
            if options.isolated or (device != "cpu" and options.isolated is None):
                _elsewhere(log, part, options, work, began)
            else:
                _here(log, part, options, work, device)
    failed = [row for row in record.read(options.out) if "error" in row or row.get("passed") is False]
    for row in failed:
        print(f"FAILED: {row['part']} {row['step']} {row.get('arch', '')}: {row.get('error') or row.get('broken')}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quick", action="store_true", help="small networks and pictures, a few steps of each")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="file that rows are added to")
    parser.add_argument("--heads", nargs="+", help="only these architectures")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", help="dataset to train on (default: pictures drawn here)")
    parser.add_argument("--work", type=Path, help="folder for networks and pictures (default: a temporary one)")
    parser.add_argument("--table", type=Path, help="print the rows of this file as Markdown, and do nothing else")
    parser.add_argument("--plot", type=Path, help="with --table: also draw the speeds into this PNG file")
    parser.add_argument("--isolated", action=argparse.BooleanOptionalAction, help="a process for each part")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    return parser


def _device(asked: str) -> str:
    """The device by PyTorch's name; the first GPU has its number, so that every library means the same one."""
    if asked == "cpu":
        return asked
    from segdet.models.devices import chosen

    device = chosen(asked)
    return "cuda:0" if device == "cuda" else device


def _here(log: record.Log, part: str, options: argparse.Namespace, work: Path, device: str) -> None:
    from gpu_kit import correct, machine, nets, serving, speed, training

    shop = nets.Workshop(work, device, options.quick, options.data)
    heads = options.heads or list(nets.HEADS)
    if part == "machine":
        machine.describe(log, device)
    elif part == "correct":
        correct.compare(log, shop, heads)
    elif part == "speed":
        speed.measure(log, shop, [head for head in training.ARCHS if head in heads] or heads)
    elif part == "training":
        training.measure(log, shop, heads)
    elif part == "serving":
        serving.measure(log, shop, heads)
    else:
        training.learn(log, shop, max(10.0, min(120.0, log.left)))


def _elsewhere(log: record.Log, part: str, options: argparse.Namespace, work: Path, began: float) -> None:
    """Do a part in a process of its own; a crash or a step without end leaves a row."""
    own = [
        "--out",
        options.out,
        "--minutes",
        options.minutes,
        "--work",
        work,
        "--began",
        began,
        "--device",
        options.device,
    ]
    command = [sys.executable, __file__, "--no-isolated", "--parts", part, *map(str, own)]
    command += ["--quick"] if options.quick else []
    command += ["--data", options.data] if options.data else []
    command += ["--heads", *options.heads] if options.heads else []
    start = time.perf_counter()
    try:
        code = subprocess.run(command, timeout=max(1.0, log.left + _GRACE)).returncode
        if code in (0, 1):  # 1: a step failed and has its row
            return
        outcome = {"error": f"the process ended with code {code}"}
    except subprocess.TimeoutExpired:
        outcome = {"left_out": "a step took longer than the time of its part"}
    log.write({"part": part, "step": "process", **outcome, "seconds": round(time.perf_counter() - start, 2)})


def _table(options: argparse.Namespace) -> int:
    from gpu_kit import table

    rows = record.read(options.table)
    print(table.page(rows), end="")
    if options.plot is not None and not table.plot(rows, options.plot):
        print("nothing was timed: no picture", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
