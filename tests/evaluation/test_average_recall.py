"""Average recall against pycocotools' COCOeval, to the last instance."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hand_coco import box, compressed
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.average_recall import average_recall, overlaps, recall_of

SIZE = (90, 120)


def random_photos(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Eight photos with 0 to 6 boxes, small and large, some of them crowded together, and 0 to 40 guesses at them."""
    random = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(8):
        true, guesses = [np.zeros((0, *SIZE), dtype=bool)], [np.zeros((0, *SIZE), dtype=bool)]
        for _ in range(int(random.integers(0, 7))):
            y, x = (int(v) for v in random.integers(0, 40, 2))
            h, w = (int(v) for v in random.integers(8, 50, 2))
            true.append(box(y, y + h, x, x + w, SIZE)[None])
            for _ in range(int(random.integers(0, 8))):
                dy, dx, dh, dw = (int(v) for v in random.integers(-4, 5, 4))
                guesses.append(box(max(y + dy, 0), y + h + dh, max(x + dx, 0), x + w + dw, SIZE)[None])
        stack = np.concatenate(guesses)
        truths.append(np.concatenate(true))
        found.append(stack[random.permutation(len(stack))])
    return truths, found


def coco_recall(truths: list[np.ndarray], found: list[np.ndarray], limit: int) -> tuple[float, float]:
    """AR and AR of instances from 32² px by COCOeval, without classes; -1 means no instance."""
    truth, guesses = (dataset(photos) for photos in (truths, found))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, guesses, "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [limit]
        evaluation.params.areaRng = [[0, 1e10], [32**2, 1e10]]
        evaluation.params.areaRngLbl = ["all", "large"]
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"]  # (IoU, classes, areas, limits)
    return float(recall[:, 0, 0, 0].mean()), float(recall[:, 0, 1, 0].mean())


def dataset(photos: list[np.ndarray]) -> COCO:
    rows: list[dict[str, Any]] = []
    for photo, masks in enumerate(photos):
        for place, mask in enumerate(masks):
            row = {"id": len(rows) + 1, "image_id": photo, "category_id": 1, "segmentation": compressed(mask)}
            rows.append(row | {"area": int(mask.sum()), "iscrowd": 0, "score": 1 - place / 1000})
    made = COCO()
    images = [{"id": photo, "height": SIZE[0], "width": SIZE[1]} for photo in range(len(photos))]
    made.dataset = {"images": images, "categories": [{"id": 1}], "annotations": rows}
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


@pytest.mark.parametrize("limit", [1, 5, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_recall_equals_pycocotools(seed: int, limit: int) -> None:
    truths, found = random_photos(seed)
    result = average_recall(truths, found, limit)
    ar, large = coco_recall(truths, found, limit)
    assert 0 < ar < 1 and ar != large, "a case that tells nothing apart proves nothing"
    assert result.ar == pytest.approx(ar, abs=1e-12)
    assert result.ar_large == pytest.approx(large, abs=1e-12)
    assert result.true == sum(map(len, truths))
    assert result.found == sum(min(len(masks), limit) for masks in found)


def test_a_case_counted_by_hand() -> None:
    truth = np.stack([box(0, 40, 0, 40, SIZE), box(50, 60, 0, 10, SIZE)])  # 1600 px and 100 px
    found = np.stack([box(50, 60, 0, 8, SIZE), box(0, 40, 0, 40, SIZE)])  # IoU 0.8 (7 of 10 steps) and 1
    both = average_recall([truth], [found], 2)
    assert (both.ar, both.ar_large) == (pytest.approx(17 / 20), 1.0)
    one = average_recall([truth], [found], 1)
    assert (one.ar, one.ar_large) == (pytest.approx(7 / 20), 0.0)


def test_an_instance_is_found_once_and_a_proposal_finds_one() -> None:
    twice = np.stack([box(0, 40, 0, 40, SIZE)] * 2)
    assert average_recall([twice[:1]], [twice], 9).ar == 1.0
    assert average_recall([twice], [twice[:1]], 9).ar == 0.5


def test_overlaps_taken_once_serve_every_limit() -> None:
    truths, found = random_photos(11)
    photos = [overlaps(truth, masks) for truth, masks in zip(truths, found, strict=True)]
    for limit in (1, 3, 10, 1000):
        assert recall_of(photos, limit) == average_recall(iter(truths), iter(found), limit)


def test_without_instances_recall_is_not_a_number() -> None:
    nothing = np.zeros((0, *SIZE), dtype=bool)
    result = average_recall([nothing], [box(0, 9, 0, 9, SIZE)[None]], 5)
    assert np.isnan(result.ar) and np.isnan(result.ar_large)
    small = average_recall([box(0, 9, 0, 9, SIZE)[None]], [nothing], 5)
    assert small.ar == 0.0 and np.isnan(small.ar_large)


def test_what_does_not_fit_together_is_refused() -> None:
    masks = np.zeros((1, *SIZE), dtype=bool)
    with pytest.raises(InputError, match="photos"):
        average_recall([masks, masks], [masks], 5)
    with pytest.raises(InputError, match="proposals"):
        average_recall([masks], [masks[:, :, 1:]], 5)
    with pytest.raises(InputError, match="truths"):
        average_recall([masks.astype(np.uint8)], [masks], 5)
    with pytest.raises(InputError, match="limit"):
        average_recall([masks], [masks], 0)
