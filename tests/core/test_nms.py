"""Mask NMS, containment and touching groups against plain Python over sets of pixels, and against pycocotools' IoU."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from gransam_sdk import nms
from gransam_sdk.errors import InputError
from gransam_sdk.nms import drop_contained, mask_iou, mask_nms, touching_groups
from gransam_sdk.rle import rle_encode


def boxes_and_noise(seed: int, n: int, low: int = 24) -> np.ndarray:
    """Overlapping boxes with ragged edges; every seventh mask is empty, every fifth equals an earlier one."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, low, low), dtype=np.bool_)
    for i in range(n):
        y, x = rng.integers(0, low - 4, 2)
        h, w = rng.integers(2, low // 2, 2)
        masks[i, y : y + h, x : x + w] = rng.random(masks[i, y : y + h, x : x + w].shape) < 0.9
        if i % 7 == 6:
            masks[i] = False
        if i % 5 == 4:
            masks[i] = masks[rng.integers(0, i)]
    return masks


def pixels_of(masks: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(mask).tolist()) for mask in masks]


def slow_iou(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def slow_nms(masks: np.ndarray, scores: Any, threshold: float, classes: Any, tiers: Any) -> list[int]:
    pixels, kept = pixels_of(masks), []
    for i in sorted(range(len(masks)), key=lambda i: (tiers[i], -scores[i], i)):
        rivals = [j for j in kept if classes is None or classes[j] == classes[i]]
        if all(slow_iou(pixels[i], pixels[j]) <= threshold for j in rivals):
            kept.append(i)
    return kept


def slow_drop_contained(masks: np.ndarray, classes: Any, threshold: float, tiers: Any) -> list[int]:
    pixels, kept = pixels_of(masks), []
    for i in sorted(range(len(masks)), key=lambda i: (-len(pixels[i]), i)):
        larger = [j for j in kept if classes[j] == classes[i] and tiers[j] <= tiers[i]]
        if not any(pixels[i] and len(pixels[i] & pixels[j]) / len(pixels[i]) > threshold for j in larger):
            kept.append(i)
    return sorted(kept)


def slow_groups(masks: np.ndarray, classes: Any) -> list[int]:
    """Union-find over pairs of pixels at distance 0 or 1."""
    parent = list(range(len(masks)))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    cells = [{(int(y), int(x)) for y, x in np.argwhere(mask)} for mask in masks]
    for i in range(len(masks)):
        for j in range(i):
            near = any((y + dy, x + dx) in cells[j] for y, x in cells[i] for dy, dx in STEPS)
            if classes[i] == classes[j] and near:
                parent[max(find(i), find(j))] = min(find(i), find(j))
    order = list(dict.fromkeys(find(i) for i in range(len(masks))))
    return [order.index(find(i)) for i in range(len(masks))]


STEPS = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9, 1.0])
def test_nms_equals_plain_python(seed: int, threshold: float) -> None:
    masks = boxes_and_noise(seed, 60)
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 60).astype(np.float32) / 8  # many ties
    classes, tiers = rng.integers(1, 4, 60), rng.integers(0, 2, 60)
    for some_classes in (None, classes):
        for some_tiers in (None, tiers):
            kept = mask_nms(masks, scores, threshold, classes=some_classes, tiers=some_tiers)
            assert kept.dtype == np.int64
            expected = slow_nms(masks, scores, threshold, some_classes, np.zeros(60) if some_tiers is None else tiers)
            assert kept.tolist() == expected
    assert threshold == 1.0 or len(mask_nms(masks, scores, threshold)) < 60


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.3, 0.8, 1.0])
def test_containment_equals_plain_python(seed: int, threshold: float) -> None:
    masks = boxes_and_noise(seed, 60)
    rng = np.random.default_rng(seed)
    classes, tiers = rng.integers(1, 3, 60), rng.integers(0, 2, 60)
    kept = drop_contained(masks, classes, threshold, tiers=tiers)
    assert kept.dtype == np.int64
    assert kept.tolist() == slow_drop_contained(masks, classes, threshold, tiers)
    assert drop_contained(masks, classes, threshold).tolist() == slow_drop_contained(
        masks, classes, threshold, np.zeros(60)
    )


@given(seed=st.integers(0, 10_000), numerator=st.integers(1, 8), denominator=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_thresholds_that_masks_meet_exactly(seed: int, numerator: int, denominator: int) -> None:
    """Small masks have IoUs such as 1/2 and 4/5; equal to the threshold is kept, as in exact fractions."""
    masks = np.random.default_rng(seed).random((12, 2, 4)) < 0.6
    threshold = min(Fraction(numerator, denominator), Fraction(1))
    pixels, kept = pixels_of(masks), []
    for i in range(len(masks)):
        unions = [(len(pixels[i] & pixels[j]), len(pixels[i] | pixels[j])) for j in kept]
        if all(common <= threshold * union for common, union in unions):
            kept.append(i)
    assert mask_nms(masks, np.zeros(12, dtype=np.float32), float(threshold)).tolist() == kept


def test_iou_equals_pycocotools() -> None:
    masks, others = boxes_and_noise(3, 40), boxes_and_noise(4, 30)
    codes, other_codes = [rle_encode(m) for m in masks], [rle_encode(m) for m in others]
    expected = coco.iou(codes, other_codes, [0] * 30)
    iou = mask_iou(masks, others)
    assert iou.dtype == np.float32 and iou.shape == (40, 30)
    np.testing.assert_array_equal(iou, expected.astype(np.float32))
    square = mask_iou(masks)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_array_equal(square.diagonal(), masks.any(axis=(1, 2)).astype(np.float32))


def test_counts_are_exact_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = boxes_and_noise(5, 20)
    whole = mask_iou(masks)
    monkeypatch.setattr(nms, "_BLOCK_PIXELS", 7)
    np.testing.assert_array_equal(mask_iou(masks), whole)


def test_counts_are_exact_above_what_float32_holds() -> None:
    """2^24 + 2 and 2^24 + 1 pixels: one float32 sum would call these masks equal."""
    masks = np.ones((2, 1, 2**24 + 2), dtype=np.bool_)
    masks[1, 0, 0] = False
    assert mask_nms(masks, np.array([1.0, 0.0]), (2**24 + 1) / (2**24 + 2)).tolist() == [0, 1]
    assert mask_nms(masks, np.array([1.0, 0.0]), 2**24 / (2**24 + 2)).tolist() == [0]


def test_the_block_is_small_enough_for_float32() -> None:
    assert nms._BLOCK_PIXELS < 2**24


def test_empty_masks_are_like_nothing() -> None:
    masks = np.zeros((3, 5, 5), dtype=np.bool_)
    masks[2] = True
    np.testing.assert_array_equal(mask_iou(masks), np.diag([0, 0, 1]))
    assert mask_nms(masks, np.array([1.0, 1.0, 1.0])).tolist() == [0, 1, 2]
    assert drop_contained(masks, np.ones(3, dtype=np.int64)).tolist() == [0, 1, 2]
    assert touching_groups(masks, np.ones(3, dtype=np.int64)).tolist() == [0, 1, 2]


def test_no_masks_at_all() -> None:
    none = np.zeros((0, 5, 5), dtype=np.bool_)
    empty = np.zeros(0, dtype=np.int64)
    assert mask_iou(none).shape == (0, 0)
    assert mask_iou(none, np.ones((2, 5, 5), dtype=np.bool_)).shape == (0, 2)
    for kept in (mask_nms(none, empty), drop_contained(none, empty), touching_groups(none, empty)):
        assert kept.shape == (0,) and kept.dtype == np.int64


def test_a_lower_tier_wins_over_a_higher_score() -> None:
    masks = np.ones((2, 4, 4), dtype=np.bool_)
    scores, tiers = np.array([0.1, 0.9]), np.array([0, 1])
    assert mask_nms(masks, scores, tiers=tiers).tolist() == [0]
    assert mask_nms(masks, scores).tolist() == [1]


def test_a_chain_is_cut_by_what_is_kept_only() -> None:
    """b is like a and like c, but a is not like c: once a has dropped b, c stays."""
    masks = np.zeros((3, 1, 30), dtype=np.bool_)
    masks[0, 0, 0:12], masks[1, 0, 4:16], masks[2, 0, 8:20] = True, True, True
    assert mask_iou(masks)[0, 1] == 0.5 and mask_iou(masks)[0, 2] == 0.2
    assert mask_nms(masks, np.array([3.0, 2.0, 1.0]), 0.4).tolist() == [0, 2]


def test_a_part_in_a_better_tier_survives_its_whole() -> None:
    masks = np.zeros((2, 8, 8), dtype=np.bool_)
    masks[0], masks[1, :2, :2] = True, True
    one_class = np.array([4, 4])
    assert drop_contained(masks, one_class).tolist() == [0]
    assert drop_contained(masks, np.array([4, 5])).tolist() == [0, 1]
    assert drop_contained(masks, one_class, tiers=np.array([1, 0])).tolist() == [0, 1]
    assert drop_contained(masks, one_class, tiers=np.array([0, 1])).tolist() == [0]


def test_of_two_equal_masks_the_first_stays() -> None:
    masks = np.ones((3, 4, 4), dtype=np.bool_)
    assert drop_contained(masks, np.array([1, 1, 1])).tolist() == [0]
    assert drop_contained(masks, np.array([1, 1, 1]), 1.0).tolist() == [0, 1, 2]


def draw(*rows: str) -> np.ndarray:
    """Masks from a drawing: one mask for each letter, in the alphabet's order."""
    picture = np.array([list(row) for row in rows])
    return np.stack([picture == letter for letter in sorted(set(picture.ravel()) - {"."})])


@pytest.mark.parametrize(
    ("drawing", "classes", "expected"),
    [
        (["aab.."], [1, 1], [0, 0]),
        (["aab.."], [1, 2], [0, 1]),
        (["aa.b."], [1, 1], [0, 1]),
        (["a....", ".b..."], [1, 1], [0, 1]),  # corners do not touch
        (["a....", "b...."], [1, 1], [0, 0]),
        (["abc..", "....d"], [1, 1, 1, 1], [0, 0, 0, 1]),
        (["a.b..", "ccc.."], [1, 1, 1], [0, 0, 0]),  # a and b touch through c, which comes last
        (["a.b.d", "ccc.."], [1, 1, 2, 1], [0, 1, 2, 3]),
        (["a...b"], [1, 1], [0, 1]),  # the right edge does not touch the left one of the same or the next row
        (["....a", "b...."], [1, 1], [0, 1]),
        (["a.b.c", "d.e.f", "gg.hf"], [1] * 8, [0, 1, 2, 0, 1, 2, 0, 2]),
        (["hgfedcba"], [1] * 8, [0] * 8),
    ],
)
def test_groups_by_hand(drawing: list[str], classes: list[int], expected: list[int]) -> None:
    groups = touching_groups(draw(*drawing), np.array(classes))
    assert groups.dtype == np.int64
    assert groups.tolist() == expected


def test_overlapping_masks_hang_together() -> None:
    masks = np.zeros((2, 6, 6), dtype=np.bool_)
    masks[0, :4, :4], masks[1, 1:3, 1:3] = True, True
    assert touching_groups(masks, np.array([1, 1])).tolist() == [0, 0]
    assert not masks[1, 0, 0], "the masks given are not changed"


@pytest.mark.parametrize("seed", range(6))
def test_groups_equal_union_find(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((30, 20, 20), dtype=np.bool_)
    for mask in masks:
        y, x, h, w = rng.integers([0, 0, 1, 1], [18, 18, 5, 5])
        mask[y : y + h, x : x + w] = True
    classes = rng.integers(1, 3, 30)
    expected = slow_groups(masks, classes)
    assert touching_groups(masks, classes).tolist() == expected
    assert 1 < len(set(expected)) < 30


GOOD = np.ones((3, 4, 4), dtype=np.bool_)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mask_nms(GOOD.astype(np.uint8), np.zeros(3)),
        lambda: mask_nms(GOOD, np.zeros(2)),
        lambda: mask_nms(GOOD, np.zeros((3, 1))),
        lambda: mask_nms(GOOD, np.zeros(3), classes=np.zeros(4)),
        lambda: mask_nms(GOOD, np.zeros(3), tiers=np.zeros(4)),
        lambda: mask_nms(list(GOOD), np.zeros(3)),  # type: ignore[arg-type]
        lambda: mask_iou(np.ones(3, dtype=np.bool_)),
        lambda: mask_iou(GOOD, np.ones((3, 4, 5), dtype=np.bool_)),
        lambda: drop_contained(GOOD, np.zeros(2)),
        lambda: drop_contained(GOOD, np.zeros(3), tiers=np.zeros(2)),
        lambda: touching_groups(GOOD, np.zeros(2)),
        lambda: touching_groups(GOOD[0], np.zeros(4)),
        lambda: touching_groups(GOOD.astype(np.float32), np.zeros(3)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call: Any) -> None:
    with pytest.raises(InputError):
        call()
