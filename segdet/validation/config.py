"""The settings of a measurement."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from segdet.settings import Settings, option


class ValConfig(Settings):
    """The settings of `segdet val`."""

    data: str | None = option(None, "Dataset name or folder.", group="Data", shown_default="the one it was trained on")
    split: str = option(
        "val", "val (the threshold is chosen on it) or test (the stored threshold is used).", group="Data"
    )
    exclude_leaks: bool = option(
        False, "Leave out images of objects that training shows too (found by `segdet data check`).", group="Data"
    )
    limit: int | None = option(None, "Use at most this many images.", group="Data", ge=1)
    degrade: str | None = option(
        None, "Degrade the images first: dark, blur, half, jpeg, noise, shadow, or several: dark+blur.", group="Data"
    )
    threshold_rule: str | None = option(
        None,
        "Choose the threshold by max-f1, recall=0.95 or precision=0.9 and store it in the file.",
        group="Threshold",
    )
    imgsz: int | None = option(
        None,
        "Resize images to this side before the network.",
        group="Model",
        ge=32,
        shown_default="their own size, or the detector's",
    )
    device: str = option("cpu", "auto, cpu, cuda or cuda:N.", group="Model")
    workers: int | None = option(None, "Loader processes.", group="Model", shown_default="from the machine", ge=0)
    out: Path | None = option(None, "Also write the metrics to this JSON file.", group="Output")
    report: Path | None = option(None, "Also write the report to this HTML file.", group="Output")

    @field_validator("report")
    @classmethod
    def _is_html(cls, report: Path | None) -> Path | None:
        if report is not None and report.suffix not in (".html", ".htm"):
            raise ValueError("the file's name must end in .html")
        return report
