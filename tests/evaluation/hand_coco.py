"""COCO ground truths made by hand, and COCO's average precision in plain loops over dense masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from gransam_sdk.evaluation.average_precision import Region
from gransam_sdk.rle import rle_decode, rle_encode

CATEGORIES = {"person": 1, "car": 3, "cat": 17, "bottle": 44, "cup": 47, "couch": 63, "dining table": 67, "tv": 72}
"""Some of COCO's, by their ids there."""
SIZE = (24, 32)


def box(y0: int, y1: int, x0: int, x1: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed form, as it writes crowds."""
    counts, value, length = [], False, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


def instance(name: str, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {"category_id": CATEGORIES[name], "segmentation": segmentation, "iscrowd": crowd}


def write_truth(
    gt: Path,
    photos: Mapping[str, Sequence[Mapping[str, Any]]],
    size: tuple[int, int] = SIZE,
    categories: Mapping[str, int] = CATEGORIES,
) -> Path:
    """``instances.json`` of photos named as the keys; area and box as COCO's own file has them."""
    gt.mkdir(exist_ok=True)
    images, rows = [], []
    for image, (photo, found) in enumerate(photos.items(), start=700):
        images.append({"id": image, "file_name": f"{photo}.jpg", "height": size[0], "width": size[1]})
        for each in found:
            form = each["segmentation"]
            if isinstance(form, list):
                code = coco_mask.merge(coco_mask.frPyObjects(form, *size))
            else:
                code = coco_mask.frPyObjects(form, *size) if isinstance(form["counts"], list) else form
            box_of = [float(v) for v in coco_mask.toBbox(code)]
            area = float(coco_mask.area(code))
            rows.append({"id": len(rows) + 1, "image_id": image, "area": area, "bbox": box_of, **each})
    table = [{"id": number, "name": name} for name, number in categories.items()]
    (gt / "instances.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": table}))
    return gt


def region(photo: int, value: int, mask: np.ndarray, score: float = 1.0, crowd: bool = False) -> Region:
    return Region(photo=photo, value=value, mask=rle_encode(mask), score=score, crowd=crowd)


def reference_ap(truth: Sequence[Region], found: Sequence[Region], value: int, least: float) -> float | None:
    """Average precision of one class at one IoU: greedy matching, 101 points, at most 100 predictions a photo."""
    wanted = sum(each.value == value and not each.crowd for each in truth)
    if not wanted:
        return None
    verdicts = []
    for photo in sorted({each.photo for each in [*truth, *found]}):
        real = [each for each in truth if (each.photo, each.value) == (photo, value)]
        guesses = sorted((e for e in found if (e.photo, e.value) == (photo, value)), key=lambda e: -e.score)[:100]
        taken: set[int] = set()
        for guess in guesses:
            pixels, best, overlap = rle_decode(guess.mask), None, least
            for i, each in enumerate(real):
                other = rle_decode(each.mask)
                if not each.crowd and i not in taken:
                    iou = (pixels & other).sum() / (pixels | other).sum()
                    if iou >= overlap:
                        best, overlap = i, iou
            if best is not None:
                taken.add(best)
                verdicts.append((guess.score, True))
            elif not any(
                each.crowd and (pixels & rle_decode(each.mask)).sum() / pixels.sum() >= least for each in real
            ):
                verdicts.append((guess.score, False))
    verdicts.sort(key=lambda verdict: -verdict[0])
    hits, curve = 0, []
    for rank, (_, right) in enumerate(verdicts, start=1):
        hits += right
        curve.append((hits / wanted, hits / rank))
    points = [max((p for r, p in curve if r >= step / 100 - 1e-12), default=0.0) for step in range(101)]
    return sum(points) / 101
