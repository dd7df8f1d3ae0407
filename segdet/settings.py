"""Settings declared once: name, type, range, default, help and group of each option of a command.

A command's settings are one class below `Settings`. The command line, `--help`, `config.yaml`, the table in the
documentation and the stub of the Python API are derived from it, so a new setting is one new line.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from segdet.errors import InputError, InvalidOption, nearest


def option(
    default: Any,
    help: str,
    *,
    group: str = "Options",
    option: str = "",
    shown_default: str = "",
    unit: int = 1,
    metavar: str = "",
    argument: bool = False,
    **limits: Any,
) -> Any:
    """Declare one setting of a `Settings` class.

    Args:
        default: its value when the user says nothing; None means "depends" (see `shown_default`). `...` makes it required.
        help: one or two sentences for a person.
        group: the panel of `--help` it is listed in.
        option: its name on the command line where that differs from the field's name, without dashes.
        shown_default: what to show as the default where that is not the default's own text.
        unit: the value in the field is this many times the value that a user writes (megabytes to bytes).
        metavar: how to write a value, such as NAME=SHARE.
        argument: written without a name on the command line.
        limits: `ge`, `gt`, `le` and `lt`, as of `pydantic.Field`.
    """
    extra: dict[str, Any] = {
        "group": group,
        "option": option,
        "shown_default": shown_default,
        "unit": unit,
        "metavar": metavar,
        "argument": argument,
    }
    return Field(default, description=help, json_schema_extra=extra, **limits)


@dataclass(frozen=True)
class Declared:
    """One setting, as its class declares it.

    Attributes:
        name: of the Python parameter and of the key in `config.yaml`.
        option: on the command line, without dashes.
        kind: the type without None: bool, int, float, str, Path or list.
        choices: the words it can be; empty when any value of its type can be.
        metavar: how to write a value; empty for the type's name.
        default: None when it depends.
        shown_default: the default as text; empty when there is none to show.
        help: one or two sentences.
        group: of settings that belong together.
        unit: the field's value is this many times what a user writes.
        argument: written without a name on the command line.
        annotation: the type as Python code.
        limits: the range as text, such as "at least 1"; empty when there is none.
    """

    name: str
    option: str
    kind: type
    choices: tuple[str, ...]
    metavar: str
    default: Any
    shown_default: str
    help: str
    group: str
    unit: int
    argument: bool
    annotation: str
    limits: str


class Settings(BaseModel):
    """Base class of every command's settings. Unknown keys are refused with a suggestion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def declared(cls) -> Iterator[Declared]:
        """Every setting in the order of its declaration."""
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "group" in extra:
                yield _declared(cls, name, field, extra)

    @classmethod
    def shown_default(cls, name: str, default: Any, unit: int = 1) -> str:
        """The default of a setting as text; classes override it where the default depends on another setting."""
        if default is None or isinstance(default, bool) or default in ({}, [], (), "") or name not in cls.model_fields:
            return ""
        return f"{default / unit:g}" if isinstance(default, float) or unit != 1 else str(default)

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Validate options; None means that the user said nothing.

        Raises:
            InvalidOption: a value out of range or of another type.
            InputError: an unknown key, or a required one that is missing.
        """
        present = {key: value for key, value in options.items() if value is not None}
        try:
            return cls(**present)
        except ValidationError as error:
            raise cls._error(error) from error

    @classmethod
    def _error(cls, error: ValidationError) -> InputError:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            return InputError(f"{key}: no such setting{nearest(key, cls.model_fields)}")
        if first["type"] == "missing":
            return InputError(f"{key}: this setting is missing; set it")
        unit = next((one.unit for one in cls.declared() if one.name == key), 1)
        return InvalidOption(key, _written(first.get("input"), unit), _reason(dict(first), unit))


def _written(value: Any, unit: int) -> Any:
    """A value as the user wrote it."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if unit != 1 and isinstance(value, int | float):
        return f"{value / unit:g}"
    return value


_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_REASONS = {
    "greater_than_equal": "ge",
    "greater_than": "gt",
    "less_than_equal": "le",
    "less_than": "lt",
}
_KINDS = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number, not NaN or infinity",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "dict_type": "a mapping",
    "list_type": "a list",
}


def _reason(error: dict[str, Any], unit: int) -> str:
    """What is wrong with a value, in plain words."""
    kind = error["type"]
    if kind in _REASONS:
        limit = error["ctx"][_REASONS[kind]]
        return f"must be {_LIMITS[_REASONS[kind]]} {limit / unit:g}"
    if kind == "literal_error":
        words = error["ctx"]["expected"].replace("'", "")
        return f"must be {words}{nearest(str(error['input']), words.replace(' or ', ', ').split(', '))}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return str(error["msg"]).removeprefix("Value error, ")


def _declared(cls: type[Settings], name: str, field: FieldInfo, extra: dict[str, Any]) -> Declared:
    kind, choices, metavar = _kind(field.annotation)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    limits = []
    for constraint in field.metadata:
        limits += [
            f"{words} {getattr(constraint, key) / extra['unit']:g}"
            for key, words in _LIMITS.items()
            if getattr(constraint, key, None) is not None
        ]
    return Declared(
        name=name,
        option=extra["option"] or name.replace("_", "-"),
        kind=kind,
        choices=choices,
        metavar=extra["metavar"] or metavar,
        default=default,
        shown_default=extra["shown_default"] or cls.shown_default(name, default, extra["unit"]),
        help=field.description or "",
        group=extra["group"],
        unit=extra["unit"],
        argument=extra["argument"],
        annotation=annotation_text(field.annotation),
        limits=" and ".join(limits),
    )


def _kind(annotation: Any) -> tuple[type, tuple[str, ...], str]:
    """The type without None, the words it can be, and how to write a value."""
    members = [one for one in _members(annotation) if one is not type(None)]
    words = tuple(str(word) for one in members if get_origin(one) is Literal for word in get_args(one))
    others = [one for one in members if get_origin(one) is not Literal]
    if words and not others:
        return str, words, "|".join(words)
    if words:
        return str, (), "|".join(["N", *words])
    first = others[0]
    origin = get_origin(first) or first
    if origin in (list, tuple, dict):
        return list, (), ""
    return (origin if origin in (bool, int, float, str, Path) else str), (), ""


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def annotation_text(annotation: Any) -> str:
    """A type as Python code, for stubs and tables."""
    if annotation is type(None):
        return "None"
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(annotation_text(one) for one in get_args(annotation))
    if get_origin(annotation) is Literal:
        return f"Literal[{', '.join(repr(word) for word in get_args(annotation))}]"
    if get_origin(annotation) is not None:
        inner = ", ".join("..." if one is ... else annotation_text(one) for one in get_args(annotation))
        return f"{get_origin(annotation).__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))
