"""The photos of a run: walked as often as needed, never kept in memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, cast

from ..errors import ImageError, InputError
from ..runtime.decode import decode_photo
from ..runtime.photo_file import read_bytes
from ..shapes import Pixels
from .outputs import OutputFolder
from .pipeline import record_holds
from .record import record_path
from .walk import STDIN, Item, Skip, find_photos

_IN_MEMORY = 1 << 20
"""Bytes of a list on stdin that stay in memory; the rest waits in a temporary file of the system."""


class PhotoSource:
    """Iterating it walks the inputs once more, in the same order.

    Args:
        inputs: Photos, folders, globs, list files, or ``-`` for stdin.
        exclude: The run folder, which may lie inside an input.
        follow: Follow links that leave an input folder.
        limit: Only the first so many, already recorded ones included; None takes all.
        stdin: Read for ``-`` in place of standard input; to its end at once, so that it can be walked again.

    Raises:
        InputError: ``limit`` is below 1.
    """

    def __init__(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        exclude: Path,
        follow: bool = False,
        limit: int | None = None,
        stdin: BinaryIO | None = None,
    ) -> None:
        """Reads stdin, and nothing else yet."""
        self._inputs = [os.fspath(source) for source in ([inputs] if isinstance(inputs, str | Path) else inputs)]
        self.limit = limit
        self._exclude = exclude
        self._follow = follow
        self._list: IO[bytes] | None = None
        if limit is not None and limit < 1:
            raise InputError("limit", expected="a whole number from 1", found=repr(limit))
        if STDIN in self._inputs:
            self._list = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - lives as long as we do
            shutil.copyfileobj(stdin or sys.stdin.buffer, self._list)

    @property
    def inputs(self) -> list[str]:
        """The inputs as given, for people: bytes that are no UTF-8 are spelt out."""
        return [os.fsencode(name).decode("utf-8", "backslashreplace") for name in self._inputs]

    def __iter__(self) -> Iterator[Item | Skip]:
        """Walks the inputs.

        Raises:
            InputError: An input is not there, holds no photos, or two photos have one key.
        """
        if self._list is not None:
            self._list.seek(0)
        walk = find_photos(
            self._inputs, exclude=self._exclude, follow=self._follow, stdin=cast("BinaryIO | None", self._list)
        )
        return itertools.islice(walk, self.limit)

    def count(self) -> int:
        """Entries of one walk: what is wrong with the inputs is said here, before anything is written."""
        return sum(1 for _ in self)

    def close(self) -> None:
        """Forgets what was read from stdin."""
        if self._list is not None:
            self._list.close()


class PhotoIndex:
    """Reads photos of a finished run again by their keys; the paths are kept in a private file on disk.

    Args:
        photos: The walk.
        out: The run folder: a photo counts only while it is the one that was recorded.
        scale16: As in the run.
    """

    def __init__(self, photos: Iterable[Item | Skip], out: OutputFolder, *, scale16: bool) -> None:
        """Walks once."""
        self._out = out
        self._scale16 = scale16
        self._paths = sqlite3.connect("")  # an empty name: SQLite's own temporary file, gone when closed
        self._paths.execute("CREATE TABLE photo (key BLOB PRIMARY KEY, path BLOB) WITHOUT ROWID")
        found = (entry for entry in photos if isinstance(entry, Item))
        self._paths.executemany(
            "INSERT OR REPLACE INTO photo VALUES (?, ?)", ((i.key.encode(), os.fsencode(i.path)) for i in found)
        )

    def __call__(self, key: str) -> Pixels | None:
        """(h,w,3) uint8, upright; None when the photo is gone, unreadable or no longer the one that was recorded."""
        row = self._paths.execute("SELECT path FROM photo WHERE key = ?", (key.encode(),)).fetchone()
        record = self._out.read(record_path(key))
        if row is None or record is None:
            return None
        try:
            data = read_bytes(Path(os.fsdecode(row[0])))
            if not record_holds(record, key, hashlib.sha256(data).hexdigest()):
                return None
            return decode_photo(data, name=key, scale16=self._scale16).pixels
        except ImageError:
            return None

    def close(self) -> None:
        """Frees the file."""
        self._paths.close()
