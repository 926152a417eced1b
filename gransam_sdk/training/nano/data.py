"""What the segmenter is trained on: photos with label maps, and photos without, kept compressed in memory.

DATA/index.jsonl          one JSON object a line: file, source, original, kind
DATA/images/FILE.jpg
DATA/masks/FILE.png       grey, 8 or 16 bits, of the photo's size: 0 unlabelled, every other value one region
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...annotate.walk import Item, find_photos
from ...errors import ImageError, InputError
from ...runtime.decode import decode_photo
from ...runtime.photo_file import read_bytes
from ...shapes import Int, Pixels
from .config import SegmenterConfig

INDEX = "index.jsonl"
KINDS = {"objects": True, "instances": True, "panoptic": False, "parts": False}
"""Kinds of label maps, and whether each of their regions is one whole object: panoptic maps hold stuff too."""

PARTS_OF_ONE = frozenset({"ccp"})
"""Sources whose parts together are one object: the clothes, skin and hair of the one person that was labelled."""

WEIGHTS: Mapping[str, float] = {"voc2012_train_aug": 1.0, "coco_train2017": 4.0, "endangered": 1.3, "ccp": 0.6}
OTHER_WEIGHT, UNLABELLED_WEIGHT = 0.5, 0.3
"""How often photos of a source are drawn: COCO's labels are the richest, unlabelled photos teach features only."""

UNLABELLED = "unlabelled"
LONGEST = 384
"""Longest side of an unlabelled photo; larger ones are made smaller once, or decoding them would hold training up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMap:
    """Regions of a photo.

    Attributes:
        name: The file, for messages.
        png: Its bytes.
        whole: Whether each region is one whole object.
        joined: Take all regions for one.
        labelled: Whether people drew it.
    """

    name: str
    png: bytes
    whole: bool
    joined: bool = False
    labelled: bool = True

    def regions(self) -> Int:
        """(h,w) int64: 0 where nothing is labelled, else the region's number.

        Raises:
            InputError: It is no grey picture.
        """
        try:
            with Image.open(BytesIO(self.png), formats=("PNG",)) as image:
                numbers = np.asarray(image)
        except Exception as error:  # Pillow answers damaged bytes with a dozen kinds of exceptions
            raise _unreadable(self.name, "a grey PNG of 8 or 16 bits", str(error)) from error
        if numbers.ndim != 2 or numbers.dtype.kind not in "ui":
            raise _unreadable(self.name, "a grey PNG of 8 or 16 bits", f"{numbers.shape} {numbers.dtype}")
        return (numbers > 0).astype(np.int64) if self.joined else numbers.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPhoto:
    """A photo with its label maps, none of it decoded.

    Attributes:
        name: The file, for messages.
        source: The data set it is of, which decides how often it is drawn.
        data: Its bytes.
        maps: Label maps; may be none.
    """

    name: str
    source: str
    data: bytes
    maps: tuple[LabelMap, ...] = ()

    def pixels(self) -> Pixels:
        """(h,w,3) uint8.

        Raises:
            InputError: The bytes are no photo.
        """
        try:
            return decode_photo(self.data, name=self.name).pixels
        except ImageError as error:
            raise _unreadable(self.name, error.expected or "a photo", error.found) from error

    def objects(self) -> LabelMap | None:
        """The label map whose regions are whole objects, if there is one."""
        return next((item for item in self.maps if item.whole), None)

    def weight(self) -> float:
        """How often it is drawn, beside others."""
        return UNLABELLED_WEIGHT if self.source == UNLABELLED else WEIGHTS.get(self.source, OTHER_WEIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Photos to train on, and photos that are only looked at.

    Attributes:
        photos: In the index's order, unlabelled ones behind.
        held: Labelled photos that are never trained on.
        skipped: (path, reason) of unlabelled photos that cannot be read.
    """

    photos: tuple[TrainingPhoto, ...]
    held: tuple[TrainingPhoto, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def digest(self) -> str:
        """Hex sha256 of all that training reads of them."""
        digest = hashlib.sha256()
        for photo in (*self.photos, *self.held):
            maps = [[item.whole, item.joined, item.labelled, len(item.png)] for item in photo.maps]
            digest.update(json.dumps([photo.source, len(photo.data), maps]).encode())
            for data in (photo.data, *(item.png for item in photo.maps)):
                digest.update(data)
        return digest.hexdigest()

    def sources(self) -> dict[str, int]:
        """Photos to train on by source."""
        names = [photo.source for photo in self.photos]
        return {name: names.count(name) for name in sorted(set(names))}


def is_held(original: str, share: float) -> bool:
    """Whether a photo is held out: by the hash of its name, so that other data beside it change nothing."""
    return int(hashlib.sha256(original.encode()).hexdigest()[:8], 16) < share * 2**32


def load_data(
    root: Path,
    config: SegmenterConfig,
    *,
    unlabelled: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Reads photos and label maps into memory, as they are compressed; nothing is decoded but large unlabelled ones.

    Args:
        root: DATA, see above.
        config: Decides what is held out.
        unlabelled: Folders of photos without labels, walked all the way down.
        progress: Told (unlabelled photos read, of how many).

    Raises:
        InputError: A line of the index is broken, a file that it names is missing, or there is nothing to train on.
    """
    photos: list[TrainingPhoto] = []
    held: list[TrainingPhoto] = []
    for original, photo in _labelled(root):
        eligible = not config.held_sources or photo.source in config.held_sources
        (held if eligible and is_held(original, config.held_out) else photos).append(photo)
    if not photos:
        found = f"{len(held)} photos, all held out"
        raise InputError(f"index {root / INDEX}", expected="photos to train on", found=found)
    more, skipped = _unlabelled(unlabelled, progress)
    return TrainingData(photos=(*photos, *more), held=tuple(held), skipped=tuple(skipped))


def _labelled(root: Path) -> Iterable[tuple[str, TrainingPhoto]]:
    """Each photo of the index with the name that decides whether it is held out."""
    path = root / INDEX
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"index {path}",
            expected="a file with one JSON object a line, and beside it images/ and masks/",
            found=str(error),
            do="name the folder that holds index.jsonl",
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = _row(f"index {path} line {number}", line)
            photo, mask = root / "images" / f"{row['file']}.jpg", root / "masks" / f"{row['file']}.png"
            first = LabelMap(name=str(mask), png=_read(mask, path, number), whole=KINDS[row["kind"]])
            maps = [first]
            if row["kind"] == "parts" and row["source"] in PARTS_OF_ONE:
                maps.append(LabelMap(name=first.name, png=first.png, whole=True, joined=True))
            data = _read(photo, path, number)
            yield row["original"], TrainingPhoto(name=str(photo), source=row["source"], data=data, maps=tuple(maps))


def _row(what: str, line: str) -> dict[str, Any]:
    expected = f'{{"file", "source", "original", "kind"}}, all text, kind one of {", ".join(KINDS)}'
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(what, expected=expected, found=f"no JSON ({error})", do="mend the line, or drop it") from error
    names = ("file", "source", "original", "kind")
    if not (isinstance(row, dict) and all(isinstance(row.get(name), str) for name in names) and row["kind"] in KINDS):
        raise InputError(what, expected=expected, found=line[:200], do="mend the line, or drop it")
    return row


def _read(path: Path, index: Path, line: int) -> bytes:
    try:
        return read_bytes(path)
    except ImageError as error:
        found = f"{error.reason} ({error.found})" if error.found else error.reason
        expected = f"the file that line {line} of {index} names"
        raise InputError(str(path), expected=expected, found=found, do="fetch it again, or drop the line") from error


def _unlabelled(
    folders: Sequence[Path], progress: Callable[[int, int], None] | None
) -> tuple[list[TrainingPhoto], list[tuple[str, str]]]:
    entries = list(find_photos([str(folder) for folder in folders])) if folders else []
    kept, skipped = [], []
    for done, entry in enumerate(entries, start=1):
        try:
            if not isinstance(entry, Item):
                raise ImageError(entry.reason, entry.key)
            data = _small(read_bytes(entry.path), str(entry.path))
            kept.append(TrainingPhoto(name=str(entry.path), source=UNLABELLED, data=data))
        except ImageError as error:
            skipped.append((entry.key, error.reason))
        if progress:
            progress(done, len(entries))
    return kept, skipped


def _small(data: bytes, name: str) -> bytes:
    """The photo's bytes, or where its longest side is above ``LONGEST`` those of a smaller copy."""
    photo = decode_photo(data, name=name)
    if max(photo.size) <= LONGEST:
        return data
    image = Image.fromarray(photo.pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    out = BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


def _unreadable(name: str, expected: str, found: str) -> InputError:
    return InputError(name, expected=expected, found=found or "something else", do="fetch it again, or drop it")
