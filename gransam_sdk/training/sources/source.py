"""What every source of example pictures has in common: the folders it fills, the files in them, the report it gives.

    PICTURES/
    ├── red fox/
    │   ├── 0000.jpg        a picture, numbered from 0 in the order in which they came
    │   ├── 0000.json       where it came from
    │   └── ...
    └── badger/

A picture's provenance is written before the picture, each whole or not at all: whenever a run is cut, there is no
picture of unknown origin, and what is there is not made again.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...annotate.disk import open_folder, operate, put_file
from ...errors import InputError, OutputError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""What a file in a class folder must be called to count as a picture; its content decides how it is read."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that no bundle's class name may hold: invisible, or breaking a line or a terminal."""
_MAX_NAME_BYTES = 200
_NUMBER = re.compile(r"[0-9]{4,}")

Progress = Callable[[str, int, int], None]
"""Told (class, pictures there, pictures wanted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """What a source did for one class.

    Attributes:
        name: The class.
        wanted: Pictures asked for.
        made: Pictures that this run added.
        kept: Pictures that were there before.
        skipped: (what, reason) of each candidate that was not taken: an address, a file or a seed, and a short word.
    """

    name: str
    wanted: int
    made: int = 0
    kept: int = 0
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def missing(self) -> int:
        """Pictures that are wanted and not there."""
        return max(0, self.wanted - self.made - self.kept)

    @property
    def reasons(self) -> dict[str, int]:
        """How many were skipped, by reason, the most frequent first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """What a source did.

    Attributes:
        out: The folder with the class folders.
        classes: One report a class, in the order asked for.
    """

    out: Path
    classes: tuple[ClassReport, ...]

    @property
    def missing(self) -> int:
        """Pictures of all classes that are wanted and not there."""
        return sum(found.missing for found in self.classes)

    def lines(self) -> list[str]:
        """One line a class, such as ``badger: 38 of 45 pictures, 30 of them new; skipped 4 duplicate, 1 format``."""
        lines = []
        for found in self.classes:
            new = f", {found.made} of them new" if found.made else ""
            skipped = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
            there = f"{found.name}: {found.made + found.kept} of {found.wanted} pictures{new}"
            lines.append(f"{there}; skipped {skipped}" if skipped else there)
        return lines

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        classes = [
            {
                "name": found.name,
                "wanted": found.wanted,
                "made": found.made,
                "kept": found.kept,
                "missing": found.missing,
                "skipped": [{"what": what, "reason": reason} for what, reason in found.skipped],
            }
            for found in self.classes
        ]
        return {"out": str(self.out), "classes": classes}


class Source(Protocol):
    """Anything that fills class folders with example pictures.

    Attributes:
        name: What provenance calls it.
    """

    name: str

    def collect(
        self, classes: Sequence[str], out: Path, *, per_class: int, progress: Progress | None = None
    ) -> SourceReport:
        """Sees to it that every class has its pictures; goes on from what is there.

        Args:
            classes: Class names; see ``folder_names``.
            out: Folder to fill; one folder a class is made in it.
            per_class: Pictures wanted of each, from 1.
            progress: See ``Progress``.

        Raises:
            InputError: A class name that no folder or bundle can hold, or ``per_class`` under 1.
            OutputError: The disk refused; what was written stays.
        """


def folder_name(class_name: str) -> str:
    """The folder of a class: its name in Unicode's composed form, blanks and emoji included.

    Raises:
        InputError: Empty, over 200 bytes, with a separator, an ``=`` or ``,`` (which mean something after ``-c``), an
            invisible character, a blank at its end, or a ``_`` or ``.`` in front.
    """
    name = unicodedata.normalize("NFC", class_name)
    fault = _fault(name)
    if fault:
        raise InputError(
            f"class name {class_name!a}",
            expected="a name that can be a folder and be typed after -c",
            found=fault,
            do="write it in words: cats and dogs, not cats/dogs",
        )
    return name


def _fault(name: str) -> str:
    """Why a name is no class name; empty if it is one."""
    unseen = [character for character in name if unicodedata.category(character) in _UNSEEN]
    special = [character for character in name if character in "/\\=,"]
    if not name.strip():
        return "an empty name"
    if unseen:
        return f"the invisible character U+{ord(unseen[0]):04X}"
    if special:
        return f"the character {special[0]!r}"
    if name != name.strip():
        return "a blank at its end"
    if name[0] in "_.":
        return f"a {name[0]!r} in front: such folders are no classes"
    if len(name.encode()) > _MAX_NAME_BYTES:
        return f"{len(name.encode())} bytes, more than {_MAX_NAME_BYTES}"
    return ""


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """The folder of each class, in order.

    Raises:
        InputError: No class, one that ``folder_name`` refuses, or two that differ in case at most.
    """
    if isinstance(classes, str) or not classes:
        raise InputError("classes", expected="at least one class name", found=repr(classes), do='name it: -c "red fox"')
    folders: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in classes:
        folder = folder_name(name)
        if folder.casefold() in seen:
            raise InputError("classes", expected="names that differ in more than case", found=f"{name!r} twice")
        seen[folder.casefold()] = folders[name] = folder
    return folders


def check_count(per_class: int) -> None:
    """Rejects a number of pictures that nobody can mean.

    Raises:
        InputError: Not a whole number from 1.
    """
    if isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1:
        raise InputError("pictures per class", expected="a whole number from 1", found=repr(per_class))


def open_class_folder(out: Path, folder: str) -> Path:
    """Makes a class folder if need be, and sweeps unfinished files that a killed run left in it.

    Args:
        out: The folder with the class folders; made too.
        folder: See ``folder_name``.

    Raises:
        OutputError: The disk refused.
    """
    path = out / folder
    open_folder(path)
    return path


def put_picture(folder: Path, number: int, data: bytes, suffix: str, provenance: Mapping[str, Any]) -> Path:
    """Writes one picture, its provenance before it; each appears whole or not at all.

    Args:
        folder: The class folder, there already.
        number: Its number, from 0; no picture of that number may be there.
        data: The file's bytes.
        suffix: One of ``PICTURE_SUFFIXES``.
        provenance: JSON values: the source's name under ``source``, and all that it takes to find or make it again;
            no time, so that the same picture always has the same file.

    Returns:
        The picture's path.

    Raises:
        InputError: Another suffix.
        OutputError: A picture of that number is there, or the disk refused.
    """
    if suffix not in PICTURE_SUFFIXES:
        raise InputError("picture suffix", expected=" ".join(sorted(PICTURE_SUFFIXES)), found=repr(suffix))
    target = folder / f"{number:04d}{suffix}"
    if number in taken_numbers(folder):
        raise OutputError(
            f"output {target}",
            expected=f"no picture of number {number}",
            found="one that is there already",
            do="choose another folder with -o; pictures are never overwritten",
        )
    text = json.dumps(provenance, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    put_file(target.with_suffix(".json"), text.encode() + b"\n")
    put_file(target, data)
    return target


def taken_numbers(folder: Path) -> set[int]:
    """Numbers of the pictures in a class folder, whoever put them there; empty if there is no folder."""
    return {int(path.stem) for path in _numbered(folder)}


def made_pictures(folder: Path) -> dict[int, tuple[Path, dict[str, Any]]]:
    """Pictures of a class folder that a source made: number to (path, provenance), in order.

    Those without readable provenance are somebody else's.
    """
    found = {}
    for path in _numbered(folder):
        provenance = _read_provenance(path.with_suffix(".json"))
        if provenance is not None:
            found[int(path.stem)] = (path, provenance)
    return dict(sorted(found.items()))


def _numbered(folder: Path) -> Iterator[Path]:
    if not operate(folder, folder.is_dir):
        return
    for name in sorted(operate(folder, os.listdir, folder)):
        path = folder / name
        if path.suffix in PICTURE_SUFFIXES and _NUMBER.fullmatch(path.stem):
            yield path


def _read_provenance(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
