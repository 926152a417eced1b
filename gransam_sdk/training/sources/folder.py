"""Example pictures that are already there: one folder a class, read where they lie, nothing copied or changed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import ImageError, InputError
from ...runtime.decode import decode_photo
from ...runtime.photo_file import read_bytes
from ..examples import hash_pictures
from .source import PICTURE_SUFFIXES, ClassReport, Progress, SourceReport, check_count, folder_name

BACKGROUND = "_background"
"""Folder of pictures that show none of the classes."""


class FolderSource:
    """Looks through class folders as they come: what can be read is kept, what cannot is reported."""

    name = "folder"

    def collect(
        self, classes: Sequence[str], out: Path, *, per_class: int, progress: Progress | None = None
    ) -> SourceReport:
        """Decodes every picture and counts; nothing is written.

        Args:
            classes: Class names to report on; none means all that are there, and ``_background``.
            out: The folder with the class folders.
            per_class: Pictures wanted of each; a class with more keeps them all.
            progress: See ``Progress``.

        Raises:
            InputError: See ``find_pictures``; a class without a folder; the same bytes in two class folders.
        """
        check_count(per_class)
        classes = [unicodedata.normalize("NFC", name) for name in classes]  # as folders are, however it was typed
        names, pictures = find_pictures(out)
        labels = {name: index for index, name in enumerate(names)}
        if any(label < 0 for _, label in pictures):
            labels[BACKGROUND] = -1
        for name in classes:
            if name not in labels:
                found = f"folders {', '.join(names)}"
                raise InputError(f"class {name!r}", expected=f"a folder of that name in {out}", found=found)
        whole, skipped = hash_pictures(pictures)
        reasons = dict(skipped)
        kept: Counter[int] = Counter()
        for label, path in [(example.label, example.path) for example in whole]:
            name = names[label] if label >= 0 else BACKGROUND
            if name not in (classes or labels):
                continue
            try:
                decode_photo(read_bytes(path), name=str(path))
                kept[label] += 1
            except ImageError as error:
                reasons[str(path)] = error.reason
            if progress:
                progress(name, kept[label], per_class)
        reports = []
        for name in classes or labels:
            mine = [str(path) for path, label in pictures if label == labels[name]]
            left_out = tuple((path, reasons[path]) for path in mine if path in reasons)
            reports.append(ClassReport(name=name, wanted=per_class, kept=kept[labels[name]], skipped=left_out))
        return SourceReport(out=out, classes=tuple(reports))


def find_pictures(root: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Lists example pictures in class folders; none is opened.

    Args:
        root: One folder a class; ``_background`` holds pictures of none of them, other names with a ``_`` or ``.``
            in front are left out.

    Returns:
        Class names, and (path, class index or -1) of each picture, sorted.

    Raises:
        InputError: No classes, one class without background, a class without pictures, a folder that cannot be
            listed, or a name that no bundle can hold.
    """
    folders = {path.name: path for path in _list(root) if path.is_dir()} if root.is_dir() else {}
    names = _class_names([path for name, path in folders.items() if name[0] not in "_."])
    if not names:
        raise InputError(
            f"pictures {root}",
            expected="a folder with one sub-folder of example pictures a class",
            found="no class folders",
            do="make sub-folders named after your classes, with example pictures in each",
        )
    labelled = list(zip(names.values(), range(len(names)), strict=True))
    if BACKGROUND in folders:
        labelled.append((folders[BACKGROUND], -1))
    pictures = []
    for folder, label in labelled:
        files = [path for path in _list(folder) if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
        if not files:
            raise InputError(
                f"class folder {folder}",
                expected=f"example pictures ({' '.join(sorted(PICTURE_SUFFIXES))})",
                found="none",
                do="put some into it, or delete the folder",
            )
        pictures += [(path, label) for path in files]
    if len(labelled) == 1:
        raise InputError(
            f"pictures {root}",
            expected=f"two classes or more, or one and {BACKGROUND}: a head can only tell things apart",
            found=f"one class, {next(iter(names))}",
            do=f"add {BACKGROUND}, a folder with pictures of what the class must not be taken for",
        )
    return tuple(names), pictures


def _class_names(folders: Sequence[Path]) -> dict[str, Path]:
    """The class of each folder, with its name in Unicode's composed form."""
    names: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    for path in folders:
        try:
            name = folder_name(path.name)
        except InputError as error:
            do = "rename the folder"
            raise InputError(f"class folder {path}", expected=error.expected, found=error.found, do=do) from error
        other = folded.setdefault(name.casefold(), path)
        if other is not path:
            raise InputError(
                f"class folder {path}",
                expected="a name that differs from the others in more than case",
                found=f"{other.name!r} and {path.name!r}",
                do="rename one of them: this is what will be typed after -c",
            )
        names[name] = path
    return names


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"folder {folder}", expected="a readable folder", found=error.strerror or str(error)
        ) from error
