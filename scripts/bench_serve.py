"""`segdet serve` on loopback, against a bare `session.run` loop in the same run: throughput, latency, overload, memory.

    python scripts/bench_serve.py --model runs/unet-crack/model.onnx --images crack

Everything is bounded and ends by itself. Rounds of the bare loops and of the server alternate, because other work on the machine
comes and goes; the table has medians over rounds. The bare loop only runs the network on an array that is in memory; the server
also takes the JPEG over HTTP, decodes it, and answers with the mask as PNG. Clients run on the same cores. Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import platform
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

from segdet import machine
from segdet.data.catalog import cards
from segdet.inference.backends.select import open_session

CLIENTS = (1, 4, 16)


@dataclass
class Outcome:
    """What clients saw. latency: seconds of the answered, refusal: seconds of the 503s."""

    seconds: float = 0.0
    latency: list[float] = field(default_factory=list)
    refusal: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latency) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.latency, share)) * 1000 if self.latency else float("nan")


@contextmanager
def server(model: Path, *options: object) -> Iterator[tuple[str, int, int]]:
    """A running server: host, port, process id."""
    command = [sys.executable, "-m", "segdet", "serve", "--model", f"model={model}", "--port", "0", "--log", "json"]
    process = subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        import json

        while True:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
            if '"address"' in line:
                port = int(json.loads(line)["address"].rsplit(":", 1)[1])
                break
        threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
        while not _ready(port):
            time.sleep(0.1)
        yield "127.0.0.1", port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _ready(port: int) -> bool:
    try:
        return _send(HTTPConnection("127.0.0.1", port, timeout=5), b"", "GET", "/readyz") == 200
    except OSError:
        return False


def _send(connection: HTTPConnection, body: bytes, method: str = "POST", path: str = "/v1/predict") -> int:
    connection.request(method, path, body, {"Accept": "image/png"} if body else {})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def closed_loop(host: str, port: int, images: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """Each client sends its next request when it has its answer."""
    outcome = Outcome()
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = HTTPConnection(host, port, timeout=120)
        at = number
        while time.perf_counter() < end:
            _timed(connection, images[at % len(images)], outcome)
            at += clients

    start = time.perf_counter()
    _all(client, clients)
    outcome.seconds = time.perf_counter() - start
    return outcome


def open_loop(host: str, port: int, images: Sequence[bytes], rate: float, seconds: float) -> Outcome:
    """Requests come at a steady rate, whatever happened to those before."""
    outcome = Outcome()
    arrivals: queue.Queue[int | None] = queue.Queue()
    count = int(rate * seconds)

    def client(_: int) -> None:
        connection = HTTPConnection(host, port, timeout=120)
        while (number := arrivals.get()) is not None:
            _timed(connection, images[number % len(images)], outcome)

    threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(32)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        arrivals.put(number)
    for _ in threads:
        arrivals.put(None)
    for thread in threads:
        thread.join()
    outcome.seconds = time.perf_counter() - start
    return outcome


def _timed(connection: HTTPConnection, body: bytes, outcome: Outcome) -> None:
    start = time.perf_counter()
    try:
        status = _send(connection, body)
    except (OSError, HTTPException) as error:
        outcome.failed.append(repr(error))
        connection.close()
        return
    taken = time.perf_counter() - start
    if status == 200:
        outcome.latency.append(taken)
    elif status == 503:
        outcome.refusal.append(taken)
        time.sleep(
            0.1
        )  # Retry-After asks for a second at least; a client that asks at once only costs both of them work
    else:
        outcome.failed.append(str(status))


def bare_loop(model: Path, arrays: Sequence[np.ndarray], parallel: int, threads: int, seconds: float) -> float:
    """Images a second of `session.run` alone, in `parallel` threads that share one session."""
    session = open_session(model, "cpu", threads)
    session.run(arrays[0][None])
    counts = [0] * parallel
    end = time.perf_counter() + seconds

    def loop(number: int) -> None:
        while time.perf_counter() < end:
            session.run(arrays[(number + counts[number]) % len(arrays)][None])
            counts[number] += 1

    start = time.perf_counter()
    _all(loop, parallel)
    return sum(counts) / (time.perf_counter() - start)


def _all(function: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=function, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def throughput(model: Path, images: Sequence[bytes], seconds: float, rounds: int, options: Sequence[str]) -> None:
    """Bare loops and the server in turn."""
    cores = machine.cores()
    arrays = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in images[:8]]
    bare: dict[str, list[float]] = {}
    served: dict[int, list[Outcome]] = {}
    with server(model, *options) as (host, port, _):
        for _ in range(rounds):
            for name, parallel, threads in ((f"1 x {cores} threads", 1, cores), (f"{cores} x 1 thread", cores, 1)):
                bare.setdefault(name, []).append(bare_loop(model, arrays, parallel, threads, seconds))
            for clients in CLIENTS:
                served.setdefault(clients, []).append(closed_loop(host, port, images, clients, seconds))
    print(
        "| | images/s | of the best bare loop | p50 ms | p95 ms | p99 ms | not answered |\n|---|---|---|---|---|---|---|"
    )
    medians = {name: statistics.median(rates) for name, rates in bare.items()}
    best = max(medians.values())
    for name, rate in medians.items():
        print(f"| bare loop, {name} | {rate:.2f} | {rate / best:.2f} | | | | |")
    for clients, outcomes in served.items():
        rate = statistics.median(outcome.rate for outcome in outcomes)
        times = [statistics.median(o.percentile(share) for o in outcomes) for share in (50, 95, 99)]
        lost = sum(len(o.failed) + len(o.refusal) for o in outcomes)
        print(
            f"| served, {clients} clients | {rate:.2f} | {rate / best:.2f} | "
            + " | ".join(f"{t:.0f}" for t in times)
            + f" | {lost} |"
        )
    sys.stdout.flush()


def overload(model: Path, images: Sequence[bytes], seconds: float, rounds: int, options: Sequence[str]) -> None:
    """Three times as many requests as can be answered, with a server that promises short waits."""
    cores = machine.cores()
    with server(model, "--threads", 1, *options) as (host, port, _):
        alone = closed_loop(host, port, images, 1, seconds)
    wait = 0.25 * alone.percentile(50) / 1000
    rows = []
    with server(model, "--threads", 1, "--max-wait", f"{wait:.4f}", *options) as (host, port, _):
        for _ in range(rounds):
            unloaded = closed_loop(host, port, images, 1, seconds)
            capacity = closed_loop(host, port, images, cores, seconds).rate
            rows.append((unloaded, capacity, open_loop(host, port, images, 3 * capacity, seconds)))
    print(f"`--threads 1 --max-wait {wait:.3f}`\n")
    titles = (
        "round",
        "unloaded p95 ms",
        "capacity/s",
        "offered/s",
        "answered/s",
        "p50 ms",
        "p95 ms",
        "p95 / unloaded p95",
    )
    print(f"| {' | '.join((*titles, '503', '503 p50 ms', '503 p95 ms', 'failed'))} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for number, (unloaded, capacity, loaded) in enumerate(rows, 1):
        refused = [float(np.percentile(loaded.refusal, share)) * 1000 if loaded.refusal else 0.0 for share in (50, 95)]
        print(
            f"| {number} | {unloaded.percentile(95):.0f} | {capacity:.1f} | {3 * capacity:.1f} | {loaded.rate:.1f} | "
            f"{loaded.percentile(50):.0f} | {loaded.percentile(95):.0f} | {loaded.percentile(95) / unloaded.percentile(95):.2f} | "
            f"{len(loaded.refusal)} | {refused[0]:.1f} | {refused[1]:.1f} | {len(loaded.failed)} |"
        )
    sys.stdout.flush()


def memory(model: Path, requests: int, options: Sequence[str]) -> None:
    """Resident memory over many requests with images of many sizes."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(200):
        buffer = io.BytesIO()
        height, width = rng.integers(64, 160, 2)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(buffer, "JPEG")
        images.append(buffer.getvalue())
    with server(model, *options) as (host, port, process):
        marks = [0, *(requests * n // 10 for n in range(1, 11))]
        line = []
        failed = 0
        for before, until in itertools.pairwise(marks):
            count = until - before
            left = iter(range(count))
            lock = threading.Lock()
            outcome = Outcome()

            def client(
                number: int, left: Iterator[int] = left, lock: threading.Lock = lock, outcome: Outcome = outcome
            ) -> None:
                connection = HTTPConnection(host, port, timeout=120)
                while True:
                    with lock:
                        at = next(left, None)
                    if at is None:
                        return
                    _timed(connection, images[at % len(images)], outcome)

            _all(client, 4)
            failed += len(outcome.failed) + len(outcome.refusal)
            line.append(f"{until}: {_resident(process):.0f}")
    print(f"{requests} requests, {len(images)} images of 64 to 160 pixels, {failed} not answered.")
    print(f"Resident MB after requests: {', '.join(line)}")
    sys.stdout.flush()


def _resident(process: int) -> float:
    """Megabytes of a process."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", default="crack-demo", help="dataset whose validation images are sent")
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10_000, help="of the memory test")
    parser.add_argument("--parts", default="throughput,overload,memory")
    parser.add_argument("--serve", default="", help="further options for segdet serve, in one word list")
    options = parser.parse_args()
    images = [record.image.read_bytes() for record in cards.load(options.images).splits["val"][:32]]
    extra = options.serve.split()
    print(
        f"{options.model}, {machine.cores()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}\n", flush=True
    )
    for part in options.parts.split(","):
        print(f"## {part}\n", flush=True)
        if part == "throughput":
            throughput(options.model, images, options.seconds, options.rounds, extra)
        elif part == "overload":
            overload(options.model, images, options.seconds, options.rounds, extra)
        elif part == "memory":
            memory(options.model, options.requests, extra)
        print(f"\nload {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    main()
