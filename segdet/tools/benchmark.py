"""How fast a model is on this machine: latency, throughput, memory, and where the time goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.images import encode_jpeg, read_image
from segdet.errors import InvalidOption, SegdetError
from segdet.inference.backends import agreement, nvidia, onnxruntime

BATCHES = (1, 2, 4, 8)
_SIDE = 416  # side of the drawn image when none is given


def devices() -> list[str]:
    """What can be measured here: every device whose library is there."""
    built_in = onnxruntime.import_onnxruntime().get_available_providers()
    found = [kind for kind, provider in onnxruntime.PROVIDERS.items() if provider in built_in]
    if nvidia.driver().fault:
        found = [kind for kind in found if kind == "cpu"]
    return [*found, "openvino", "openvino:f32"] if agreement.installed() else found


def measure_all(
    model: Path, image: Path | None, seconds: float, asked: Sequence[str], threads: int | None
) -> Iterator[dict[str, Any]]:
    """One row a device, each from a process of its own, so that memory and start-up are its own.

    A device that cannot be used gives a row with `error`.
    """
    for device in asked:
        job = {"model": str(model), "image": str(image) if image else None, "seconds": seconds, "threads": threads}
        code = "import sys; from segdet.tools.benchmark import child; child(sys.argv[1])"
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps({**job, "device": device})],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
            yield {"device": device, "error": reason}
        else:
            yield {"device": device, **json.loads(done.stdout.splitlines()[-1])}


def child(job: str) -> None:
    """Entry point of the measuring process: prints one row as JSON."""
    given = json.loads(job)
    try:
        image = Path(given["image"]) if given["image"] else None
        row = measure(Path(given["model"]), image, given["seconds"], given["device"], given["threads"])
    except SegdetError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(row) + "\n")


def measure(model: Path, image: Path | None, seconds: float, device: str, threads: int | None = None) -> dict[str, Any]:
    """Times of `device` in milliseconds: start-up, p50/p90/p99 from file to files, and its parts (medians); images a second for
    each batch of the network; peak memory in MB."""
    from segdet.inference.batch.writers import KINDS, write_image
    from segdet.inference.predict.predictor import open_predictor

    began = time.perf_counter()
    predictor = open_predictor(model, device=device, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        file = image or _drawn(Path(folder) / "drawn.jpg")
        kinds = ("mask",) if "mask" in KINDS[predictor.session.metadata.task] else ("overlay", "json")

        def once() -> tuple[float, ...]:
            times = [time.perf_counter()]
            pixels = read_image(file)
            times.append(time.perf_counter())
            found = predictor.predict_batch([pixels])[0]
            times.append(time.perf_counter())
            write_image(found, Path(folder), "out", kinds)
            times.append(time.perf_counter())
            return tuple(np.diff(times))

        once()
        start = time.perf_counter() - began
        taken = np.array(list(_for(seconds, once))) * 1000
        pixels = read_image(file)
    whole = taken.sum(axis=1)
    middle = np.median(taken, axis=0)
    parts = dict(zip(("decode", "network", "after"), middle.tolist(), strict=True))
    return {
        "runs_on": predictor.session.device,
        "threads": predictor.session.threads,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "images": len(taken),
        "start_s": round(start, 3),
        **{f"p{q}": round(float(np.percentile(whole, q)), 2) for q in (50, 90, 99)},
        **{name: round(value, 2) for name, value in parts.items()},
        "shares": {name: round(value / sum(parts.values()), 4) for name, value in parts.items()},
        "per_second": _throughput(predictor, pixels, seconds),
        "memory_mb": _peak(),
    }


def _throughput(predictor: Any, pixels: np.ndarray, seconds: float) -> dict[str, float]:
    """Images a second through the network for each batch; a batch that does not fit is left out."""
    if predictor.tile_for(pixels.shape[:2]):
        return {}
    found = {}
    for batch in BATCHES:
        stack = [pixels] * batch
        try:
            predictor.predict_batch(stack)
        except Exception:  # out of memory, or a shape that the runtime refuses
            break
        taken = list(_for(seconds / len(BATCHES), lambda stack=stack: _timed(predictor, stack)))  # type: ignore[misc]
        found[str(batch)] = round(batch / float(np.median(taken)), 2)
    return found


def _timed(predictor: Any, stack: Sequence[np.ndarray]) -> float:
    began = time.perf_counter()
    predictor.predict_batch(stack)
    return time.perf_counter() - began


def _for(seconds: float, function: Any) -> Iterator[Any]:
    """Results of calls until the time is over, five at least."""
    end = time.perf_counter() + seconds
    count = 0
    while count < 5 or time.perf_counter() < end:
        yield function()
        count += 1


def _drawn(path: Path) -> Path:
    rng = np.random.default_rng(0)
    coarse = rng.normal(150, 25, (_SIDE // 8, _SIDE // 8, 1)).repeat(8, axis=0).repeat(8, axis=1)
    image = (coarse + rng.normal(0, 8, (_SIDE, _SIDE, 3))).clip(0, 255).astype(np.uint8)
    path.write_bytes(encode_jpeg(image))
    return path


def _peak() -> int | None:
    """Largest memory of this process in MB; None where that cannot be known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def parity(model: Path, image: Path | None, threads: int | None) -> dict[str, Any] | None:
    """Whether OpenVINO agrees with ONNX Runtime on the image; None where OpenVINO or an image is missing."""
    from segdet.inference.backends.select import open_session

    if image is None or not agreement.installed():
        return None
    try:
        ours, theirs = (open_session(model, device, threads) for device in ("cpu", "openvino"))
        return agreement.compare(ours, theirs, [read_image(image)])
    except SegdetError as error:
        return {"agrees": False, "reason": str(error)}


def check_image(image: Path | None) -> None:
    """Raise InputError early, before every process meets the same trouble."""
    if image is not None and not image.is_file():
        raise InvalidOption("image", image, "no such file")
    if image is not None:
        read_image(image)
