"""Exporters: pure functions from a run's records to the formats that other tools read, one file a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..record import Record

Records = Callable[[], Iterator[Record]]
"""Starts a new pass over a run's records, in sorted key order, one in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEntry:
    """One label of a run: a class of the bundle, or a group that the user made of some.

    Attributes:
        id: 1-based id, ``category_id`` in records and exports.
        name: The label as the user named it.
        color: (r, g, b), 0-255.
        threshold: Confidence from which an annotation of this label is exported, in (0, 1].
    """

    id: int
    name: str
    color: tuple[int, int, int]
    threshold: float

    def __post_init__(self) -> None:
        """Reject what no run can have written."""
        if self.id < 1 or not self.name:
            raise InputError("class entry", expected="an id from 1 and a name", found=f"{self.id}, {self.name!r}")
        if len(self.color) != 3 or not all(0 <= channel <= 255 for channel in self.color):
            raise InputError(f"colour of {self.name}", expected="three numbers 0-255", found=repr(self.color))
        if not 0.0 < self.threshold <= 1.0:
            raise InputError(
                f"threshold of {self.name}", expected="a number above 0, up to 1", found=repr(self.threshold)
            )


def class_entries(table: Iterable[Mapping[str, Any]]) -> tuple[ClassEntry, ...]:
    """The labels of a run, from the ``classes`` of its ``run.json``.

    Raises:
        InputError: A row lacks a key, or two rows share an id or a name.
    """
    try:
        entries = tuple(
            ClassEntry(
                id=int(row["id"]),
                name=str(row["name"]),
                color=(int(row["color"][0]), int(row["color"][1]), int(row["color"][2])),
                threshold=float(row["threshold"]),
            )
            for row in table
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "classes in run.json", expected="id, name, color, threshold in every row", found=repr(error)
        ) from error
    if len({entry.id for entry in entries}) < len(entries) or len({entry.name for entry in entries}) < len(entries):
        raise InputError("classes in run.json", expected="ids and names that differ", found="one of them twice")
    return entries


def kept_annotations(record: Mapping[str, Any], classes: Sequence[ClassEntry]) -> list[dict[str, Any]]:
    """The annotations of a record whose confidence reaches their class's threshold, in the record's order.

    Raises:
        InputError: An annotation's ``category_id`` is not among the classes: the record is of another run.
    """
    thresholds = {entry.id: entry.threshold for entry in classes}
    kept = []
    for annotation in record["annotations"]:
        if annotation["category_id"] not in thresholds:
            raise InputError(
                f"record of {record['image']['file_name']}",
                expected=f"category ids {sorted(thresholds)}",
                found=str(annotation["category_id"]),
                do="use the classes of the run that wrote the record",
            )
        if annotation["confidence"] >= thresholds[annotation["category_id"]]:
            kept.append(annotation)
    return kept
