"""After the loop: the exports and the report, each a function of the records alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import InputError
from .exporters import ClassEntry, class_entries
from .exporters.coco import export_coco
from .exporters.overlays import export_overlays
from .exporters.voc import check_ids, export_voc
from .failures import iter_failures
from .outputs import OutputFolder
from .photo_source import PhotoIndex, PhotoSource
from .record import iter_records
from .report import write_report

FORMATS = ("coco", "voc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """What a finished run makes of its records.

    Attributes:
        formats: Of ``FORMATS``.
        overlays: Paint the masks over the photos.
        report: Write ``report.html``.
    """

    formats: tuple[str, ...] = ("coco",)
    overlays: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        """Reject formats that there are not, before any work is done."""
        for name in self.formats:
            if name not in FORMATS:
                raise InputError("export format", expected=" | ".join(FORMATS), found=repr(name))


def check_products(products: Products, classes: Sequence[ClassEntry]) -> None:
    """Refuses classes that an export cannot hold, before hours of work.

    Raises:
        InputError: More labels than a VOC label map has values for.
    """
    if "voc" in products.formats:
        check_ids(classes)


def publish(products: Products, run: dict[str, Any], photos: PhotoSource, out: OutputFolder, scale16: bool) -> None:
    """Writes the exports, the overlays and the report of all records in a run folder.

    Args:
        products: What is asked for.
        run: The contents of ``run.json``.
        photos: The run's inputs, to paint on.
        out: The run folder.
        scale16: As in the run.

    Raises:
        OutputError: The run folder cannot be written.
    """
    records = partial(iter_records, out.root)
    classes = class_entries(run["classes"])
    if "coco" in products.formats:
        export_coco(records, classes, out, run["bundle"])
    if "voc" in products.formats:
        export_voc(records, classes, out)
    if products.overlays or products.report:
        with closing(PhotoIndex(photos, out, scale16=scale16)) as index:
            if products.overlays:
                export_overlays(records, classes, out, index)
            if products.report:
                write_report(run, records, classes, out, iter_failures(out.root), index)
