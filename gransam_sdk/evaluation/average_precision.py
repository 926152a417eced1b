"""Average precision as COCO counts it, of single masks and of whole regions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import MissingExtraError
from ..rle import rle_area, rle_decode, rle_encode
from ..shapes import Int
from ..types import Rle
from .miou import Float64, mean_iou

MAX_DETECTIONS = 100
"""Of one class in one photo, the best ones; the rest is not looked at (COCO's rule)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A mask of one class in one photo: an annotated instance, a predicted one, or what a union of such makes.

    Attributes:
        photo: Index of the photo.
        value: The class's place among the names, from 1.
        mask: Its pixels.
        score: What ranks a prediction; of no meaning in the ground truth.
        crowd: Ground truth that marks many instances at once: what lies in it is neither right nor wrong.
    """

    photo: int
    value: int
    mask: Rle
    score: float = 1.0
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePrecision:
    """Area under the curve of precision over recall, of each class; fractions, not per cent.

    Attributes:
        ap50: (k,) float64, a prediction being right from IoU 0.50 on; NaN for a class without ground truth.
        ap: (k,) float64, mean over IoU 0.50, 0.55, ... 0.95.
        true: (k,) int64 regions in the ground truth, without crowds.
        found: (k,) int64 predicted regions.
    """

    ap50: Float64
    ap: Float64
    true: Int
    found: Int

    @property
    def mean_ap50(self) -> float:
        """Mean of ``ap50`` over the classes that have ground truth; NaN if none has."""
        return float(mean_iou(self.ap50))

    @property
    def mean_ap(self) -> float:
        """Mean of ``ap`` over the classes that have ground truth; NaN if none has."""
        return float(mean_iou(self.ap))


def require_pycocotools() -> None:
    """Says before any work is done that a package is missing.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pycocotools is not installed", do='pip install "gransam-sdk[formats]"') from error


def average_precision(
    truth: Sequence[Region], found: Sequence[Region], *, classes: int, photos: int
) -> AveragePrecision:
    """COCO's average precision of masks: 101 points of recall, at most 100 predictions a class and photo, all sizes.

    Args:
        truth: Annotated regions.
        found: Predicted ones; by falling score each takes the free region of its class that it overlaps best.
        classes: k classes, background not counted.
        photos: Photos that the regions' ``photo`` counts.
    """
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        evaluation = COCOeval(_dataset(truth, classes, photos), _dataset(found, classes, photos), "segm")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, float("inf")]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # (IoU, recall, k)
    precision = np.where(precision < 0, np.nan, precision)  # -1: no ground truth
    return AveragePrecision(
        ap50=precision[0].mean(axis=0),
        ap=precision.mean(axis=(0, 1)),
        true=_count((region for region in truth if not region.crowd), classes),
        found=_count(found, classes),
    )


def union_regions(truth: Sequence[Region], found: Sequence[Region]) -> tuple[list[Region], list[Region]]:
    """One region a class and photo: the union of its masks, with the highest of their scores (methods A9 (ii)).

    The pixels of a crowd, where no instance of its class lies, count nowhere: they are taken from the predicted region
    of that class, and a prediction that has no others is dropped. The crowd itself is not a region to be found.

    Args:
        truth: Annotated instances and crowds.
        found: Predicted instances.

    Returns:
        Annotated and predicted regions.
    """
    regions = _unions(region for region in truth if not region.crowd)
    crowds = _unions(region for region in truth if region.crowd)
    predicted = []
    for key, region in _unions(found).items():
        if key in crowds:
            pixels = rle_decode(region.mask)
            uncounted = rle_decode(crowds[key].mask)
            if key in regions:
                uncounted &= ~rle_decode(regions[key].mask)
            pixels &= ~uncounted
            if not pixels.any():
                continue
            region = replace(region, mask=rle_encode(pixels))
        predicted.append(region)
    return list(regions.values()), predicted


def _unions(regions: Iterable[Region]) -> dict[tuple[int, int], Region]:
    """Union by photo and class."""
    from pycocotools import mask as coco_mask

    gathered: dict[tuple[int, int], list[Region]] = {}
    for region in regions:
        gathered.setdefault((region.photo, region.value), []).append(region)
    united = {}
    for key, parts in gathered.items():
        merged = coco_mask.merge([part.mask for part in parts], intersect=False)
        mask: Rle = {"size": list(parts[0].mask["size"]), "counts": merged["counts"].decode("ascii")}
        united[key] = Region(photo=key[0], value=key[1], mask=mask, score=max(part.score for part in parts))
    return united


def _dataset(regions: Sequence[Region], classes: int, photos: int) -> Any:
    """What COCOeval takes, made in memory; ids count from 1 because it takes 0 for "no match"."""
    from pycocotools.coco import COCO

    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": photo} for photo in range(photos)],
        "categories": [{"id": value} for value in range(1, classes + 1)],
        "annotations": [
            {
                "id": number,
                "image_id": region.photo,
                "category_id": region.value,
                "segmentation": region.mask,
                "area": rle_area(region.mask),
                "iscrowd": int(region.crowd),
                "score": region.score,
            }
            for number, region in enumerate(regions, start=1)
        ],
    }
    for annotation in dataset.dataset["annotations"]:
        height, width = annotation["segmentation"]["size"]
        dataset.dataset["images"][annotation["image_id"]] |= {"height": height, "width": width}
    dataset.createIndex()
    return dataset


def _count(regions: Iterable[Region], classes: int) -> Int:
    return np.bincount([region.value - 1 for region in regions], minlength=classes).astype(np.int64)
