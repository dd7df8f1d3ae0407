"""Which device runs a model: `auto` is a CUDA GPU, OpenVINO where it agrees with ONNX Runtime, or the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segdet.console import say
from segdet.data.images import ImageError, header, read_image
from segdet.errors import SegdetError
from segdet.inference.backends import agreement
from segdet.inference.backends.onnxruntime import usable_gpu
from segdet.inference.backends.session import Session, open_on
from segdet.inference.io.sources import Source

_LARGEST = 4_000_000  # pixels of an image looked at


def open_session(path: Path, device: str = "auto", threads: int | None = None) -> Session:
    """Open an ONNX file that segdet exported.

    Args:
        device: as `session.open_on`; the session runs on it or an error is raised. auto: a CUDA GPU; else OpenVINO where
            it is installed and is known to agree with ONNX Runtime on this machine (`agreement`); else ONNX Runtime on
            the processor.
        threads: of one inference (default: all cores).

    Raises:
        InputError: no such file, not ONNX, or not a file of segdet.
        InvalidOption: a device that does not exist or cannot be used.
    """
    if device == "auto" and path.is_file():
        device = "cuda" if usable_gpu() else "openvino" if agreement.verdict(path) else "cpu"
    return open_on(path, "cpu" if device == "auto" else device, threads)


def compare_runtimes(model: Path, images: Sequence[np.ndarray], threads: int | None = None) -> dict[str, Any]:
    """Compare OpenVINO with ONNX Runtime on `images` (RGB uint8 `[H, W, 3]`), and keep the verdict.

    Returns:
        agrees, images, and what differed: `pixels` (largest fraction on an image) and `iou`, or `boxes` (without a twin).
    """
    reference = open_on(model, "cpu", threads)
    try:
        found = agreement.compare(reference, open_on(model, "openvino", threads), images)
    except SegdetError as error:
        found = {"agrees": False, "reason": str(error)}
    agreement.remember(model, found)
    return found


def select_device(model: Path, device: str, sources: Sequence[Source], threads: int | None = None) -> str:
    """The device, after looking at some of the images when `auto` has to choose between ONNX Runtime and OpenVINO.

    For a few images ONNX Runtime is ready sooner: it starts in a third of the time.
    """
    if device != "auto" or not agreement.installed() or not model.is_file():
        return device
    if usable_gpu():
        return device
    if len(sources) < agreement.WORTH and not any(source.is_video for source in sources):
        return "cpu"
    if agreement.verdict(model) is None and len(images := _some(sources)) == agreement.IMAGES:
        found = compare_runtimes(model, images, threads)
        if "pixels" in found:
            differ = f"at most {found['pixels']:.3%} of an image's pixels differ, IoU of both masks {found['iou']:.3f}"
        else:
            differ = found.get("reason") or f"{found['boxes']} of {found['compared']} boxes differ"
        verdict = "using it" if found["agrees"] else "not using it"
        say(f"OpenVINO against ONNX Runtime on {agreement.IMAGES} images: {differ}; {verdict} for this model")
    return device


def _some(sources: Sequence[Source]) -> list[np.ndarray]:
    """Some images from all over the job, as far as they can be read."""
    images: list[np.ndarray] = []
    for place in np.linspace(0, len(sources) - 1, 2 * agreement.IMAGES).astype(int).tolist():
        source = sources[place]
        if source.is_video or source.data is not None or len(images) == agreement.IMAGES:
            continue
        try:
            height, width = header(source.path).size
            if height * width <= _LARGEST:
                images.append(read_image(source.path))
        except ImageError:
            continue
    return images
