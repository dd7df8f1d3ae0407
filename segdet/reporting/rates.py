"""The picture of a learning-rate range test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt

from segdet.files import write_bytes
from segdet.reporting.plots import png


def rate_test(rates: Sequence[float], losses: Sequence[float], lr: float, path: Path) -> None:
    """Loss over learning rate, with the suggestion marked, as a PNG."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    axis.semilogx(rates, losses, color="#0072b2")
    axis.axvline(lr, color="#d55e00", linestyle="dashed", label=f"suggested: lr {lr:g}")
    low, high = min(losses), losses[0]
    axis.set(
        title="learning-rate range test", xlabel="learning rate", ylabel="loss (running mean)",
        ylim=(low - 0.1 * abs(high - low), high + 0.5 * abs(high - low)),
    )  # fmt: skip
    axis.grid(alpha=0.3)
    axis.legend()
    write_bytes(path, png(figure))
