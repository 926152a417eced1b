"""JSON from others, read without surprises: one meaning for every file, and an error that names the key."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from .errors import BundleError

_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that cannot be seen, or break a line or a terminal."""


def parse_json(data: bytes, what: str) -> object:
    """Parses one JSON document.

    Raises:
        BundleError: Not UTF-8, not JSON, a key given twice, NaN or Infinity, or nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        found = "thousands of nested brackets"
    except ValueError as error:  # also UnicodeDecodeError, JSONDecodeError, and integers too long for Python
        found = str(error)
    raise BundleError(what, expected="a JSON object in UTF-8", found=found, do="fetch the bundle again")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"key {key!r} twice")
        table[key] = value
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not a JSON number")


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a JSON document together with where it stands, so that an error can say so.

    Attributes:
        value: The parsed value.
        where: File and path to it: ``gransam.json: classes[3].name``.
    """

    value: object
    where: str

    def wrong(self, expected: str, found: str | None = None, do: str = "") -> BundleError:
        """The error that this value is not what was expected."""
        shown = repr(self.value) if found is None else found
        return BundleError(
            self.where, expected=expected, found=shown if len(shown) <= 120 else f"{shown[:117]}...", do=do
        )

    def keys(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Field]:
        """The fields of an object that has all required keys and none that is unknown."""
        table = self.table()
        missing = [key for key in required if key not in table]
        unknown = [key for key in table if key not in required and key not in optional]
        if missing or unknown:
            found = [f"no {key!r}" for key in missing] + [f"unknown key {key!r}" for key in unknown]
            raise self.wrong(f"the keys {', '.join(required)}", "; ".join(found), "see docs/bundle-format.md")
        return table

    def table(self) -> dict[str, Field]:
        """The fields of an object."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        dot = "." if ": " in self.where else ": "
        return {key: Field(item, f"{self.where}{dot}{key}") for key, item in self.value.items()}

    def items(self, low: int, high: int) -> list[Field]:
        """The fields of an array of ``low`` to ``high`` values."""
        if not isinstance(self.value, list):
            raise self.wrong(_amount(low, high))
        if not low <= len(self.value) <= high:
            raise self.wrong(_amount(low, high), f"{len(self.value)}")
        return [Field(item, f"{self.where}[{i}]") for i, item in enumerate(self.value)]

    def text(self, limit: int = 200, pattern: str = "", like: str = "") -> str:
        """A visible string of 1 to ``limit`` characters; all of it matches ``pattern``, in words ``like``."""
        if not isinstance(self.value, str):
            raise self.wrong("a string")
        if not 1 <= len(self.value) <= limit:
            raise self.wrong(f"1 to {limit} characters", f"{len(self.value)} characters")
        if self.value != self.value.strip() or any(unicodedata.category(c) in _FORBIDDEN for c in self.value):
            raise self.wrong("text without control characters or blanks at its ends", ascii(self.value))
        if pattern and not re.fullmatch(pattern, self.value):
            raise self.wrong(like, ascii(self.value))
        return self.value

    def one_of(self, known: Sequence[str]) -> str:
        """One of a few words."""
        if not isinstance(self.value, str) or self.value not in known:
            raise self.wrong(" | ".join(known))
        return self.value

    def whole(self, low: int, high: int) -> int:
        """An integer from ``low`` to ``high``."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            raise self.wrong(f"a whole number from {low} to {high}")
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
        """A finite number from ``low`` to ``high``; ``above`` shuts ``low`` itself out."""
        span = f"a number {'above' if above else 'from'} {low} to {high}" if math.isfinite(low) else "a finite number"
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong(span)
        if abs(self.value) > 1e300 or not low <= self.value <= high or (above and self.value == low):
            raise self.wrong(span)  # NaN and 1e999 (which JSON reads as infinity) fail here too
        return float(self.value)


def _amount(low: int, high: int) -> str:
    return f"an array of {low}" if low == high else f"an array of {low} to {high}"
