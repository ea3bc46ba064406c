"""Changes single values of params.yaml as a person would: comments, order and every other byte stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from windvane.tasks import settings
from windvane.tasks.errors import InputError
from windvane.tasks.tables import write_whole

_BOM = "\ufeff"
# `retrain.cost` -> 0.5
Values = Mapping[str, str | float]


def amend(path: Path, wanted: Values) -> dict[str, tuple[Any, str | float]]:
    """Write values of keys such as `retrain.cost` into the file, whole or not at all; (before, now) of those that changed.

    A key that is not there is added to its section, a section at the end of the file. Raises InputError where the file cannot be
    changed so, by way of an alias for instance, and names what to write by hand.
    """
    before = settings.raw(path)
    changed = {key: (_value(before, key), value) for key, value in wanted.items() if _value(before, key) != value}
    if not changed:
        return {}
    text = path.read_bytes().decode("utf-8")
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    for key, (_, value) in changed.items():
        section, name = key.split(".")
        text = _changed(text, section, name, _word(value))
    expected = {name: dict(section) if isinstance(section, dict) else section for name, section in before.items()}
    for key, (_, value) in changed.items():
        section, name = key.split(".")
        expected[section] = {**(expected.get(section) or {}), name: value}
    if _read(text) != expected:
        said = ", ".join(f"{key}: {_word(value)}" for key, (_, value) in changed.items())
        raise InputError(
            f"{path}: is written in a way that cannot be changed without touching the rest. Write {said} yourself"
        )
    settings.parse(expected, path)
    write_whole(path, lambda part: part.write_bytes((bom + text).encode("utf-8")))
    return changed


def _changed(text: str, section: str, name: str, value: str) -> str:
    """The text with one value replaced or added, found by where YAML says that it stands."""
    end = "\r\n" if "\r\n" in text else "\n"
    top = yaml.compose(text, yaml.SafeLoader)
    part = _child(top, section)
    if part is None:
        gap = end if text and not text.endswith("\n") else ""
        return f"{text}{gap}{end}{section}:{end}  {name}: {value}{end}"
    if not isinstance(part, yaml.MappingNode) or not part.value:  # `retrain:` or `retrain: {}`
        return _placed(text, part, f"{{{name}: {value}}}")
    known = _child(part, name)
    if known is not None:
        return _placed(text, known, value)
    first = part.value[0][0].start_mark
    between = ", " if part.flow_style else f"{end}{' ' * first.column}"
    return f"{text[: first.index]}{name}: {value}{between}{text[first.index :]}"


def _placed(text: str, node: Any, value: str) -> str:
    """The text with a value in a node's place; a comment behind it stays in its column where it can."""
    before, rest = text[: node.start_mark.index], text[node.end_mark.index :]
    said = value if before[-1:].isspace() else f" {value}"
    spaces = len(rest) - len(rest.lstrip(" "))
    if rest[spaces : spaces + 1] == "#":
        longer = len(said) - (node.end_mark.index - node.start_mark.index)
        rest = " " * max(spaces - longer, 1) + rest[spaces:]
    return before + said + rest


def _child(node: Any, name: str) -> Any:
    """The value below a key of a mapping; None: it is not there."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _value(content: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    part = content.get(section)
    return part.get(name) if isinstance(part, dict) else None


def _word(value: str | float) -> str:
    """As YAML reads it back: bare where that is enough."""
    text = str(value) if isinstance(value, str) or float(f"{value:g}") != value else f"{value:g}"
    return text if yaml.safe_load(text) == value else f'"{text}"'
