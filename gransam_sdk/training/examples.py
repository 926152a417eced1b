"""Example pictures by their bytes: which there are, and which are the same picture twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ImageError, InputError
from ..runtime.decode import decode_photo
from ..runtime.photo_file import read_bytes
from ..shapes import Float, Pixels

_SHOWN = 5
"""Pairs of equal pictures that a message lists at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture that can be read; whether it can be decoded is not known yet.

    Attributes:
        path: Its file.
        label: Class index; -1 for background.
        sha256: Hex digest of its bytes.
    """

    path: Path
    label: int
    sha256: str

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path)

    def pixels(self) -> Pixels:
        """(h,w,3) uint8 upright RGB of the bytes that were hashed.

        Raises:
            ImageError: It cannot be decoded, or has other bytes by now.
        """
        data = read_bytes(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ImageError("changed", self.name, found="other bytes than when this run began")
        return decode_photo(data, name=self.name).pixels

    def areas(self, points: Float) -> Float:
        """(g,4) XYXY in [0,1]: all of the picture, for each of points (g,2)."""
        return np.tile(np.array([0.0, 0.0, 1.0, 1.0], dtype=np.float32), (len(points), 1))


def hash_pictures(pictures: Iterable[tuple[Path, int]]) -> tuple[list[Example], list[tuple[str, str]]]:
    """Reads every picture once.

    Args:
        pictures: (path, class index or -1), in the order that the bags will have.

    Returns:
        The different pictures in that order, and (path, reason) of those left out: unreadable, or the bytes of an
        earlier one of the same class.

    Raises:
        InputError: The same bytes lie in two class folders; the message names both files.
    """
    found: dict[str, Example] = {}
    skipped: list[tuple[str, str]] = []
    torn: list[tuple[Path, Path]] = []
    for path, label in pictures:
        try:
            sha256 = hashlib.sha256(read_bytes(path)).hexdigest()
        except ImageError as error:
            skipped.append((str(path), error.reason))
            continue
        first = found.setdefault(sha256, Example(path=path, label=label, sha256=sha256))
        if first.label != label:
            torn.append((first.path, path))
        elif first.path != path:
            skipped.append((str(path), f"the same picture as {first.path}"))
    if torn:
        more = [f"... and {len(torn) - _SHOWN} more"] if len(torn) > _SHOWN else []
        pairs = [f"{first} and {second} are the same picture" for first, second in torn[:_SHOWN]]
        raise InputError(
            "pictures in two class folders",
            expected="each picture in one: it can be an example of one class only",
            found="\n            ".join([*pairs, *more]),
            do="delete one of each pair",
        )
    return list(found.values()), skipped
