"""Class names in YAML files, as the file spells them: `on`, `No`, `null` and `1e3` are names, not values."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from segdet.data.formats.base import Malformed, read_text

_EXAMPLE = "write names: [crack, spalling] or, by number, names: {0: crack, 1: spalling}"
_NUMBER = re.compile(r"([+-]?[0-9]+)(\.0*)?")


def in_yaml(file: Path, keys: tuple[str, ...] = ("names",)) -> dict[int, str]:
    """Names by class number from the first of these keys that a valid YAML file holds; empty where it holds none.

    Raises:
        Malformed: the value is no list or mapping of names, or a name is blank or repeated.
    """
    root = yaml.compose(read_text(file, "a YAML mapping"), yaml.SafeLoader)
    top = root.value if isinstance(root, yaml.MappingNode) else []
    nodes = {key.value: value for key, value in top if isinstance(key, yaml.ScalarNode)}
    key = next((key for key in keys if key in nodes and not _blank(nodes[key])), None)
    if key is None:
        return {}
    names: dict[int, str] = {}
    for number, name in _entries(nodes[key], file, key):
        if not name:
            raise Malformed(file, f"class {number} in `{key}` has a blank name; name it")
        if number in names:
            raise Malformed(file, f"`{key}` names class {number} twice: {names[number]!r} and {name!r}; remove one")
        if name in names.values():
            twin = next(other for other, known in names.items() if known == name)
            raise Malformed(file, f"classes {twin} and {number} in `{key}` are both {name!r}; give each its own name")
        names[number] = name
    return names


def whole(value: object) -> int | None:
    """A number that is whole, however it is written (2, "2", 2.0, "002"), else None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    match = _NUMBER.fullmatch(text) if len(text) <= 40 else None  # `int` refuses thousands of digits
    return int(match[1]) if match and not isinstance(value, bool) else None


def _entries(node: yaml.Node, file: Path, key: str, nested: bool = False) -> list[tuple[int, str]]:
    """(number, name) in the order of the file."""
    if isinstance(node, yaml.ScalarNode):
        return _one_string(node.value, file, key, nested)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, file, key)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _unreadable(file, key)
    if all(isinstance(entry, yaml.ScalarNode) for entry in node.value):
        return [(index, _text(entry)) for index, entry in enumerate(node.value)]
    if not all(isinstance(entry, yaml.MappingNode) for entry in node.value):
        raise _unreadable(file, key)
    found = []
    for index, entry in enumerate(node.value):
        fields = {part.value: value for part, value in entry.value if isinstance(value, yaml.ScalarNode)}
        if "name" in fields:  # {id: 0, name: crack}
            number = whole(next((fields[k].value for k in ("id", "index") if k in fields), index))
            if number is None:
                raise _unreadable(file, key)
            found.append((number, _text(fields["name"])))
        else:
            found += _mapping(entry, file, key)
    return found


def _mapping(node: yaml.MappingNode, file: Path, key: str) -> list[tuple[int, str]]:
    """`0: crack`, or turned around, `crack: 0`."""
    if not node.value or not all(isinstance(part, yaml.ScalarNode) for pair in node.value for part in pair):
        raise _unreadable(file, key)
    for pairs in (node.value, [(value, name) for name, value in node.value]):
        numbers = [whole(number.value) for number, _ in pairs]
        found = [(n, _text(name)) for n, (_, name) in zip(numbers, pairs, strict=True) if n is not None]
        if len(found) == len(pairs):
            return found
    raise _unreadable(file, key)


def _one_string(text: str, file: Path, key: str, nested: bool) -> list[tuple[int, str]]:
    """`names: crack`, or a list that was written in quotes."""
    text = " ".join(text.split())
    if text[:1] in ("[", "{") and not nested:
        try:
            inner = yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError:
            inner = None
        if inner is not None:
            return _entries(inner, file, key, nested=True)
    if re.search(r"[,;\[\]{}]|\.(txt|names|ya?ml|json|csv)$", text):
        raise _unreadable(file, key)
    return [(0, text)]


def _text(node: yaml.ScalarNode) -> str:
    return " ".join(node.value.split())


def _blank(node: yaml.Node) -> bool:
    """`names:` with nothing behind it."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _unreadable(file: Path, key: str) -> Malformed:
    return Malformed(file, f"`{key}` must be a list of class names (or a mapping from numbers to names): {_EXAMPLE}")
