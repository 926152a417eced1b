"""COCO: a run's records against annotated instances; mIoU, and average precision of instances and of regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotate.exporters import kept_annotations
from ..annotate.exporters.voc import semantic_map
from ..errors import InputError
from ..shapes import Int
from .average_precision import AveragePrecision, Region, average_precision, require_pycocotools, union_regions
from .class_names import COCO_CLASSES, COCO_VALUES, VOC_CLASSES, VOC_VALUES
from .coco_truth import read_instances
from .labelled_run import LabelledRun, compare_maps, few, matched_records, read_run
from .outcome import Evaluation, percent, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoEvaluation:
    """How well a run agrees with COCO's instances.

    Attributes:
        semantic: IoU of label maps, over background and k classes.
        instances: Every mask against annotated instances.
        regions: A photo's masks of one class, as one region, against the union of its instances of that class.
    """

    semantic: Evaluation
    instances: AveragePrecision
    regions: AveragePrecision

    def to_json(self) -> dict[str, Any]:
        """All means and every class, in per cent; a class without ground truth is null in the precisions."""
        return self.semantic.to_json() | {
            "instance_ap50": percent(self.instances.mean_ap50),
            "instance_ap": percent(self.instances.mean_ap),
            "region_ap50": percent(self.regions.mean_ap50),
            "ap_by_class": {
                name: {
                    "instance_ap50": percent(float(self.instances.ap50[i])),
                    "instance_ap": percent(float(self.instances.ap[i])),
                    "region_ap50": percent(float(self.regions.ap50[i])),
                    "true_instances": int(self.instances.true[i]),
                    "found_instances": int(self.instances.found[i]),
                }
                for i, name in enumerate(self.semantic.classes[1:])
            },
        }

    def table(self) -> str:
        """The table of label maps, then one of precisions: a class a line, and the means."""
        names = self.semantic.classes[1:]
        width = max(14, 2 + max(map(len, names)))
        heads = ("inst. AP50", "inst. AP", "region AP50", "true", "found")
        lines = [f"{'class':<{width}}" + "".join(f"{head:>13}" for head in heads)]
        for i, name in enumerate(names):
            fractions = (self.instances.ap50[i], self.instances.ap[i], self.regions.ap50[i])
            counts = (self.instances.true[i], self.instances.found[i])
            lines.append(f"{name:<{width}}" + _cells(fractions) + "".join(f"{count:>13}" for count in counts))
        means = (self.instances.mean_ap50, self.instances.mean_ap, self.regions.mean_ap50)
        lines += ["", f"{'mean':<{width}}{_cells(means)}", ""]
        lines.append("Precisions in %; classes without ground truth are absent from their means.")
        return "\n".join([self.semantic.table(), "", *lines])


def evaluate_coco(
    run: str | Path,
    gt: str | Path,
    *,
    conf: float | Mapping[str, float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> CocoEvaluation:
    """Compares a run's records with COCO's instances; needs no model and reads no photo.

    Labels that all stand for classes of VOC are evaluated over these 20, which COCO has too; if there are others, over
    COCO's 80. Instances of other classes are no ground truth: where no instance of the evaluated ones lies, their
    pixels are background. A crowd's pixels count nowhere.

    Args:
        run: Folder that ``gransam annotate`` filled.
        gt: Folder with an ``instances.json``; every photo that it lists is evaluated. The record of a photo is the one
            whose photo has the same file name without extension.
        conf: One confidence threshold, or thresholds by label, over those of the run.
        bootstrap: Photo sets to draw for the 95 % intervals of the IoU, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: No run, no ground truth, labels that COCO does not know, a listed photo without a record or with
            two, sizes that differ, a threshold below what the run recorded.
        MissingExtraError: pycocotools is not installed.
    """
    require_pycocotools()
    labelled = read_run(Path(run), conf)
    names, meanings, values = _label_values(labelled)
    path = Path(gt) / "instances.json"
    photos = {photo.name: photo for photo in read_instances(path, meanings)}
    places = {name: place for place, name in enumerate(photos)}
    confusions: dict[str, Int] = {}
    found: list[Region] = []
    extra = 0
    for photo, record in matched_records(labelled.folder, list(photos), path):
        if photo is None:
            extra += 1
            continue
        kept = kept_annotations(record, labelled.classes)
        predicted, truth_map = semantic_map(record, kept, values), photos[photo].label_map()
        confusions[photo] = compare_maps(truth_map, predicted, len(names), record=record, source=str(path))
        found += [
            Region(photo=places[photo], value=values[a["category_id"]], mask=a["segmentation"], score=a["score"])
            for a in kept
        ]
    truth = [region for photo in photos.values() for region in photo.regions]
    not_asked = tuple(name for value, name in enumerate(names) if value and value not in values.values())
    k, p = len(names) - 1, len(photos)
    return CocoEvaluation(
        semantic=summarise(confusions, names, not_asked=not_asked, extra=extra, bootstrap=bootstrap, seed=seed),
        instances=average_precision(truth, found, classes=k, photos=p),
        regions=average_precision(*union_regions(truth, found), classes=k, photos=p),
    )


def _label_values(labelled: LabelledRun) -> tuple[tuple[str, ...], Mapping[str, int], dict[int, int]]:
    """The names to evaluate over, their values by category name, and the value of each ``category_id``."""
    strange: tuple[str, ...] = ()
    for names, meanings in ((VOC_CLASSES, VOC_VALUES), (COCO_CLASSES, COCO_VALUES)):
        values, strange = labelled.values(meanings)
        if not strange:
            return names, meanings, values
    raise InputError(
        "labels of the run",
        expected="classes of VOC or of COCO, one a label",
        found=few(strange),
        do="a group or another class has no COCO ground truth: annotate into a new folder without it",
    )


def _cells(fractions: tuple[float, ...]) -> str:
    shown = [percent(float(fraction)) for fraction in fractions]
    return "".join(f"{'absent' if value is None else f'{value:.2f}':>13}" for value in shown)
