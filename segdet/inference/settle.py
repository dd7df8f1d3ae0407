"""Before a large job on `auto`: find out whether OpenVINO may do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segdet.console import say
from segdet.data.images import ImageError, header, read_image
from segdet.inference import choice
from segdet.inference.runtimes import usable_gpu
from segdet.inference.sources import Source

_LARGEST = 4_000_000  # pixels of an image looked at


def settled(model: Path, device: str, sources: Sequence[Source], threads: int | None = None) -> str:
    """The device, after looking at some of the images when `auto` has to choose between ONNX Runtime and OpenVINO.

    For a few images ONNX Runtime is ready sooner: it starts in a third of the time.
    """
    if device != "auto" or not choice.installed() or not model.is_file():
        return device
    if usable_gpu():
        return device
    if len(sources) < choice.WORTH and not any(source.is_video for source in sources):
        return "cpu"
    if choice.verdict(model) is None and len(images := _some(sources)) == choice.IMAGES:
        found = choice.settle(model, images, threads)
        if "pixels" in found:
            differ = f"at most {found['pixels']:.3%} of an image's pixels differ, IoU of both masks {found['iou']:.3f}"
        else:
            differ = found.get("reason") or f"{found['boxes']} of {found['compared']} boxes differ"
        chosen = "is used from now on" if found["agrees"] else "is not used"
        say(f"OpenVINO on {choice.IMAGES} of the images: {differ}; it {chosen} for this model")
    return device


def _some(sources: Sequence[Source]) -> list[np.ndarray]:
    """Some images from all over the job, as far as they can be read."""
    images: list[np.ndarray] = []
    for place in np.linspace(0, len(sources) - 1, 2 * choice.IMAGES).astype(int).tolist():
        source = sources[place]
        if source.is_video or source.data is not None or len(images) == choice.IMAGES:
            continue
        try:
            height, width = header(source.path).size
            if height * width <= _LARGEST:
                images.append(read_image(source.path))
        except ImageError:
            continue
    return images
