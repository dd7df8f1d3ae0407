"""`segdet models`"""

from __future__ import annotations

import typer

from segdet.cli import output


def models(
    arch: str | None = typer.Argument(None, help="Only this architecture.", show_default=False),
    backbone: str | None = typer.Option(None, help="Only this timm backbone (any, also one that is not in the list)."),
    imgsz: int = typer.Option(416, min=32, help="Image side for the GFLOPs."),
) -> None:
    """Architectures and tested backbones: parameters, GFLOPs, stride of the finest answer, where weights come from."""
    from segdet.console import progress
    from segdet.models import survey
    from segdet.models.registry import build_model

    pairs = survey.pairs(arch, backbone)
    with progress("measuring", len(pairs)) as advance:
        found = []
        for pair in pairs:
            row = survey.measure(*pair, imgsz)
            if row is not None:
                found.append(row)
            advance(1)
    if not found:  # the backbone that was named fits none of them; building says why
        build_model(*pairs[0], ["object"], "none", {}, imgsz)
    lines: list[tuple[str, ...]] = [("arch", "backbone", "M params", f"GFLOPs at {imgsz}", "stride", "weights")]
    for row in found:
        lines.append(
            (
                row["arch"],
                row["backbone"],
                f"{row['parameters'] / 1e6:.1f}",
                f"{row['gflops']:.1f}",
                str(row["stride"]),
                row["weights"],
            )
        )
    output.emit({"imgsz": imgsz, "models": found}, output.table(lines))
