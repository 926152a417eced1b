"""PASCAL VOC segmentation: a run's records against palette PNGs, mIoU over 21 classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..annotate.exporters import ClassEntry, class_entries, kept_annotations
from ..annotate.exporters.voc import semantic_map
from ..annotate.record import iter_records
from ..errors import InputError
from ..shapes import Int, Pixels
from .miou import IGNORE, confusion_matrix
from .outcome import Evaluation, summarise

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Pixel value = place in this tuple."""
OTHER_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""What COCO calls VOC's classes, where the names differ."""


def evaluate_voc(
    run: str | Path,
    gt: str | Path,
    *,
    conf: float | Mapping[str, float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compares a run's records with VOC label maps; needs no model and reads no photo.

    Args:
        run: Folder that ``gransam annotate`` filled.
        gt: Folder with ``SegmentationClass/<id>.png`` (0 background, 1-20, 255 ignored). If it holds a ``dev.txt``,
            the ids in it are evaluated, else every PNG's. The record of an id is the one whose photo has it as stem.
        conf: One confidence threshold, or thresholds by label, over those of the run.
        bootstrap: Photo sets to draw for the 95 % intervals, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: No run, no ground truth, labels that are not VOC's (groups), a listed photo without a record or
            with two, sizes that differ, a label map with other values, a threshold below what the run recorded.
    """
    run, gt = Path(run), Path(gt)
    described = _read_run(run)
    floor = float(described["settings"]["record_floor"])
    classes = _with_conf(class_entries(described["classes"]), conf, floor)
    values = _voc_values(described["classes"])
    ids = _listed_ids(gt)
    wanted = set(ids)
    confusions: dict[str, Int] = {}
    extra = 0
    for record in iter_records(run):
        photo = PurePosixPath(record["image"]["file_name"]).stem
        if photo not in wanted:
            extra += 1
            continue
        if photo in confusions:
            raise InputError(f"run {run}", expected=f"one record for {photo}", found="two or more photos of that name")
        predicted = semantic_map(record, kept_annotations(record, classes), values)
        confusions[photo] = _compare(gt / "SegmentationClass" / f"{photo}.png", predicted, record)
    _check_complete(run, gt, [photo for photo in ids if photo not in confusions], len(ids))
    not_asked = tuple(name for value, name in enumerate(VOC_CLASSES) if value and value not in values.values())
    return summarise(confusions, VOC_CLASSES, not_asked=not_asked, extra=extra, bootstrap=bootstrap, seed=seed)


def _read_run(run: Path) -> dict[str, Any]:
    """The run's own account of its classes and settings."""
    try:
        described = json.loads((run / "run.json").read_bytes())
        if all(isinstance(row["members"], list) for row in described["classes"]):
            float(described["settings"]["record_floor"])
            return dict(described)
        found = "classes without members"
    except (OSError, ValueError, TypeError, KeyError) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    raise InputError(
        f"run {run}",
        expected="a folder with the run.json of a run",
        found=found,
        do="make one with gransam annotate PHOTOS -o RUN",
    )


def _with_conf(
    classes: Sequence[ClassEntry], conf: float | Mapping[str, float] | None, floor: float
) -> tuple[ClassEntry, ...]:
    """The classes with other thresholds; none may ask for masks that the run did not record."""
    if conf is None:
        return tuple(classes)
    wanted = conf if isinstance(conf, Mapping) else {entry.name: conf for entry in classes}
    unknown = sorted(set(wanted) - {entry.name for entry in classes})
    if unknown:
        raise InputError(
            "conf", expected=f"labels of the run: {', '.join(c.name for c in classes)}", found=", ".join(unknown)
        )
    changed = []
    for entry in classes:
        threshold, least = float(wanted.get(entry.name, entry.threshold)), min(entry.threshold, floor)
        if threshold < least:
            raise InputError(
                f"conf of {entry.name}",
                expected=f"{least:g} or more: masks below it were not recorded",
                found=f"{threshold:g}",
                do="annotate into a new folder with that --conf",
            )
        changed.append(replace(entry, threshold=threshold))
    return tuple(changed)


def _voc_values(rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """VOC's pixel value by ``category_id``; a label stands for the one class that is its member, whatever its name."""
    members = {row["id"]: [OTHER_NAMES.get(name.lower(), name.lower()) for name in row["members"]] for row in rows}
    strange = [
        row["name"] for row in rows if len(members[row["id"]]) != 1 or members[row["id"]][0] not in VOC_CLASSES[1:]
    ]
    if strange:
        raise InputError(
            "labels of the run",
            expected="VOC's 20 classes, or some of them, one a label",
            found=_few(strange),
            do="a group or another class has no VOC ground truth: annotate into a new folder without it",
        )
    return {category: VOC_CLASSES.index(names[0]) for category, names in members.items()}


def _listed_ids(gt: Path) -> list[str]:
    folder, listing = gt / "SegmentationClass", gt / "dev.txt"
    if not folder.is_dir():
        raise InputError(
            f"ground truth {gt}", expected="a folder SegmentationClass with palette PNGs in it", found="none"
        )
    if listing.is_file():
        ids = sorted(set(listing.read_text(encoding="utf-8").split()))
        absent = [photo for photo in ids if not (folder / f"{photo}.png").is_file()]
        if absent:
            raise InputError(
                f"{listing}", expected="a PNG in SegmentationClass for every id", found=f"none for {_few(absent)}"
            )
    else:
        ids = sorted(path.stem for path in folder.glob("*.png"))
    if not ids:
        raise InputError(f"ground truth {gt}", expected="at least one label map", found="none")
    return ids


def _compare(path: Path, predicted: Pixels, record: Mapping[str, Any]) -> Int:
    truth = _read_label_map(path)
    if truth.shape != predicted.shape:
        name = record["image"]["file_name"]
        raise InputError(
            f"sizes of {name} and {path}",
            expected=f"one size for both; the label map has {truth.shape[1]} x {truth.shape[0]}",
            found=f"the record has {predicted.shape[1]} x {predicted.shape[0]}",
            do="compare label maps with the photos they were drawn on; records are in the upright frame",
        )
    return confusion_matrix(truth, predicted, len(VOC_CLASSES))


def _read_label_map(path: Path) -> Pixels:
    """(h,w) uint8 palette indices."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            mode, labels = picture.mode, np.array(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"label map {path}", expected="a PNG", found=str(error)) from error
    if mode not in ("P", "L"):
        raise InputError(f"label map {path}", expected="palette or grey PNG, 8 bits", found=f"mode {mode}")
    strange = np.setdiff1d(labels, [*range(len(VOC_CLASSES)), IGNORE])
    if strange.size:
        raise InputError(
            f"label map {path}", expected="0 to 20, or 255 for ignored pixels", found=_few([str(v) for v in strange])
        )
    return labels


def _check_complete(run: Path, gt: Path, missing: Sequence[str], listed: int) -> None:
    if missing:
        raise InputError(
            f"run {run}",
            expected=f"a record for each of the {listed} photos of {gt}",
            found=f"{len(missing)} without: {_few(missing)}",
            do="annotate these photos into the same run; failures.jsonl names those that could not be read",
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
