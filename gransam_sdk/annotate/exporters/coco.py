"""COCO instances: one file that pycocotools and its relatives load, with every mask bit for bit as recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import ClassEntry, Records, kept_annotations

if TYPE_CHECKING:
    from ..outputs import OutputFolder

PATH = "exports/coco.json"


def export_coco(
    records: Records, classes: Sequence[ClassEntry], out: OutputFolder, bundle: Mapping[str, Any] | None = None
) -> None:
    """Writes ``exports/coco.json``.

    Image ids count from 1 in the records' order, annotation ids from 1 in the order of images and, within one, of the
    record. ``iscrowd`` is always 0 (1 would mean "ignore this region" to COCOeval), ``area`` is the mask's own, masks
    are compressed RLE whose holes and parts stay. ``score`` rides along; readers that do not know it pass it by.

    Args:
        records: Starts a pass over the records; two passes are made, each holding one record at a time.
        classes: The run's labels; annotations under their class's threshold are left out, photos never are.
        out: The run folder.
        bundle: ``name`` and ``digest`` of the model, named in ``info``.

    Raises:
        InputError: A record holds a class that is not among ``classes``.
        OutputError: The run folder cannot be written.
    """
    with out.open_stream(PATH) as stream:
        stream.write(b'{"info": ' + _json(_info(bundle)) + b',\n"licenses": [],\n"categories": [\n')
        _write_rows(stream.write, ({"id": c.id, "name": c.name, "supercategory": ""} for c in classes))
        stream.write(b'],\n"images": [\n')
        _write_rows(stream.write, _images(records))
        stream.write(b'],\n"annotations": [\n')
        _write_rows(stream.write, _annotations(records, classes))
        stream.write(b"]}\n")


def _info(bundle: Mapping[str, Any] | None) -> dict[str, str]:
    """No date: the file is a function of the records alone."""
    model = {"bundle": str(bundle["name"]), "bundle_digest": str(bundle["digest"])} if bundle else {}
    return {"description": "Labels made by GranSAM SDK", **model}


def _images(records: Records) -> Iterator[dict[str, Any]]:
    for image_id, record in enumerate(records(), start=1):
        image = record["image"]
        yield {
            "id": image_id,
            "file_name": image["file_name"],
            "width": image["width"],
            "height": image["height"],
        }


def _annotations(records: Records, classes: Sequence[ClassEntry]) -> Iterator[dict[str, Any]]:
    annotation_id = 0
    for image_id, record in enumerate(records(), start=1):
        for annotation in kept_annotations(record, classes):
            annotation_id += 1
            yield {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": annotation["category_id"],
                "segmentation": annotation["segmentation"],
                "bbox": annotation["bbox"],
                "area": annotation["area"],
                "iscrowd": 0,
                "score": annotation["score"],
            }


def _write_rows(write: Callable[[bytes], object], rows: Iterable[Mapping[str, Any]]) -> None:
    """One row a line, so that two files can be compared with diff."""
    separator = b""
    for row in rows:
        write(separator + _json(row))
        separator = b",\n"
    if separator:
        write(b"\n")


def _json(value: Mapping[str, Any]) -> bytes:
    """ASCII: pycocotools opens the file in the machine's own encoding, which need not be UTF-8."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii")
