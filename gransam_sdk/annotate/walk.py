"""From what the user named to the photos that it means: files, folders, globs, list files, standard input.

Nothing is opened but list files: a photo that cannot be decoded is still in the walk, one that cannot even be looked
at comes as a :class:`Skip`.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, takewhile
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..errors import InputError
from ..runtime.photo_file import read_bytes
from .folder import Item, Skip, look, looks_like_photo, real_path, walk_folder
from .keys import path_key, record_name

__all__ = ["STDIN", "Item", "Skip", "find_photos", "read_bytes", "record_name"]

LIST_SUFFIX = ".txt"
STDIN = "-"

_WILD = re.compile(r"[*?\[]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_Name: TypeAlias = "str | os.PathLike[str]"


def find_photos(
    inputs: _Name | Sequence[_Name],
    *,
    exclude: _Name | None = None,
    follow: bool = False,
    stdin: BinaryIO | None = None,
) -> Iterator[Item | Skip]:
    """What there is to annotate: input after input, each sorted by the bytes of its keys.

    A folder that is the only input is walked while the result is consumed; otherwise all entries are held, to tell
    whether two photos would have the same key.

    Args:
        inputs: Photos, folders (walked all the way down), globs (``**`` for any depth), list files (``.txt``: one
            path a line, relative to the list's folder), ``-`` for such a list on standard input (relative to the
            current folder; paths end in NUL if there is a NUL in it, otherwise in a line break).
        exclude: The output folder: nothing in it is ever read.
        follow: Also read links that leave their input folder.
        stdin: Read for ``-`` in place of standard input.

    Raises:
        InputError: An input does not exist or matches nothing, there is no photo at all, or two photos would have
            the same key.
    """
    names = [os.fspath(name) for name in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    hidden = None if exclude is None else real_path(Path(exclude))
    sources = [_source(name, hidden, follow, stdin) for name in names]
    alone = len(names) == 1 and Path(names[0]).is_dir()
    entries = iter(sources[0]) if alone else _distinct(chain.from_iterable(sources))
    first = next(entries, None)
    if first is None:
        raise InputError(
            f"no photos in {', '.join(names[:5]) or 'no input'}{' ...' if len(names) > 5 else ''}",
            expected="files named .jpg, .jpeg, .png, .webp, .bmp, ... in any depth; names that begin with a dot and "
            "the output folder are passed over",
            do="name a folder with photos, or the photos themselves",
        )
    return chain([first], entries)


def _source(name: str, exclude: Path | None, follow: bool, stdin: BinaryIO | None) -> Iterable[Item | Skip]:
    if name == STDIN:
        return _listed((stdin or sys.stdin.buffer).read(), Path.cwd(), exclude)
    path = Path(name)
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - an empty name is no folder, though Path("") is "."
    except (OSError, ValueError) as error:
        if name and path.is_symlink():
            return _named(path, path.name, exclude)
        if _WILD.search(name):
            return _globbed(name, exclude, follow)
        raise InputError(
            f"input {name!r}",
            expected="a photo, a folder, a glob, a list of paths (.txt), or - for standard input",
            found=getattr(error, "strerror", None) or str(error),
            do="check the spelling",
        ) from error
    if stat.S_ISDIR(mode):
        return walk_folder(path, exclude=exclude, follow=follow)
    if stat.S_ISREG(mode) and path.suffix.lower() == LIST_SUFFIX:
        return _listed(_read_list(path), path.absolute().parent, exclude)
    return _named(path, path.name, exclude)


def _named(path: Path, relative: str, exclude: Path | None) -> list[Item | Skip]:
    """One path that was named as such: links are followed, the extension does not matter."""
    if exclude and real_path(path).is_relative_to(exclude):
        return []
    return [look(path, path_key(relative))]


def _read_list(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"list {path}", expected="a readable file of paths", found=str(error)) from error


def _listed(data: bytes, base: Path, exclude: Path | None) -> list[Item | Skip]:
    """The photos of a list; one outside the list's folder has its absolute path as key."""
    lines = data.removeprefix(_BYTE_ORDER_MARK)
    parts = lines.split(b"\0") if b"\0" in lines else [line.removesuffix(b"\r") for line in lines.split(b"\n")]
    found: list[Item | Skip] = []
    for name in filter(None, map(os.fsdecode, parts)):
        plain = _plain(base / name)
        relative = plain.relative_to(base if plain.is_relative_to(base) else plain.anchor)
        found += _named(base / name, str(relative), exclude)
    return _sorted(found)


def _globbed(pattern: str, exclude: Path | None, follow: bool) -> list[Item | Skip]:
    """The photos of a glob; keys are relative to the folder before the first wildcard."""
    parts = Path(pattern).parts
    fixed = list(takewhile(lambda part: not _WILD.search(part), parts))
    root = Path(*fixed)
    matches = list(_expand(root, parts[len(fixed) :]))
    if not matches:
        raise InputError(f"glob {pattern}", expected="at least one match", found="none", do="check the spelling")
    found: list[Item | Skip] = []
    for path in matches:
        relative = str(path.relative_to(root))
        if path.is_dir():
            prefix = "" if path == root else f"{path_key(relative)}/"
            found += walk_folder(path, prefix=prefix, exclude=exclude, follow=follow)
        elif looks_like_photo(path.name):
            found += _named(path, relative, exclude)
    return _sorted(found)


def _expand(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What matches below a folder; a folder that cannot be listed stands for itself, to be reported."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below in _real_folders(folder) if rest else [folder]:
            yield from _expand(below, rest)
        return
    try:
        names = [path.name for path in folder.iterdir()]
    except NotADirectoryError:
        return
    except OSError:
        yield folder
        return
    for name in names:
        hidden = name.startswith(".") and not part.startswith(".")
        if not hidden and fnmatch.fnmatchcase(name, part):
            yield from _expand(folder / name, rest)


def _real_folders(folder: Path) -> Iterator[Path]:
    """The folder and all below it; not through links, which may lead round in circles."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        yield folder
        try:
            with os.scandir(folder) as entries:
                inner = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # ``_expand`` reports it
        waiting += [folder / entry.name for entry in inner if not entry.name.startswith(".")]


def _sorted(entries: list[Item | Skip]) -> list[Item | Skip]:
    return sorted(entries, key=lambda entry: entry.key.encode())


def _distinct(entries: Iterable[Item | Skip]) -> Iterator[Item | Skip]:
    """Each photo once; two photos of one key are an error before the first is handed out."""
    held: dict[str, Item | Skip] = {}
    for entry in entries:
        earlier = held.setdefault(entry.key, entry)
        if _origin(earlier) != _origin(entry):
            raise InputError(
                f"two photos would both be called {entry.key}",
                expected="inputs whose photos have different paths relative to their input",
                found=f"{_origin(earlier)} and {_origin(entry)}",
                do="name their common parent folder instead, or annotate them into two run folders",
            )
    return iter(held.values())


def _origin(entry: Item | Skip) -> str:
    return str(_plain(entry.path)) if isinstance(entry, Item) else entry.message


def _plain(path: Path) -> Path:
    """Absolute, without ``.`` and ``..``; links stay."""
    return Path(os.path.normpath(path.absolute()))
