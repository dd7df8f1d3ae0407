"""`segdet export`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.cli.options import from_settings
from segdet.exporting.config import ExportConfig


@from_settings(ExportConfig)
def export(
    written: dict[str, Any], *, source: Path = typer.Argument(..., help="Run folder or weights (.safetensors).")
) -> None:
    """Write one ONNX file, checked against the PyTorch model on real validation images."""
    import json

    from segdet.exporting.gate import sentence
    from segdet.exporting.job import export as run_export

    config = ExportConfig.from_options(**written)
    file = run_export(source, config)
    beside = file.with_suffix(".parity.json")
    compared = json.loads(beside.read_bytes())
    metric = compared.get("iou") or compared.get("ap")
    quantised = compared.get("quantised")
    how = f"; int8: {quantised['recipe']}" if quantised else ""
    output.emit(
        {
            "model": str(file),
            "precision": config.precision,
            "bytes": file.stat().st_size,
            "parity": str(beside),
            "card": str(file.with_suffix(".md")),
            "agreement": compared["agreement"],
            "delta": metric["delta"],
            **({"recipe": quantised["recipe"]} if quantised else {}),
            **{key: value for key, value in compared.items() if key == "passed" or key.startswith("max_")},
        },
        f"{file} ({file.stat().st_size / 1e6:.1f} MB{how}): {sentence(compared)}; details in {beside}",
    )
