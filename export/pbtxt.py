"""Protobuf's text format, as much of it as a Triton model configuration needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias


class Word(str):
    """A name of an enumeration, written without quotes."""


Message: TypeAlias = Mapping[str, Any]
"""Field name to text, whole number, ``Word`` or message; a list of these for a repeated field."""


def to_text(message: Message) -> str:
    """A message as text, one field a line, in the order given; the same message gives the same bytes.

    Args:
        message: What to write.

    Returns:
        ASCII text; what is not ASCII is written as the octal escapes of its UTF-8.
    """
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        items: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
        for item in items:
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(item, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: str | int) -> str:
    if isinstance(value, Word | int):
        return str(value)
    return '"' + "".join(_escape(byte) for byte in value.encode()) + '"'


def _escape(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in '"\\' else f"\\{byte:03o}"
