"""`segdet serve`: answers a second for some numbers of clients that each wait for their answer."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from gpu_kit.machine import Meter
from gpu_kit.nets import DETECTORS, Workshop, provider
from gpu_kit.record import Log

_ROOT = Path(__file__).parents[2]


def measure(log: Log, shop: Workshop, heads: list[str]) -> None:
    """Rows of the server, with batches and without."""
    arch = next((arch for arch in ("unet", *heads) if arch in heads and arch not in DETECTORS), None)
    if arch is None:
        return
    for batch in (1, 2) if shop.quick else (1, 8, 32):
        log.step(f"batches of {batch}", lambda batch=batch: _serve(shop, arch, batch), arch=arch)  # type: ignore[misc]


def _serve(shop: Workshop, arch: str, batch: int) -> dict[str, Any]:
    import fastapi  # noqa: F401  the server, started below, says less clearly what it lacks
    import multipart  # noqa: F401
    import uvicorn  # noqa: F401
    from bench_serve import closed_loop, server
    from PIL import Image

    gpu = shop.device != "cpu"
    kind = shop.device if gpu else "cpu"
    provider(kind.partition(":")[0])
    path = shop.onnx(arch, "fp16" if gpu else "fp32")
    size = shop.scale.speeds[0]
    images = []
    for seed in range(8):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    found = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *([found] if found else [])])
    rows: dict[str, Any] = {}
    seconds = 5 * shop.scale.seconds
    options = ("--device", kind, "--batch", batch, "--queue", 256)
    with server(path, *options) as (host, port, _), Meter(shop.device) as meter:
        closed_loop(host, port, images, 1, seconds / 5)
        for clients in shop.scale.clients:
            outcome = closed_loop(host, port, images, clients, seconds)
            rows[str(clients)] = {
                "per_second": round(outcome.rate, 1),
                "p50_ms": round(outcome.percentile(50), 2),
                "p99_ms": round(outcome.percentile(99), 2),
                "refused": len(outcome.refusal),
                "failed": len(outcome.failed),
            }
    return {"size": f"{size[0]}x{size[1]}", "clients": rows, **meter.result}
