"""Choosing masks, labelling prompts, and which masks survive."""

from __future__ import annotations

import numpy as np
import pytest

from gransam_sdk.classes import ClassSet, select_classes
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.select import (
    choose_masks,
    chosen_logits,
    join_touching,
    label_masks,
    softmax,
    stability,
    surviving,
    trusted,
)
from gransam_sdk.types import ClassInfo, MaskChoice, Settings

CLASSES = tuple(ClassInfo(id=i + 1, name=name, threshold=0.6) for i, name in enumerate(("bird", "cat", "dog")))


def class_set(*specs: str, conf: float | None = None) -> ClassSet:
    return select_classes(CLASSES, specs or None, file=None, conf=conf, class_conf={})


def square(side: int, y: int, x: int, size: int) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[y : y + size, x : x + size] = True
    return mask


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("best_iou", [[2], [3]]), ("single", [[0], [0]]), ("whole", [[3], [3]]), ("all3", [[2, 3, 1], [3, 1, 2]])],
)
def test_mask_choice(choice: MaskChoice, expected: list[list[int]]) -> None:
    iou = np.array([[0.99, 0.2, 0.8, 0.1], [0.99, 0.2, 0.1, 0.8]], dtype=np.float32)
    lattice = np.zeros((2, 4, 4, 4), dtype=np.float32)
    assert choose_masks(choice, iou, lattice).tolist() == expected


def test_stable_takes_token_zero_unless_it_wavers() -> None:
    iou = np.array([[0.1, 0.2, 0.8, 0.1]] * 2, dtype=np.float32)
    lattice = np.full((2, 4, 10, 10), -5.0, dtype=np.float32)
    lattice[:, 0, :5] = 5.0
    lattice[1, 0, 5] = 0.01  # between -0.05 and +0.05: 50 of 60 pixels are sure
    assert choose_masks("stable", iou, lattice)[:, 0].tolist() == [0, 2]


def test_stability_is_the_overlap_of_two_cuts() -> None:
    logits = np.full((3, 4, 4), -9.0, dtype=np.float32)
    logits[0, :2] = 9.0
    logits[1, :2] = 9.0
    logits[1, 2] = 0.5
    assert stability(logits).tolist() == pytest.approx([1.0, 8 / 12, 0.0])


def test_softmax_of_huge_logits_is_finite() -> None:
    logits = np.array([[1e4, 0.0], [-1e4, 0.0]], dtype=np.float32)
    assert softmax(logits).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_what_was_not_asked_for_competes_then_drops() -> None:
    logits = np.log(np.array([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.3, 0.1, 0.6]], dtype=np.float32))
    labels = label_masks(logits, class_set("cat", "dog"), Settings())
    assert labels.label.tolist() == [0, -1, 1], "the second prompt is a bird, which nobody asked for"
    assert labels.passed.tolist() == [True, False, True]
    np.testing.assert_allclose(labels.confidence[[0, 2]], [0.8, 0.6], atol=1e-6)


def test_a_group_has_the_sum_of_its_members() -> None:
    logits = np.log(np.array([[0.4, 0.35, 0.25]], dtype=np.float32))
    labels = label_masks(logits, class_set("pet=cat,dog"), Settings())
    assert labels.label.tolist() == [0]
    np.testing.assert_allclose(labels.confidence, [0.6], atol=1e-6)


def test_masks_of_a_prompt_share_its_logits_or_have_their_own() -> None:
    choice = np.array([[2, 3, 1], [3, 1, 2]])
    shared = np.array([[0.0, 1.0], [2.0, 3.0]], dtype=np.float32)
    assert chosen_logits(shared, choice)[:, 0].tolist() == [0, 0, 0, 2, 2, 2]
    own = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    assert chosen_logits(own, choice)[:, 0].tolist() == [2, 4, 0, 10, 6, 8]
    assert chosen_logits(own, choice[:, :1]).tolist() == [[2, 3], [10, 11]]
    assert chosen_logits(own[:0], choice[:0]).shape == (0, 2)


def test_background_that_wins_drops_the_mask_whatever_its_confidence() -> None:
    classes = select_classes(CLASSES, background=True)
    logits = np.log(np.array([[0.2, 0.1, 0.1, 0.6], [0.45, 0.1, 0.05, 0.4]], dtype=np.float32))
    labels = label_masks(logits, classes, Settings(record_floor=0.01))
    assert labels.label.tolist() == [-1, 0] and labels.recorded.tolist() == [False, True]
    np.testing.assert_allclose(labels.confidence, [0.6, 0.45], atol=1e-6)  # not 0.45 of 0.6, the classes' share
    assert [classes.column_names[column] for column in labels.order[1]] == ["bird", "_background", "cat", "dog"]


def test_record_floor_keeps_more_but_passes_no_more() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.9, 0.05, 0.05]], dtype=np.float32))
    strict = label_masks(logits, class_set(), Settings())
    loose = label_masks(logits, class_set(), Settings(record_floor=0.4))
    assert strict.recorded.tolist() == [False, False, True] == loose.passed.tolist()
    assert loose.recorded.tolist() == [True, False, True]
    high_floor = label_masks(logits, class_set(conf=0.45), Settings(record_floor=0.99))
    assert high_floor.recorded.tolist() == [True, False, True], "the floor never hides what passes"


def test_masks_of_low_scores_are_not_trusted() -> None:
    iou, stable = np.array([0.9, 0.5, -0.1], dtype=np.float32), np.array([0.59, 0.6, 1.0], dtype=np.float32)
    assert trusted(iou, stable, Settings()).tolist() == [False, True, True]
    assert trusted(iou, stable, Settings(pred_iou_thresh=0.5)).tolist() == [False, True, False]
    off = Settings(pred_iou_thresh=0.0, stability_score_thresh=0.0)
    assert trusted(iou, np.zeros(3, dtype=np.float32), off).all(), "0 drops nothing, not even below 0"


@pytest.mark.parametrize("name", ["pred_iou_thresh", "stability_score_thresh"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True])
def test_thresholds_outside_their_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        Settings(**{name: value})


def test_survivors_in_order_of_score_and_without_duplicates() -> None:
    masks = np.stack([square(16, 0, 0, 8), square(16, 0, 1, 8), square(16, 8, 8, 8), np.zeros((16, 16), bool)])
    labels = np.array([0, 1, 0, 0])
    scores = np.array([0.5, 0.9, 0.7, 1.0], dtype=np.float32)
    passed = np.ones(4, dtype=bool)
    assert surviving(masks, labels, scores, passed, Settings()).tolist() == [1, 2]
    assert surviving(masks, labels, scores, passed, Settings(class_aware=True)).tolist() == [1, 2, 0]
    assert surviving(masks, labels, scores, passed, Settings(nms_iou=1.0)).tolist() == [1, 2, 0]


def test_recording_more_never_changes_what_passes() -> None:
    """A mask under its threshold may have the better score; it still cannot push out one that passes."""
    masks = np.stack([square(16, 0, 0, 8), square(16, 0, 1, 8)])
    scores = np.array([0.5, 0.6], dtype=np.float32)
    passed = np.array([True, False])
    assert surviving(masks, np.array([0, 1]), scores, passed, Settings()).tolist() == [0]


def test_fragments_inside_a_mask_of_their_class_go() -> None:
    masks = np.stack([square(16, 0, 0, 12), square(16, 1, 1, 4), square(16, 2, 6, 4)])
    scores = np.array([0.4, 0.9, 0.8], dtype=np.float32)
    passed = np.ones(3, dtype=bool)
    labels = np.array([0, 0, 1])
    assert surviving(masks, labels, scores, passed, Settings()).tolist() == [2, 0]
    assert surviving(masks, labels, scores, passed, Settings(containment=1.0)).tolist() == [1, 2, 0]


def test_touching_fragments_join_into_the_best() -> None:
    masks = np.stack([square(16, 0, 0, 4), square(16, 0, 4, 4), square(16, 8, 8, 4), square(16, 4, 0, 4)])
    logits = np.where(masks, 2.0, -2.0).astype(np.float32)
    joined, leaders = join_touching(logits, masks, np.array([0, 0, 0, 1]), np.ones(4, dtype=bool))
    assert leaders.tolist() == [0, 2, 3]
    assert ((joined[0] > 0) == (masks[0] | masks[1])).all()
    _, leaders = join_touching(logits, masks, np.array([0, 0, 0, 1]), np.array([True, False, True, True]))
    assert leaders.tolist() == [0, 1, 2, 3]
