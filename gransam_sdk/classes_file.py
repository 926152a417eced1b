"""A classes file (TOML, see ``docs/classes.md``), read into what its tables ask for."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError

Color = tuple[int, int, int]
_FILE_KEYS = {  # what a [[class]] table may hold
    "name": "a name",
    "members": "a list of class names",
    "color": '"#rrggbb" or [r, g, b], 0 to 255 each',
    "threshold": "a number above 0, up to 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A label as asked for, not looked up yet; ``where`` is what an error names."""

    where: str
    name: str
    members: tuple[str, ...] | None = None
    color: Color | None = None
    threshold: float | None = None


def read_classes_file(file: Path) -> list[Wish]:
    """Parse a classes file.

    Raises:
        InputError: It cannot be read, or says something that no classes file says.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"classes file {file}", expected="a readable file", found=error.strerror or "") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"classes file {file}", expected="TOML in UTF-8", found=str(error)) from error
    tables = content.pop("class", [])
    for key in content:
        raise InputError(f"classes file {file}", expected="[[class]] tables only", found=f"key {key!r}")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"classes file {file}, key 'class'", expected="[[class]] tables", found=repr(tables)[:60])
    return [_read_table(table, f"classes file {file}, class {number}") for number, table in enumerate(tables, start=1)]


def _read_table(table: dict[str, Any], where: str) -> Wish:
    """One ``[[class]]`` table."""
    for key in sorted(table.keys() - _FILE_KEYS.keys()):
        raise InputError(where, expected=f"keys {', '.join(_FILE_KEYS)}", found=f"key {key!r}")
    name, members, color, threshold = (table.get(key) for key in _FILE_KEYS)  # TOML knows no null: None is absent
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    fine = {
        "name": isinstance(name, str) and bool(name.strip()),
        "members": members is None or (isinstance(members, list) and members and {*map(type, members)} == {str}),
        "color": color is None or _read_color(color) is not None,
        "threshold": threshold is None or (is_number and 0.0 < threshold <= 1.0),
    }
    for key, expected in _FILE_KEYS.items():
        if not fine[key]:
            found = repr(table[key])[:60] if key in table else "no such key"
            raise InputError(f"{where}, key {key!r}", expected=expected, found=found)
    name = str(name).strip()
    return Wish(
        where=f"{where} ({name!r})",
        name=name,
        members=None if members is None else tuple(word.strip() for word in members),
        color=_read_color(color),
        threshold=threshold,
    )


def _read_color(value: object) -> Color | None:
    """``"#rrggbb"`` or [r, g, b]; None if it is neither."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return value[0], value[1], value[2]
    return None
