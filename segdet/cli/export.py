"""`segdet export`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output


def export(
    source: Path = typer.Argument(..., help="Run folder or weights (.safetensors)."),
    out: Path | None = typer.Option(None, help="File to write.  [default: exports/<run>.onnx]"),
    data: str | None = typer.Option(None, help="Dataset to compare on.  [default: the one it was trained on]"),
    tolerance: float | None = typer.Option(
        None, help="Largest share of differing pixels on an image (0.0005), or pixels a box may move (0.5)."
    ),
    limit: int = typer.Option(50, help="Validation images to compare on."),
) -> None:
    """Write one ONNX file, checked against the PyTorch model on real validation images."""
    import json

    from segdet.export.onnx import export as run_export
    from segdet.export.onnx import sentence

    file = run_export(source, out, data, tolerance, limit)
    beside = file.with_suffix(".parity.json")
    compared = json.loads(beside.read_text())
    output.emit(
        {
            "model": str(file),
            "parity": str(beside),
            **{key: value for key, value in compared.items() if key == "passed" or key.startswith("max_")},
        },
        f"{file} ({file.stat().st_size / 1e6:.1f} MB): {sentence(compared)}; details in {beside}",
    )
