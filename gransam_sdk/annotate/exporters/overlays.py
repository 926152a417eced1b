"""Overlays: the photos with their masks, outlines and names painted on, to look at and to show."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...runtime.draw import draw_masks
from ...shapes import Pixels
from ..keys import output_name
from . import ClassEntry, Records, kept_annotations

if TYPE_CHECKING:
    from PIL import Image

    from ..outputs import OutputFolder

Photos = Callable[[str], Pixels | None]
"""Reads a photo again by its key, upright; None when it is gone, unreadable or no longer the one that was recorded."""
FOLDER = "overlays"


def export_overlays(records: Records, classes: Sequence[ClassEntry], out: OutputFolder, photos: Photos) -> int:
    """Writes ``overlays/<key>.jpg`` for every record whose photo can still be read.

    Args:
        records: Starts a pass over the records; one pass is made, holding one photo at a time.
        classes: The run's labels; annotations under their class's threshold are not painted.
        out: The run folder.
        photos: Reads a photo again.

    Returns:
        Photos that could not be read again and have no new overlay.

    Raises:
        InputError: A record holds a class that is not among ``classes``.
        OutputError: The run folder cannot be written.
    """
    missing = 0
    for record in records():
        key = record["image"]["file_name"]
        pixels = photos(key)
        if pixels is None:
            missing += 1
            continue
        data = io.BytesIO()
        # 4:4:4, because thin coloured lines smear in halved colour
        overlay(record, classes, pixels).save(data, format="JPEG", quality=90, subsampling=0)
        out.put(f"{FOLDER}/{output_name(key, '.jpg')}", data.getvalue())
    return missing


def overlay(record: Mapping[str, Any], classes: Sequence[ClassEntry], pixels: Pixels) -> Image.Image:
    """One photo with its labelled masks; the highest score lies on top, the number beside a name is its confidence.

    Raises:
        InputError: The photo is not the record's size, or a class is not among ``classes``.
    """
    annotations = sorted(kept_annotations(record, classes), key=lambda a: (-a["score"], a["area"]))
    names = {entry.id: entry.name for entry in classes}
    return draw_masks(
        pixels,
        [annotation["segmentation"] for annotation in annotations],
        [names[annotation["category_id"]] for annotation in annotations],
        {entry.name: entry.color for entry in classes},
        [annotation["confidence"] for annotation in annotations],
    )
