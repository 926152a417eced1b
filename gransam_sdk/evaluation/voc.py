"""PASCAL VOC segmentation: a run's records against palette PNGs, mIoU over 21 classes or five super-classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..annotate.exporters import kept_annotations
from ..annotate.exporters.voc import semantic_map
from ..errors import InputError
from ..shapes import Int, Pixels
from .class_names import VOC_CLASSES, VOC_VALUES
from .labelled_run import LabelledRun, compare_maps, few, matched_records, read_run
from .miou import IGNORE
from .outcome import Evaluation, summarise
from .super_classes import SUPER_NAMES, SUPER_VALUES, super_map


def evaluate_voc(
    run: str | Path,
    gt: str | Path,
    *,
    conf: float | Mapping[str, float] | None = None,
    super_classes: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compares a run's records with VOC label maps; needs no model and reads no photo.

    Args:
        run: Folder that ``gransam annotate`` filled.
        gt: Folder with ``SegmentationClass/<id>.png`` (0 background, 1-20, 255 ignored). If it holds a ``dev.txt``,
            the ids in it are evaluated, else every PNG's. The record of an id is the one whose photo has it as stem.
        conf: One confidence threshold, or thresholds by label, over those of the run.
        super_classes: Evaluate the paper's five super-classes: the ground truth is mapped to them, and so is each
            label, which may be a super-class, a group of classes of one, or one of VOC's classes.
        bootstrap: Photo sets to draw for the 95 % intervals, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: No run, no ground truth, labels that the ground truth does not know, a listed photo without a
            record or with two, sizes that differ, a label map with other values, a threshold below what the run
            recorded.
    """
    gt = Path(gt)
    labelled = read_run(Path(run), conf)
    names = SUPER_NAMES if super_classes else VOC_CLASSES
    values = _label_values(labelled, super_classes)
    confusions: dict[str, Int] = {}
    extra = 0
    for photo, record in matched_records(labelled.folder, _listed_ids(gt), gt):
        if photo is None:
            extra += 1
            continue
        path = gt / "SegmentationClass" / f"{photo}.png"
        truth = super_map(read_label_map(path)) if super_classes else read_label_map(path)
        predicted = semantic_map(record, kept_annotations(record, labelled.classes), values)
        confusions[photo] = compare_maps(truth, predicted, len(names), record=record, source=str(path))
    not_asked = tuple(name for value, name in enumerate(names) if value and value not in values.values())
    return summarise(confusions, names, not_asked=not_asked, extra=extra, bootstrap=bootstrap, seed=seed)


def _label_values(labelled: LabelledRun, super_classes: bool) -> dict[int, int]:
    """Pixel value by ``category_id``."""
    values, strange = labelled.values(SUPER_VALUES if super_classes else VOC_VALUES)
    if not strange:
        return values
    if super_classes:
        expected = f"{', '.join(SUPER_NAMES[1:])}, or classes of VOC, of one of these in each label"
        do = "annotate into a new folder with the classes file docs/granularity.toml"
    else:
        expected = "VOC's 20 classes, or some of them, one a label"
        do = "a group or another class has no VOC ground truth: annotate into a new folder without it"
        if not labelled.values(SUPER_VALUES)[1]:
            do += ", or evaluate the super-classes with --super"
    raise InputError("labels of the run", expected=expected, found=few(strange), do=do)


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
                f"{listing}", expected="a PNG in SegmentationClass for every id", found=f"none for {few(absent)}"
            )
    else:
        ids = sorted(path.stem for path in folder.glob("*.png"))
    if not ids:
        raise InputError(f"ground truth {gt}", expected="at least one label map", found="none")
    return ids


def read_label_map(path: Path) -> Pixels:
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
            f"label map {path}", expected="0 to 20, or 255 for ignored pixels", found=few([str(v) for v in strange])
        )
    return labels
