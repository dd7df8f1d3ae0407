"""Pictures inside LabelMe files: `imageData` holds a copy of the picture, often the only one that people pass on."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path, PurePosixPath
from typing import Any

from segdet.data.formats.base import Malformed, load_json
from segdet.data.formats.layout import holds_lists
from segdet.data.images import ImageError, header, is_image
from segdet.errors import InputError
from segdet.files import replacing

_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}


def has_picture(content: dict[str, Any]) -> bool:
    """Whether the content of a LabelMe file holds a picture."""
    data = content.get("imageData")
    return isinstance(data, str) and len(data) > 100  # shorter than any image


def unpack(root: Path) -> tuple[list[Path], list[str]]:
    """Write the pictures inside the LabelMe files below a folder beside them, except where there is one already.

    Returns:
        The files written, and a line for each file whose picture cannot be written.

    Raises:
        InputError: there is no such folder, or no LabelMe file in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the folder with the LabelMe files")
    files = [file for file in sorted(root.rglob("*.json")) if holds_lists(file, "shapes")]
    if not files:
        raise InputError(f"{root}: no LabelMe file (JSON with a list `shapes`) in it; give the folder that holds them")
    written: list[Path] = []
    problems: list[str] = []
    for file in files:
        try:
            picture = _unpack_one(file)
        except InputError as error:
            problems.append(str(error))
            continue
        if picture is not None:
            written.append(picture)
    return written, problems


def _unpack_one(file: Path) -> Path | None:
    """The picture that was written; None where a picture is beside the file already."""
    content = load_json(file, "save it again or remove it")
    if not isinstance(content, dict):
        raise Malformed(file, "not a LabelMe file")
    said = PurePosixPath(str(content.get("imagePath") or "").replace("\\", "/")).name
    if any(is_image(other) and (other.name == said or other.stem == file.stem) for other in file.parent.iterdir()):
        return None
    if not has_picture(content):
        raise Malformed(
            file, f"neither a picture inside (`imageData`) nor {said[:80] or 'one'} beside it; copy it there"
        )
    try:
        data = base64.b64decode(content["imageData"], validate=True)
        kind = header(data, f"{file}: imageData").kind
    except binascii.Error as error:
        raise Malformed(file, "its `imageData` is not base64; save the file again in LabelMe") from error
    except ImageError as error:
        raise InputError(str(error)) from error
    target = file.with_suffix(_ENDINGS.get(kind, ".png"))
    with replacing(target, durable=False) as temporary:
        temporary.write_bytes(data)
    return target


def advice(file: Path) -> str:
    """How to get the picture out of a LabelMe file whose image is missing."""
    return (
        f"the picture is inside the file (`imageData`); `segdet data unpack {os.fspath(file.parent)}` writes it beside"
    )
