"""Write segdet/__init__.pyi, the types of the public Python API, from the classes that declare the settings.

python scripts/make_stub.py          # writes the file
python scripts/make_stub.py --check  # exit code 1 when the file is out of date
"""

from __future__ import annotations

import subprocess
import sys
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import segdet
from segdet import api

FILE = Path(segdet.__file__).with_suffix(".pyi")
FUNCTIONS = ("train", "evaluate", "export", "load", "predict", "open_dataset")


def stub() -> str:
    """The content of the file."""
    lines = [
        "# Written by scripts/make_stub.py; do not edit.",
        "from collections.abc import Sequence",
        "from pathlib import Path",
        "from typing import Any, Literal",
        "",
    ]
    imported = {name: home for name, home in segdet.HOMES.items() if home != "segdet.api"}
    imported["__version__"] = "segdet.version"
    for name, home in sorted(imported.items(), key=lambda pair: (pair[1], pair[0])):
        lines.append(f"from {home} import {name} as {name}")
    lines.append("")
    for name in FUNCTIONS:
        function = getattr(api, name)
        lines += [*_definition(name, function), ""]
    lines += ["__all__ = [", *(f"    {name!r}," for name in sorted(segdet.__all__)), "]", ""]
    return _formatted("\n".join(lines))


def _formatted(text: str) -> str:
    command = ["ruff", "format", "--stdin-filename", str(FILE), "-"]
    module = [sys.executable, "-m", *command]
    return subprocess.run(module, input=text, capture_output=True, text=True, check=True).stdout


def _definition(name: str, function: Any) -> list[str]:
    described = signature(function)
    lines = [f"def {name}("]
    star = False
    for parameter in described.parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and not star:
            lines.append("    *,")
            star = True
        default = "" if parameter.default is Parameter.empty else f" = {parameter.default!r}"
        lines.append(f"    {parameter.name}: {parameter.annotation}{default},")
    return [*lines, f") -> {described.return_annotation}: ..."]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(FILE.read_text() != stub())
    FILE.write_text(stub())
    print(FILE)
