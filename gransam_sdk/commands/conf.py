"""The ``--conf`` option: one threshold for all classes, thresholds by class, or both."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

import typer

from ..errors import InputError

Conf: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--conf",
        metavar="P|CLASS=P",
        help="Confidence from which a mask counts, above 0 and up to 1; for one class: cat=0.4. May be repeated; "
        "each class's own threshold by default.",
    ),
]


def parse_conf(values: list[str] | None) -> tuple[float | None, dict[str, float]]:
    """The threshold for all classes, if any, and those by class name.

    Args:
        values: Each ``0.5`` or ``cat=0.5``.

    Raises:
        InputError: Not a number above 0 and up to 1, or said twice.
    """
    conf: float | None = None
    by_class: dict[str, float] = {}
    for value in values or ():
        name, equals, number = value.rpartition("=")
        threshold = _fraction(value, number)
        if (name in by_class) if equals else conf is not None:
            raise InputError("--conf", expected="each threshold once", found=f"{value!r} as well")
        if not equals:
            conf = threshold
        elif name:
            by_class[name] = threshold
        else:
            raise InputError("--conf", expected="P or CLASS=P", found=repr(value))
    return conf, by_class


def _fraction(value: str, number: str) -> float:
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not 0.0 < threshold <= 1.0:  # nan fails too
        raise InputError("--conf", expected="a number above 0, up to 1, or CLASS=number", found=repr(value))
    return threshold
