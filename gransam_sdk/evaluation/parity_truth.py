"""What a difference between two models costs: mIoU of each against the same ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..annotate.exporters import class_entries, kept_annotations
from ..annotate.exporters.voc import semantic_map
from ..annotate.record import make_record
from ..bundle import Bundle
from ..errors import InputError
from ..runtime.result import Result
from ..shapes import Int, Pixels
from .class_names import COCO_CLASSES, COCO_VALUES, VOC_CLASSES, VOC_VALUES
from .coco_truth import TruePhoto, read_instances
from .labelled_run import LabelledRun, compare_maps, few
from .miou import class_iou, mean_iou
from .parity_answers import all_classes
from .voc import read_label_map as read_label_map


class Truth:
    """Ground truth for some of the photos, as ``gransam eval`` reads it; photos that it does not list do not count.

    Args:
        gt: ``voc:DIR`` or ``coco:DIR``.
        bundle: Its classes are VOC's, or, for coco, COCO's.

    Raises:
        InputError: Another form, no ground truth there, or classes that it does not know.
        MissingExtraError: pycocotools is needed and not installed.
    """

    def __init__(self, gt: str, bundle: Bundle) -> None:
        kind, _, folder = gt.partition(":")
        if kind not in ("voc", "coco") or not folder:
            raise InputError("--gt", expected="voc:DIR or coco:DIR", found=repr(gt))
        self._folder = Path(folder)
        table = all_classes(bundle).to_json()
        names = {i + 1: (info.name.lower(),) for i, info in enumerate(bundle.classes)}
        run = LabelledRun(folder=Path(), classes=class_entries(table), members=names)
        self._entries = run.classes
        self.names, meanings, self._values = _values(run, kind)
        self._photos: dict[str, TruePhoto] = {}
        if kind == "coco":
            self._photos = {p.name: p for p in read_instances(self._folder / "instances.json", meanings)}
        elif not (self._folder / "SegmentationClass").is_dir():
            raise InputError(f"ground truth {folder}", expected="a folder SegmentationClass in it", found="none")
        self._totals: list[Int] = [np.zeros((len(self.names),) * 2, dtype=np.int64) for _ in range(2)]
        self.photos = 0

    def add(self, photo: Path, found: Result | None, expected: Result | None) -> None:
        """What both models keep on one photo."""
        truth = self._map(photo)
        if truth is None or found is None or expected is None:
            return
        self.photos += 1
        for total, result in zip(self._totals, (found, expected), strict=True):
            record = make_record(result, key=photo.name, sha256="0" * 64, orientation=1)
            predicted = semantic_map(record, kept_annotations(record, self._entries), self._values)
            total += compare_maps(truth, predicted, len(self.names), record=record, source=str(self._folder))

    def change(self) -> float | None:
        """mIoU of the judged model less the reference's, in points of per cent; None where no photo counted."""
        if not self.photos:
            return None
        found, expected = (float(mean_iou(class_iou(total))) for total in self._totals)
        return 100 * (found - expected)

    def _map(self, photo: Path) -> Pixels | None:
        """(h,w) uint8 labels; None for a photo without ground truth."""
        if self._photos:
            listed = self._photos.get(photo.stem)
            return listed.label_map() if listed else None
        path = self._folder / "SegmentationClass" / f"{photo.stem}.png"
        return read_label_map(path) if path.is_file() else None


def _values(run: LabelledRun, kind: str) -> tuple[tuple[str, ...], dict[str, int], dict[int, int]]:
    """Names to evaluate over, their values by class name, and the value of each class id."""
    kinds = [(VOC_CLASSES, VOC_VALUES)] + ([(COCO_CLASSES, COCO_VALUES)] if kind == "coco" else [])
    strange: tuple[str, ...] = ()
    for names, meanings in kinds:
        values, strange = run.values(meanings)
        if not strange and values:
            return names, meanings, values
    raise InputError(
        "--gt", expected=f"a bundle with a head whose classes are {kind.upper()}'s", found=few(strange) or "no classes"
    )
