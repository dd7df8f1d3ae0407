"""Where numbers come from: the command, the versions and the machine, written down while they are known."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from segdet.files import write_json
from segdet.machine import cores, processor
from segdet.version import __version__

FILE = "provenance.json"

# What decides numbers: arithmetic, models, decoding, augmentation, scoring.
_PACKAGES = (
    "torch", "torchvision", "timm", "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless", "pillow", "albumentations",
    "scikit-image", "faster-coco-eval",
)  # fmt: skip


def here(**more: Any) -> dict[str, Any]:
    """Command, folder, versions and machine of this process, and whatever else is given."""
    return {
        "command": command(),
        "folder": str(Path.cwd()),
        "machine": f"{platform.platform()}, {processor()}, {cores()} cores",
        "versions": {"segdet": __version__, "python": platform.python_version(), **_versions()},
        **more,
    }


def command() -> str:
    """The command line as a user would type it again."""
    program = Path(sys.argv[0])
    ours = program.name in ("segdet", "__main__.py") and (program.name == "segdet" or program.parent.name == "segdet")
    return shlex.join(["segdet", *sys.argv[1:]] if ours else ["python", *sys.argv])


def write(run: Path, **more: Any) -> None:
    """Write `provenance.json` into a run folder."""
    write_json(run / FILE, here(**more))


def read(run: Path | None) -> Mapping[str, Any]:
    """What a run folder says; empty where it says nothing."""
    try:
        content = json.loads((run / FILE).read_bytes()) if run is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
