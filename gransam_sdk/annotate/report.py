"""``report.html``: what a run found, on one page that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..rle import rle_encode_crop
from ..runtime.draw import draw_masks, mask_window
from ..shapes import Pixels
from ..types import Rle
from .exporters import ClassEntry, Records
from .exporters.overlays import Photos
from .failures import Failure
from .report_findings import collect
from .report_page import FAILURES_SHOWN, page

if TYPE_CHECKING:
    from PIL import Image

    from .outputs import OutputFolder

PATH = "report.html"
THUMBNAIL_SIDE = 420
"""Longest side of a thumbnail in pixels."""


def write_report(
    run: Mapping[str, Any],
    records: Records,
    classes: Sequence[ClassEntry],
    out: OutputFolder,
    failures: Iterable[Failure],
    photos: Photos,
) -> None:
    """Writes ``report.html``; nothing in it comes from outside the page, scripts it has none.

    Args:
        run: The contents of ``run.json``.
        records: Starts a pass over the records; one pass is made, holding one record and the page's photos.
        classes: The run's labels.
        out: The run folder.
        failures: Photos that have no record.
        photos: Reads a photo again, for its thumbnail.

    Raises:
        InputError: A record holds a class that is not among ``classes``.
        OutputError: The run folder cannot be written.
    """
    findings = collect(records, classes)
    failed = iter(failures)
    shown = list(islice(failed, FAILURES_SHOWN))
    for sight in (*findings.doubtful, *findings.closest):
        pixels = photos(sight.record["image"]["file_name"])
        if pixels is not None:
            sight.thumbnail = _jpeg(thumbnail(sight.record, classes, pixels))
    out.put(PATH, page(run, classes, findings, shown, len(shown) + sum(1 for _ in failed)).encode())


def thumbnail(record: Mapping[str, Any], classes: Sequence[ClassEntry], pixels: Pixels) -> Image.Image:
    """A small picture of a photo with its masks; names are drawn at the small size, so that they can be read.

    Args:
        record: Its annotations are all drawn, the first on top.
        classes: The run's labels.
        pixels: (h,w,3) uint8, the upright photo.
    """
    from PIL import Image

    scale = min(1.0, THUMBNAIL_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
    small = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR, reducing_gap=2.0)
    entries = {entry.id: entry for entry in classes}
    annotations = record["annotations"]
    return draw_masks(
        np.array(small),
        [_scaled_mask(annotation["segmentation"], size) for annotation in annotations],
        [entries[annotation["category_id"]].name for annotation in annotations],
        {entry.name: entry.color for entry in classes},
        [annotation["confidence"] for annotation in annotations],
    )


def _scaled_mask(mask: Rle, size: tuple[int, int]) -> Rle:
    """A mask at another photo size: pixels half covered, or of a mask too thin for that the most covered ones."""
    from PIL import Image

    window, x0, y0 = mask_window(mask)
    if not window.size:
        return rle_encode_crop(window, 0, 0, size)
    down, across = size[0] / mask["size"][0], size[1] / mask["size"][1]
    left, top = int(x0 * across), int(y0 * down)
    right = max(left + 1, round((x0 + window.shape[1]) * across))
    bottom = max(top + 1, round((y0 + window.shape[0]) * down))
    grey = Image.fromarray(window).convert("L").resize((right - left, bottom - top), Image.Resampling.BOX)
    covered = np.array(grey)
    crop = covered >= min(128, covered.max())
    return rle_encode_crop(crop, left, top, size)


def _jpeg(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=82, subsampling=0)
    return base64.b64encode(data.getvalue()).decode("ascii")
