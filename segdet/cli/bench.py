"""`segdet bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.errors import InputError


def bench(
    model: list[Path] = typer.Argument(None, help="Exported models.  \\[default: the one `segdet predict` would take]"),
    image: Path | None = typer.Option(None, help="Image to predict.  \\[default: a drawn one of 416x416]"),
    device: str | None = typer.Option(None, help="Devices, by commas.  \\[default: all that are installed]"),
    seconds: float = typer.Option(5.0, help="Time to measure for, per device and again for the batches."),
    threads: int | None = typer.Option(None, help="Threads of the network.  \\[default: all cores]"),
) -> None:
    """Measure latency, throughput, memory and where the time goes, on every device of this machine."""
    from segdet.inference.backends.select import open_session
    from segdet.inference.locate_model import find_model
    from segdet.tools import benchmark

    benchmark.check_image(image)
    asked = [word.strip() for word in device.split(",") if word.strip()] if device else benchmark.devices()
    files = [find_model(file) for file in model] if model else [find_model()]
    entries = []
    for file in files:
        open_session(file, "cpu")  # says what is wrong with the file, once
        rows = list(benchmark.measure_all(file, image, seconds, asked, threads))
        if all("error" in row for row in rows):
            raise InputError(f"{file}: {rows[0]['error']}")
        entries.append({"model": str(file), "devices": rows, "openvino_parity": benchmark.parity(file, image, threads)})
    output.emit({"models": entries}, "\n\n".join(_text(entry) for entry in entries))


def _text(entry: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        ("device", "p50", "p90", "p99", "decode", "network", "after", "images/s by batch", "start", "memory")
    ]
    errors = []
    for row in entry["devices"]:
        if "error" in row:
            errors.append(f"{row['device']}: {row['error']}")
            continue
        shares = row["shares"]
        rows.append(
            (
                row["runs_on"],
                *(f"{row[name]:.1f} ms" for name in ("p50", "p90", "p99")),
                *(f"{shares[name]:.1%}" for name in ("decode", "network", "after")),
                ", ".join(f"{batch}: {rate:.1f}" for batch, rate in row["per_second"].items()) or "tiled",
                f"{row['start_s']:.2f} s",
                f"{row['memory_mb']} MB" if row["memory_mb"] else "",
            )
        )
    first = next(row for row in entry["devices"] if "error" not in row)
    heading = f"{entry['model']}, {first['width']}x{first['height']}, {first['threads']} threads, file to file"
    parity = entry["openvino_parity"]
    lines = [heading, output.table(rows), *errors]
    if parity is not None:
        lines.append(
            f"OpenVINO {'agrees' if parity['agrees'] else 'does not agree'} with ONNX Runtime on the image: {parity}"
        )
    return "\n".join(lines)
