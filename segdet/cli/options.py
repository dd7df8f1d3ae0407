"""Options of a command, derived from the class that declares its settings."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Any, get_type_hints

import typer

from segdet.settings import Declared, Settings

NAMES: dict[str, str] = {}  # settings whose option has another name, of the commands that are loaded


def from_settings(config: type[Settings], *, without: tuple[str, ...] = ()) -> Callable[..., Callable[..., None]]:
    """Make a command whose options are the settings of `config`, followed by the function's own parameters.

    Args:
        config: declares the settings.
        without: names of settings that the command does not offer.

    Returns:
        A decorator. The function gets the settings that the user wrote as its first argument, a dict by name.
    """
    declared = [one for one in config.declared() if one.name not in without]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(signature(function).parameters.values())[1:]
        hints = get_type_hints(function)

        def command(**values: Any) -> None:
            written = {one.name: values.pop(one.name) for one in declared}
            function(
                {
                    one.name: _scaled(written[one.name], one.unit)
                    for one in declared
                    if written[one.name] not in (None, [])
                },
                **values,
            )

        parameters = [_parameter(one) for one in declared]
        parameters += [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        parameters.sort(key=lambda parameter: not isinstance(parameter.default, typer.models.ArgumentInfo))
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        NAMES.update({one.name: one.option for one in declared if one.option != one.name.replace("_", "-")})
        return command

    return decorate


def option_name(name: str) -> str:
    """The option of a setting, with dashes."""
    return f"--{NAMES.get(name, name.replace('_', '-'))}"


def _scaled(value: Any, unit: int) -> Any:
    return value if unit == 1 or value is None else value * unit


def _parameter(one: Declared) -> Parameter:
    kind: Any = {
        bool: bool | None,
        int: int | None,
        float: float | None,
        Path: Path | None,
        list: list[str] | None,
    }.get(one.kind, str | None)
    if one.unit != 1:
        kind = float | None
    text = one.help + (f"  \\[default: {one.shown_default}]" if one.shown_default else "")
    metavar = one.metavar or None
    if one.argument:
        info = typer.Argument(None, help=text, show_default=False, metavar=metavar)
    else:
        name = f"--{one.option}"
        # A switch that is off unless the user says otherwise needs no --no-... form.
        names = [f"{name}/--no-{one.option}"] if one.kind is bool and one.default is None else [name]
        info = typer.Option(None, *names, help=text, rich_help_panel=one.group, show_default=False, metavar=metavar)
    return Parameter(one.name, Parameter.KEYWORD_ONLY, default=info, annotation=kind)
