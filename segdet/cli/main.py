"""The `segdet` command: dispatch, exit codes, and one clear line for every error."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.cli.options import option_name
from segdet.errors import SegdetError, nearest
from segdet.text import ESCAPE
from segdet.version import __version__

# Modules of `segdet.cli` and their functions; a module is imported when its command runs.
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("train", "train"),
    "val": ("val", "val"),
    "compare": ("compare", "compare"),
    "export": ("export", "export"),
    "predict": ("predict", "predict"),
    "serve": ("serve", "serve"),
    "models": ("models", "models"),
    "bench": ("bench", "bench"),
    "doctor": ("doctor", "doctor"),
}
DATA_COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("data", "list_datasets"),
    "info": ("data", "info"),
    "check": ("check", "check"),
    "convert": ("data", "convert"),
    "unpack": ("data", "unpack"),
    "split": ("data", "split"),
    "download": ("download", "download"),
}


def load(place: tuple[str, str]) -> Callable[..., None]:
    """Import a command's function."""
    function: Callable[..., None] = getattr(import_module(f"segdet.cli.{place[0]}"), place[1])
    return function


def build(arguments: Sequence[str]) -> typer.Typer:
    """The application with the command that `arguments` name, or with all of them when they name none."""
    words = [word for word in arguments if not word.startswith("-")]
    app = typer.Typer(
        name="segdet",
        help="From a folder of labelled images to a segmentation or detection model, and to one ONNX file.",
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_globals)
    for name in words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS:
        app.command(name)(load(COMMANDS[name]))
    if words[:1] == ["data"] or words[:1] == [] or words[0] not in COMMANDS:
        data_app = typer.Typer(help="Inspect, check, convert, split and download datasets.", no_args_is_help=True)
        for name in words[1:2] if words[1:2] and words[1] in DATA_COMMANDS else DATA_COMMANDS:
            data_app.command(name)(load(DATA_COMMANDS[name]))
        app.add_typer(data_app, name="data")
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"segdet {__version__}")
        raise typer.Exit


def _globals(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    json: bool = typer.Option(
        False, "--json", help="One JSON object on standard output; everything else on standard error."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Global options, accepted before and after the command (`run` takes them out of the arguments)."""


def main() -> None:
    """Entry point of the `segdet` command."""
    # Idle OpenMP threads must sleep: spinning, they cost seven times the speed as soon as one neighbour is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _use_utf8()
    sys.exit(run(sys.argv[1:]))


def _use_utf8() -> None:
    """Make Python read file names and texts as UTF-8 in an ASCII locale, too, and print what a terminal cannot show as escapes.

    Python decides about file names when it starts, so the command starts once more, in the same process.
    """
    if sys.getfilesystemencoding() in ("ascii", "646") and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0 done, 1 the work failed, 2 wrong usage or bad input."""
    arguments, flags = _take(list(arguments), ("--json", "--debug"))
    output.as_json.set("--json" in flags)
    try:
        code = build(arguments)(_dashed(arguments), prog_name="segdet", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SegdetError as error:
        if "--debug" in flags:
            raise
        return _fail(error.render(_option), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except ModuleNotFoundError as error:
        if "--debug" in flags or (error.name or "segdet").startswith("segdet"):
            raise
        command = " ".join(arguments[:1])
        extra = "serve" if command == "serve" else "train"
        return _fail(
            f"{command} needs the package {error.name}, which prediction does without: pip install 'segdet[{extra}]'", 2
        )
    except OSError as error:  # a full disk, a folder without permission: whatever stood there before is untouched
        if "--debug" in flags:
            raise
        return _fail(f"{error.filename or arguments[0]}: {error.strerror or error}; nothing half-written is left", 1)
    except Exception as error:
        if "--debug" in flags:
            raise
        if hasattr(error, "format_message"):  # typer's usage errors
            return _fail(_usage(error, arguments), 2)
        first = (str(error).splitlines() or [""])[0]
        if "WORLD_SIZE" in os.environ and "closed by peer" in first:  # several processes, and not this one failed first
            return _fail("another process of this command has ended; its own line says why, unless it was killed", 1)
        return _fail(f"unexpected {type(error).__name__}: {first} (run again with --debug and report it)", 1)


def _option(name: str, value: str | None) -> str:
    """A setting as the command line writes it: `--imgsz 320`."""
    if name == "arch":
        return "ARCH" if value is None else f"ARCH {value}"
    return option_name(name) if value is None else f"{option_name(name)} {value}"


def _fail(message: str, code: int) -> int:
    print("segdet: " + " ".join(message.split()), file=sys.stderr, flush=True)
    return code


def _usage(error: Any, arguments: Sequence[str]) -> str:
    message = error.format_message().strip()
    if not message:  # a command group without a command has printed its help
        return "no command given; see segdet --help"
    command = [word for word in arguments[:2] if word in COMMANDS or word in ("data", *DATA_COMMANDS)]
    kind = re.match(r"Invalid value for '(--[\w-]+)'[^:]*: Input should be a valid (\w+)", message)
    if kind and kind[1] in arguments[:-1]:
        message = f"{kind[1]} {arguments[list(arguments).index(kind[1]) + 1]}: not a valid {kind[2]}"
    unknown = re.search(r"No such command '?([\w-]+)'?", message)
    if unknown and "mean" not in message:
        message = message.rstrip(".") + nearest(unknown[1], [*COMMANDS, "data"])
    return f"{message.rstrip('.')}; see {' '.join(['segdet', *command, '--help'])}"


def _take(arguments: list[str], flags: Sequence[str]) -> tuple[list[str], set[str]]:
    """Split global flags from the rest, wherever they stand (before a bare `--`)."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = {argument for argument in arguments[:end] if argument in flags}
    return [a for a in arguments[:end] if a not in flags] + arguments[end:], found


_SWITCH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _is_switch(parameter: Parameter) -> bool:
    return str(parameter.annotation) in (
        "bool",
        "bool | None",
        "<class 'bool'>",
    )  # text where annotations are postponed


def _dashed(arguments: Sequence[str]) -> list[str]:
    """`epochs=10` -> `--epochs 10` where the command has that option: people arrive from tools that write it so.

    A switch is given with `compile=true`, and left out with `compile=false`.
    """
    words = list(arguments)
    commands, start = (DATA_COMMANDS, 2) if words[:1] == ["data"] else (COMMANDS, 1)
    if len(words) < start or words[start - 1] not in commands:
        return words
    parameters = signature(load(commands[words[start - 1]])).parameters
    by_option = {option_name(parameter.name): parameter for parameter in parameters.values()}
    by_option.update({f"--{name.replace('_', '-')}": parameter for name, parameter in parameters.items()})
    out = words[:start]
    for before, word in zip(["", *words[start:]], words[start:], strict=False):
        match = re.fullmatch(r"([a-z_-]+)=(.*)", word, re.DOTALL)
        option = by_option.get(before)
        is_value = option is not None and not _is_switch(option)  # --model model=a.onnx
        named = None if match is None else by_option.get(f"--{match[1].replace('_', '-')}")
        if match is None or named is None or is_value or Path(word).exists():
            out.append(word)
        elif isinstance(named.default, typer.models.ArgumentInfo):
            out.append(match[2])
        elif _is_switch(named) and match[2].lower() in _SWITCH:
            name = option_name(named.name)
            on, off = [name], [name.replace("--", "--no-", 1)] if _has_off(named) else []
            out += on if _SWITCH[match[2].lower()] else off
        else:
            out += [option_name(named.name), match[2]]
    return out


def _has_off(parameter: Parameter) -> bool:
    """Whether a switch has a --no-... form."""
    names = getattr(parameter.default, "param_decls", None) or ()
    return any("/--no-" in name for name in names)
