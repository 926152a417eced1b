"""One folder, all the way down, in sorted order: memory grows with the largest folder, not with their number."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..runtime.photo_file import os_reason
from .keys import key_part

_DECODED = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp")
_REFUSED = (".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".psd", ".svg")
"""Photos of kinds that are not decoded are reported: silence would look like a photo less."""
_SUFFIXES = frozenset(_DECODED + _REFUSED)

_Kind = Literal["file", "folder", "link", "link to folder", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A photo to read.

    Attributes:
        key: Its path relative to its input, printable (see ``keys``).
        path: Where it lies.
    """

    key: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something the user meant that cannot be read.

    Attributes:
        key: As for an item; ends in ``/`` for a folder.
        reason: ``missing``, ``loop``, ``outside``, ``not-a-file``, ``permission`` or ``io``.
        message: The reason in words, with the path.
    """

    key: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder on the way: as it is reached, its real path, and the key of what lies in it so far."""

    path: Path
    real: Path
    prefix: str


def looks_like_photo(name: str) -> bool:
    """Whether a file in a folder is meant: by its extension, in any case; the content decides later."""
    return Path(name).suffix.lower() in _SUFFIXES


def look(path: Path, key: str) -> Item | Skip:
    """A file as an item, or why it is none; it is not opened and links are followed."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Skip(key=key, reason=os_reason(error), message=f"{path}: {error.strerror}")
    if not stat.S_ISREG(mode):
        return Skip(key=key, reason="not-a-file", message=f"{path}: a folder, pipe, socket or device")
    return Item(key=key, path=path)


def real_path(path: Path) -> Path:
    """The path without links, as far as they can be followed; never an error."""
    return Path(os.path.realpath(path))


def walk_folder(root: Path, *, prefix: str = "", exclude: Path | None, follow: bool) -> Iterator[Item | Skip]:
    """All photos below a folder, sorted by the bytes of their key.

    Names that begin with a dot are passed over, so are files without a photo's extension.

    Args:
        root: The folder.
        prefix: What the keys begin with: empty, or the key of the folder and a slash.
        exclude: Real path of a folder that is never read.
        follow: Also read links that leave the folder. A folder is read once, whichever links lead to it.

    Raises:
        InputError: The folder itself cannot be listed.
    """
    walk = _Walk(real_path(root), exclude, follow)
    place = walk.enter(_Place(root, walk.root, prefix))
    stack = [walk.list(place)] if place else []
    while stack:  # not recursive: a tree may be deeper than Python's stack
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
        elif isinstance(found, _Place):
            stack.append(walk.list(found))
        else:
            yield found


class _Walk:
    """What one walk has to remember: where it may go, and with ``follow`` where it was."""

    def __init__(self, root: Path, exclude: Path | None, follow: bool) -> None:
        self.root, self.exclude, self.follow = root, exclude, follow
        self.visited: set[tuple[int, int]] = set()

    def enter(self, place: _Place) -> _Place | None:
        """The place, unless it is the output or was listed before."""
        if self.exclude and place.real.is_relative_to(self.exclude):
            return None
        if self.follow:
            try:
                status = place.path.stat()
            except OSError:
                return place  # listing it will say what is wrong
            identity = (status.st_dev, status.st_ino)
            if identity in self.visited:
                return None
            self.visited.add(identity)
        return place

    def list(self, place: _Place) -> Iterator[Item | Skip | _Place]:
        """What lies in one folder, in order."""
        try:
            with os.scandir(place.path) as entries:
                names = sorted(filter(None, map(_sortable, entries)))
        except OSError as error:
            if not place.prefix:
                raise InputError(f"folder {place.path}", expected="a readable folder", found=str(error)) from error
            yield Skip(key=place.prefix, reason=os_reason(error), message=f"{place.path}: {error.strerror}")
            return
        for key, name, kind in names:
            found = self._judge(place, name, place.prefix + key.decode(), kind)
            if found is not None:
                yield found

    def _judge(self, place: _Place, name: str, key: str, kind: _Kind) -> Item | Skip | _Place | None:
        path = place.path / name
        if kind == "folder":
            return self.enter(_Place(path, place.real / name, key))
        if kind == "file":
            return Item(key=key, path=path)
        real = real_path(path)
        if kind == "link to folder":
            if real.is_relative_to(self.root):
                return None  # its photos are met where they lie
            if self.follow:
                return self.enter(_Place(path, real, key))
            return Skip(key=key, reason="outside", message=f"{path}: a link to a folder outside the input folder")
        found = look(path, key)
        if isinstance(found, Item) and not self.follow and not real.is_relative_to(self.root):
            return Skip(key=key, reason="outside", message=f"{path}: a link to a file outside the input folder")
        return found


def _sortable(entry: os.DirEntry[str]) -> tuple[bytes, str, _Kind] | None:
    """(name as in the key, with a slash for a folder; name; kind), None for what nobody means."""
    if entry.name.startswith("."):
        return None
    kind = _kind(entry)
    is_folder = kind in ("folder", "link to folder")
    if not is_folder and not looks_like_photo(entry.name):
        return None
    return (key_part(entry.name) + "/" * is_folder).encode(), entry.name, kind


def _kind(entry: os.DirEntry[str]) -> _Kind:
    try:
        if entry.is_symlink():
            return "link to folder" if entry.is_dir() else "link"
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else "other"
    except OSError:  # a link that leads to itself, a file that has gone
        return "other"
