"""Write the files that are derived from the classes that declare the settings.

python scripts/make_derived.py          # writes segdet/__init__.pyi and docs/settings.md
python scripts/make_derived.py --check  # exit code 1 when one of them is out of date
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import segdet
from segdet import api
from segdet.exporting.config import ExportConfig
from segdet.inference.config import PredictConfig
from segdet.serving.settings import ServeConfig
from segdet.settings import Settings
from segdet.training.config import TrainConfig
from segdet.validation.config import ValConfig

ROOT = Path(segdet.__file__).parent.parent
FUNCTIONS = ("train", "evaluate", "export", "load", "predict", "open_dataset")
COMMANDS: dict[str, type[Settings]] = {
    "train": TrainConfig,
    "val": ValConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
    "serve": ServeConfig,
}


def stub() -> str:
    """The types of the public Python API."""
    lines = [
        "# Written by scripts/make_derived.py; do not edit.",
        "from collections.abc import Sequence",
        "from pathlib import Path",
        "from typing import Literal",
        "",
    ]
    imported = {name: home for name, home in segdet.HOMES.items() if home != "segdet.api"}
    imported["__version__"] = "segdet.version"
    for name, home in sorted(imported.items(), key=lambda pair: (pair[1], pair[0])):
        lines.append(f"from {home} import {name} as {name}")
    lines.append("")
    for name in FUNCTIONS:
        lines += [*_definition(name, getattr(api, name)), ""]
    lines += ["__all__ = [", *(f"    {name!r}," for name in sorted(segdet.__all__)), "]", ""]
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "__init__.pyi", "-"]
    text = "\n".join(lines)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def _definition(name: str, function: Any) -> Iterator[str]:
    described = signature(function)
    yield f"def {name}("
    star = False
    for parameter in described.parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and not star:
            yield "    *,"
            star = True
        default = "" if parameter.default is Parameter.empty else f" = {parameter.default!r}"
        yield f"    {parameter.name}: {parameter.annotation}{default},"
    yield f") -> {described.return_annotation}: ..."


def tables() -> str:
    """Every setting of every command, as Markdown."""
    lines = [
        "# Settings",
        "",
        "Every setting of the commands, written by `scripts/make_derived.py` from the classes that declare them.",
        "The same names are the parameters of `segdet.train`, `evaluate`, `export` and `predict`, and the keys of",
        "`config.yaml`. `segdet COMMAND --help` shows the same text.",
    ]
    for command, config in COMMANDS.items():
        lines += ["", f"## segdet {command}"]
        groups: dict[str, list[str]] = {}
        for one in config.declared():
            option = one.name.upper() if one.argument else f"`--{one.option}`"
            name = "" if one.name.replace("_", "-") == one.option else f" (Python: `{one.name}`)"
            value = "/".join(one.choices) if one.choices else one.kind.__name__
            limits = f", {one.limits}" if one.limits else ""
            default = one.shown_default.replace("|", "\\|")
            text = one.help.replace("|", "\\|")
            groups.setdefault(one.group, []).append(f"| {option}{name} | {value}{limits} | {default} | {text} |")
        for group, rows in groups.items():
            lines += ["", f"### {group}", "", "| option | value | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


FILES = {ROOT / "segdet" / "__init__.pyi": stub, ROOT / "docs" / "settings.md": tables}


def outdated() -> list[Path]:
    """The files whose content is not what the declarations say."""
    return [file for file, make in FILES.items() if not file.is_file() or file.read_text(encoding="utf-8") != make()]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(len(outdated()))
    for file, make in FILES.items():
        file.write_text(make(), encoding="utf-8")
        print(file.relative_to(ROOT))
