"""PASCAL VOC label maps: a palette PNG a photo, its pixel values label ids, its palette their colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...runtime.draw import mask_window, voc_palette
from ...shapes import Pixels
from ..keys import output_name
from . import ClassEntry, Records, kept_annotations

if TYPE_CHECKING:
    from ..outputs import OutputFolder

FOLDER = "exports/voc/SegmentationClass"
LABEL_MAP = "exports/voc/labelmap.txt"
MAX_ID = 254
"""Pixel values are bytes: 0 is background, and readers take 255 for "ignore"."""


def export_voc(records: Records, classes: Sequence[ClassEntry], out: OutputFolder) -> None:
    """Writes ``exports/voc/SegmentationClass/<key>.png`` for every record, and ``labelmap.txt`` beside the folder.

    Args:
        records: Starts a pass over the records; one pass is made, holding one record and one map at a time.
        classes: The run's labels; annotations under their class's threshold are not painted.
        out: The run folder.

    Raises:
        InputError: A label id is above 254, or a record holds a class that is not among ``classes``.
        OutputError: The run folder cannot be written.
    """
    check_ids(classes)
    palette = voc_palette()
    for entry in classes:
        palette[entry.id] = entry.color
    flat = palette.ravel().tolist()
    for record in records():
        labels = semantic_map(record, kept_annotations(record, classes))
        out.put(f"{FOLDER}/{output_name(record['image']['file_name'], '.png')}", _palette_png(labels, flat))
    out.put(LABEL_MAP, _label_map(classes))


def check_ids(classes: Sequence[ClassEntry]) -> None:
    """Refuses labels that have no pixel value.

    Raises:
        InputError: A label id is above 254.
    """
    highest = max((entry.id for entry in classes), default=0)
    if highest > MAX_ID:
        raise InputError(
            "VOC label maps",
            expected=f"label ids up to {MAX_ID}",
            found=f"id {highest}",
            do="export to COCO, or ask for fewer classes with -c",
        )


def semantic_map(
    record: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], values: Mapping[int, int] | None = None
) -> Pixels:
    """One label a pixel from masks that may overlap: the higher score wins, of equal ones the smaller mask.

    Args:
        record: The photo's record; gives the size.
        annotations: Those of its annotations that are to be painted; equal in score and area, the earlier one wins.
        values: Pixel value by ``category_id``; None paints the id itself.

    Returns:
        (h,w) uint8, 0 where no mask lies (methods A8).
    """
    labels = np.zeros((record["image"]["height"], record["image"]["width"]), dtype=np.uint8)
    ranked = sorted(enumerate(annotations), key=lambda entry: (entry[1]["score"], -entry[1]["area"], -entry[0]))
    for _, annotation in ranked:
        window, x0, y0 = mask_window(annotation["segmentation"])
        category = annotation["category_id"]
        value = category if values is None else values[category]
        labels[y0 : y0 + window.shape[0], x0 : x0 + window.shape[1]][window] = value
    return labels


def _palette_png(labels: Pixels, palette: list[int]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(labels)
    picture.putpalette(palette)
    data = io.BytesIO()
    picture.save(data, format="PNG", compress_level=6)
    return data.getvalue()


def _label_map(classes: Sequence[ClassEntry]) -> bytes:
    """``name:r,g,b::`` a line in the order of pixel values, background first: the form that CVAT and Datumaro read.

    A colon or a line break in a name would end the field, so an underscore stands for it.
    """
    rows = [("background", (0, 0, 0)), *((c.name, c.color) for c in sorted(classes, key=lambda c: c.id))]
    text = "# label:color_rgb:parts:actions\n"
    for name, (red, green, blue) in rows:
        text += re.sub("[:\r\n]", "_", name) + f":{red},{green},{blue}::\n"
    return text.encode()
