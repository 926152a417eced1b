"""Average precision against plain loops over dense masks, and regions against unions made by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hand_coco import box, reference_ap, region

from gransam_sdk.errors import MissingExtraError
from gransam_sdk.evaluation.average_precision import Region, average_precision, require_pycocotools, union_regions
from gransam_sdk.rle import rle_decode

THRESHOLDS = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def random_case(seed: int) -> tuple[list[Region], list[Region]]:
    """Blocks in eight photos of three classes, shifted a little or a lot; class 4 is never in the truth."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    scores = iter(random.permutation(1000) / 1000)  # no two alike: the order of ties is nobody's business
    for photo in range(8):
        for _ in range(int(random.integers(0, 5))):
            y, x, value = (int(v) for v in random.integers((0, 0, 1), (14, 20, 4)))
            crowd = bool(random.random() < 0.2)
            truth.append(region(photo, value, box(y, y + 8, x, x + 9), crowd=crowd))
            for _ in range(int(random.integers(0, 3))):
                dy, dx = (int(v) for v in random.integers(0, 4, 2))
                guess = value if random.random() < 0.8 else int(random.integers(1, 5))
                found.append(region(photo, guess, box(y + dy, y + dy + 8, x + dx, x + dx + 9), float(next(scores))))
    return truth, found


@pytest.mark.parametrize("seed", range(5))
def test_precision_equals_the_reference(seed: int) -> None:
    truth, found = random_case(seed)
    result = average_precision(truth, found, classes=4, photos=8)
    known = []
    for value in (1, 2, 3, 4):
        steps = [reference_ap(truth, found, value, least) for least in THRESHOLDS]
        if steps[0] is None:
            assert np.isnan(result.ap50[value - 1]) and np.isnan(result.ap[value - 1])
            continue
        known.append(steps[0])
        assert result.ap50[value - 1] == pytest.approx(steps[0], abs=1e-9)
        assert result.ap[value - 1] == pytest.approx(sum(step or 0.0 for step in steps) / 10, abs=1e-9)
        assert result.true[value - 1] == sum(each.value == value and not each.crowd for each in truth)
        assert result.found[value - 1] == sum(each.value == value for each in found)
    assert 0 < result.mean_ap < result.mean_ap50 < 1, "a case that tells nothing apart proves nothing"
    assert result.mean_ap50 == pytest.approx(sum(known) / len(known), abs=1e-9)


def test_a_case_counted_by_hand() -> None:
    truth = [region(0, 1, box(0, 10, 0, 10)), region(1, 1, box(0, 10, 0, 10))]
    found = [
        region(0, 1, box(0, 10, 0, 10), 0.9),  # right
        region(0, 1, box(0, 10, 0, 9), 0.8),  # of the same instance once more: wrong
        region(1, 1, box(0, 10, 0, 6), 0.7),  # IoU 0.6
    ]
    result = average_precision(truth, found, classes=1, photos=2)
    # 51 points of recall up to 0.50 at precision 1, the other 50 at 2/3 while IoU 0.6 is enough (3 of 10 steps)
    assert result.mean_ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result.mean_ap == pytest.approx((3 * (51 + 50 * 2 / 3) + 7 * 51) / 1010)


def test_only_the_best_hundred_of_a_class_and_photo_count() -> None:
    truth = [region(0, 1, box(0, 10, 0, 10))]
    wrong = [region(0, 1, box(20, 24, 0, 10), 0.9)] * 100
    right = region(0, 1, box(0, 10, 0, 10), 0.1)
    assert average_precision(truth, [*wrong, right], classes=1, photos=1).mean_ap50 == 0.0
    assert average_precision(truth, [*wrong[1:], right], classes=1, photos=1).mean_ap50 == pytest.approx(0.01)


def test_nothing_found_and_nothing_there() -> None:
    truth = [region(0, 2, box(0, 10, 0, 10))]
    nothing = average_precision(truth, [], classes=2, photos=1)
    assert nothing.mean_ap50 == 0.0 and np.isnan(nothing.ap50[0])
    empty = average_precision([], truth, classes=2, photos=1)
    assert np.isnan(empty.mean_ap50) and empty.found.tolist() == [0, 1]


def test_a_region_is_the_union_with_the_highest_score() -> None:
    truth = [region(0, 1, box(0, 4, 0, 4)), region(0, 1, box(2, 8, 2, 8)), region(0, 2, box(0, 4, 0, 4))]
    found = [region(0, 1, box(0, 4, 0, 5), 0.3), region(0, 1, box(3, 8, 3, 8), 0.8), region(1, 1, box(0, 4, 0, 4), 0.5)]
    true, predicted = union_regions(truth, found)
    assert [(each.photo, each.value) for each in true] == [(0, 1), (0, 2)]
    np.testing.assert_array_equal(rle_decode(true[0].mask), box(0, 4, 0, 4) | box(2, 8, 2, 8))
    assert [(each.photo, each.value, each.score) for each in predicted] == [(0, 1, 0.8), (1, 1, 0.5)]
    np.testing.assert_array_equal(rle_decode(predicted[0].mask), box(0, 4, 0, 5) | box(3, 8, 3, 8))


def test_pixels_of_a_crowd_count_nowhere_in_a_region() -> None:
    crowd = box(0, 10, 10, 30)
    truth = [region(0, 1, box(0, 10, 0, 12)), region(0, 1, crowd, crowd=True), region(1, 1, crowd, crowd=True)]
    found = [
        region(0, 1, box(0, 10, 0, 30), 0.9),
        region(1, 1, box(2, 8, 12, 20), 0.9),  # inside the crowd: dropped
        region(0, 2, box(0, 10, 8, 14), 0.9),  # of another class: the crowd is nothing to it
    ]
    true, predicted = union_regions(truth, found)
    assert len(true) == 1 and [(each.photo, each.value) for each in predicted] == [(0, 1), (0, 2)]
    np.testing.assert_array_equal(rle_decode(predicted[0].mask), box(0, 10, 0, 12))
    np.testing.assert_array_equal(rle_decode(predicted[1].mask), box(0, 10, 8, 14))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pycocotools()
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(MissingExtraError, match=r"pycocotools.*\n.*gransam-sdk\[formats\]"):
        require_pycocotools()
