"""`segdet export`"""

from __future__ import annotations

from pathlib import Path

import typer

from segdet.cli import output


def export(
    source: Path = typer.Argument(..., help="Run folder or weights (.safetensors)."),
    out: Path | None = typer.Option(
        None, help="File to write.  \\[default: exports/<run>.onnx, <run>-fp16, <run>-int8]"
    ),
    precision: str = typer.Option("fp32", help="fp32, fp16 (for GPUs, half the size) or int8 (for CPUs, a quarter)."),
    data: str | None = typer.Option(None, help="Dataset to compare on.  \\[default: the one it was trained on]"),
    tolerance: float | None = typer.Option(
        None,
        help="fp32: largest share of differing pixels on an image (0.0005), or pixels a box may move (0.5). "
        "fp16, int8: largest loss of IoU (0.001, 0.01) or AP (0.005, 0.01).",
    ),
    limit: int | None = typer.Option(
        None, min=1, help="Validation images to compare on.  \\[default: 50; fp16 and int8: 200]"
    ),
    calibration: int = typer.Option(32, min=1, help="Training images that decide the ranges of int8."),
    down_to: int | None = typer.Option(
        None,
        help="Let predict look at large images again at half their size, a quarter, ..., down to this longer side: objects larger "
        "than those that training showed are found too.",
    ),
    triton: Path | None = typer.Option(None, help="Also write a Triton model repository into this folder."),
) -> None:
    """Write one ONNX file, checked against the PyTorch model on real validation images."""
    import json

    from segdet.export.gate import sentence
    from segdet.export.job import export as run_export

    file = run_export(source, out, data, tolerance, limit, precision, calibration, triton, down_to)
    beside = file.with_suffix(".parity.json")
    compared = json.loads(beside.read_bytes())
    metric = compared.get("iou") or compared.get("ap")
    made = compared.get("quantised")
    how = f"; int8: {made['recipe']}" if made else ""
    output.emit(
        {
            "model": str(file),
            "precision": precision,
            "bytes": file.stat().st_size,
            "parity": str(beside),
            "card": str(file.with_suffix(".md")),
            "agreement": compared["agreement"],
            "delta": metric["delta"],
            **({"recipe": made["recipe"]} if made else {}),
            **{key: value for key, value in compared.items() if key == "passed" or key.startswith("max_")},
        },
        f"{file} ({file.stat().st_size / 1e6:.1f} MB{how}): {sentence(compared)}; details in {beside}",
    )
