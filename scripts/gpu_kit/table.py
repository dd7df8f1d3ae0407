"""The rows as a page of Markdown and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def page(rows: Sequence[Row]) -> str:
    """Markdown tables of what was measured, what was left out, and what failed."""
    parts = [
        _machine(rows),
        _correct(rows),
        _speed(rows),
        _training(rows),
        _serving(rows),
        _learning(rows),
        _missing(rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; empty when it has no lines."""
    body = ["| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines]
    if not body:
        return ""
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body])


def _titled(title: str, *parts: str) -> str:
    text = "\n\n".join(part for part in parts if part)
    return f"## {title}\n\n{text}" if text else ""


def _of(rows: Sequence[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part and "left_out" not in row and "error" not in row]


def _machine(rows: Sequence[Row]) -> str:
    known = {key: value for row in _of(rows, "machine") for key, value in row.items()}
    if not known:
        return ""
    gpu = known.get("gpu") or "no GPU"
    packages = ", ".join(f"{name} {version}" for name, version in known.get("packages", {}).items())
    lines = [
        f"{gpu}; {known.get('processor')}; driver: {known.get('driver')}",
        f"Python {known.get('python')}; {packages}",
        f"PyTorch for CUDA {known.get('cuda')}, cuDNN {known.get('cudnn')}; ONNX Runtime for CUDA "
        f"{known.get('built_for_cuda')}: {', '.join(known.get('providers') or ['not installed'])}",
    ]
    return _titled("Machine", "\n".join(f"- {line}" for line in lines))


def _correct(rows: Sequence[Row]) -> str:
    lines = []
    for row in _of(rows, "correct"):
        if row["step"] not in ("torch", "onnx"):
            continue
        where = f"PyTorch {row['precision']}" if row["step"] == "torch" else f"{row['provider']} {row['precision']}"
        if "max_differing_pixels" in row:
            differ = f"{row['max_differing_pixels']:.4%} of pixels"
        else:
            differ = (
                f"{row['max_box_difference']:.3f} px, score {row['max_score_difference']:.1e}, {row['unmatched']} alone"
            )
        kept = "yes" if row["passed"] else f"NO ({', '.join(row['broken'])})"
        batches = ", ".join(f"{name.split()[1]}: {value:g}" for name, value in row["batches"].items())
        lines.append((row["arch"], where, differ, f"{row['agreement']:.2%}", f"{row['limits']}: {kept}", batches))
    header = ("head", "where", "largest difference", "overlap", "within limits of", "batch against single")
    exports = [
        (row["arch"], "; ".join(row["tensorrt_leaves_out"]) or "nothing")
        for row in _of(rows, "correct")
        if row["step"] == "export"
    ]
    return _titled("Answers", table(header, lines), table(("head", "TensorRT leaves to CUDA (by the list)"), exports))


def _speed(rows: Sequence[Row]) -> str:
    lines = [
        (
            row["arch"], row["size"], row["batch"], row["step"], row["ms"], row["images_per_second"],
            _percent(row.get("copy_share")), _percent(row.get("gpu_busy")), row.get("memory_mb"),
        )
        for row in _of(rows, "speed")
    ]  # fmt: skip
    header = ("head", "size", "batch", "how", "ms", "images/s", "copies", "GPU busy", "MB")
    return _titled("Inference", table(header, lines))


def _training(rows: Sequence[Row]) -> str:
    lines = [
        (
            row["arch"], row["step"], row["precision"], row["imgsz"], row["batch"], row["images_per_second"],
            _percent(row["loader_wait"]), _percent(row.get("gpu_busy")), row.get("peak_memory_mb"),
        )
        for row in _of(rows, "training")
    ]  # fmt: skip
    header = ("head", "how", "precision", "side", "batch", "images/s", "waits for data", "GPU busy", "peak MB")
    return _titled("Training", table(header, lines))


def _serving(rows: Sequence[Row]) -> str:
    lines = [
        (
            row["step"],
            row["size"],
            clients,
            one["per_second"],
            one["p50_ms"],
            one["p99_ms"],
            one["refused"],
            one["failed"],
        )
        for row in _of(rows, "serving")
        for clients, one in row["clients"].items()
    ]
    header = ("server", "size", "clients", "answers/s", "p50 ms", "p99 ms", "refused", "failed")
    return _titled("Serving", table(header, lines))


def _learning(rows: Sequence[Row]) -> str:
    lines = [
        (row["step"], row["first"], row["last"], row.get("iou"), row.get("images_per_second"))
        for row in _of(rows, "learning")
        if "first" in row
    ]
    return _titled("Learning", table(("what", "loss at first", "loss at last", "IoU", "images/s"), lines))


def _missing(rows: Sequence[Row]) -> str:
    def named(row: Row) -> str:
        about = [str(row[key]) for key in ("arch", "size", "batch", "provider", "precision") if key in row]
        return " ".join([row["part"], row["step"], *about])

    failed = [(named(row), row["error"]) for row in rows if "error" in row]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if "left_out" in row:
            reasons.setdefault(row["left_out"], []).append(named(row))
    left = [(reason, len(names), names[0]) for reason, names in reasons.items()]
    return "\n\n".join(
        part
        for part in (
            _titled("Failed", table(("step", "error"), failed)),
            _titled("Left out", table(("why", "steps", "the first"), left)),
        )
        if part
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"


def plot(rows: Sequence[Row], path: Path) -> bool:
    """Images a second of each way to run, for each shape; False when nothing was timed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = _of(rows, "speed")
    shapes = list(dict.fromkeys((row["arch"], row["size"], row["batch"]) for row in timed))
    if not shapes:
        return False
    columns = min(3, len(shapes))
    lines = -(-len(shapes) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(6 * columns, 3 * lines), squeeze=False)
    for axis in axes.flat[len(shapes) :]:
        axis.axis("off")
    for axis, shape in zip(axes.flat, shapes, strict=False):
        of_shape = [row for row in timed if (row["arch"], row["size"], row["batch"]) == shape][::-1]
        axis.barh([row["step"] for row in of_shape], [row["images_per_second"] for row in of_shape], color="#3572a5")
        axis.set_title(f"{shape[0]}, {shape[1]}, batch {shape[2]}", fontsize=9)
        axis.set_xlabel("images/s", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return True
