"""Figures of clicks by hand and in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.one_click import Calibration, Clicks, by_size, calibrate, one_click
from gransam_sdk.runtime.select import choose_masks


def clicks_of(
    iou: list[list[float]], predicted: list[list[float]], areas: list[int], photos: list[int] | None = None
) -> Clicks:
    return Clicks(
        iou=np.array(iou, dtype=np.float64).reshape(-1, 4),
        predicted=np.array(predicted, dtype=np.float32).reshape(-1, 4),
        areas=np.array(areas, dtype=np.int64),
        photos=np.array(photos or range(len(areas)), dtype=np.int64),
    )


IOU = [[0.9, 0.5, 0.2, 0.1], [0.4, 0.1, 0.8, 0.9], [0.0, 0.3, 0.6, 0.2]]
PREDICTED = [[0.99, 0.6, 0.5, 0.7], [0.1, 0.2, 0.3, 0.25], [0.5, 0.5, 0.5, 0.4]]


def test_means_by_hand() -> None:
    found = one_click(clicks_of(IOU, PREDICTED, [10, 20, 30]))
    # chosen: mask 3 of the first, for mask 0 never competes; 2 of the second; 1 of the third, the first of two equals
    assert found.count == 3
    assert found.single == pytest.approx((0.9 + 0.4 + 0.0) / 3)
    assert found.chosen == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert found.best == pytest.approx((0.5 + 0.9 + 0.6) / 3)


def test_chosen_is_what_the_product_keeps() -> None:
    random = np.random.default_rng(0)
    predicted = random.normal(size=(500, 4)).round(1).astype(np.float32)  # rounded: some are equal
    clicks = clicks_of([[0.0] * 4] * 500, predicted.tolist(), [1] * 500)
    kept = choose_masks("best_iou", clicks.predicted, np.zeros((500, 4, 1, 1), dtype=np.float32))
    np.testing.assert_array_equal(clicks.chosen(), kept[:, 0])


def test_sizes_begin_where_cocos_do() -> None:
    areas = [1, 32**2 - 1, 32**2, 96**2 - 1, 96**2, 10**6]
    iou = [[value, value, value, value] for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    groups = by_size(clicks_of(iou, [[0.5] * 4] * 6, areas))
    means = {name: (group.count, round(group.chosen, 9)) for name, group in groups.items()}
    assert means == {
        "all": (6, 0.35),
        "from 32²": (4, 0.45),
        "small": (2, 0.15),
        "medium": (2, 0.35),
        "large": (2, 0.55),
    }


def test_the_interval_draws_photos_and_not_clicks() -> None:
    one_photo = one_click(clicks_of(IOU, PREDICTED, [1, 1, 1], [7, 7, 7]))
    assert one_photo.interval == (pytest.approx(one_photo.chosen), pytest.approx(one_photo.chosen))
    random = np.random.default_rng(1)
    photos = np.repeat(np.arange(40), random.integers(1, 9, size=40))
    quality = random.random(40)[photos]  # clicks of one photo are alike
    iou = np.repeat(quality[:, None], 4, axis=1)
    found = one_click(clicks_of(iou.tolist(), [[0.5] * 4] * len(photos), [1] * len(photos), photos.tolist()))
    drawn = []
    for _ in range(4000):
        sets = [quality[photos == photo] for photo in random.integers(40, size=40)]
        drawn.append(np.concatenate(sets).mean())
    low, high = np.percentile(drawn, (2.5, 97.5))
    np.testing.assert_allclose(found.interval, (low, high), atol=0.1 * (high - low))
    clicks_alone = 4 * np.std(quality) / np.sqrt(len(photos))
    assert high - low > 1.5 * clicks_alone, "clicks drawn one by one would give another interval"


def test_calibration_by_hand() -> None:
    predicted = np.array([0.05, 0.31, 0.39, 0.31, 1.0, 1.3, -0.2], dtype=np.float32)
    true = np.array([0.0, 0.5, 0.7, 0.0, 0.9, 0.7, 0.1])
    found = calibrate(predicted, true)
    assert [b.count for b in found.bins] == [2, 3, 2], "what lies outside [0,1] counts with the end"
    np.testing.assert_allclose([b.predicted for b in found.bins], [0.025, 1.01 / 3, 1.0], atol=1e-7)
    np.testing.assert_allclose([b.true for b in found.bins], [0.05, 0.4, 0.8])
    assert found.gap == pytest.approx((2 * 0.025 + 3 * (0.4 - 1.01 / 3) + 2 * 0.2) / 7)
    said = np.clip(predicted.astype(np.float64), 0, 1)
    assert found.error == pytest.approx(sum(abs(a - b) for a, b in zip(said, true, strict=True)) / 7)
    a, b = said - said.mean(), true - true.mean()
    assert found.correlation == pytest.approx(float((a * b).sum() / math.sqrt((a**2).sum() * (b**2).sum())))


def test_a_perfect_prediction_and_none() -> None:
    true = np.linspace(0, 1, 50)
    perfect = calibrate(true, true)
    assert perfect.gap == perfect.error == 0 and perfect.correlation == pytest.approx(1)
    constant = calibrate(np.full(50, 0.5), true)
    assert math.isnan(constant.correlation) and constant.gap == pytest.approx(0, abs=1e-12) and constant.error > 0.2
    empty = one_click(clicks_of([], [], []))
    assert empty.count == 0 and empty.calibration.bins == ()
    assert all(map(math.isnan, (empty.single, empty.chosen, empty.best, *empty.interval, empty.calibration.gap)))
    assert isinstance(empty.calibration, Calibration)


def test_arrays_of_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="areas"):
        clicks_of(IOU, PREDICTED, [1, 2])
    with pytest.raises(InputError, match="predicted"):
        Clicks(iou=np.zeros((2, 4)), predicted=np.zeros((2, 3)), areas=np.zeros(2), photos=np.zeros(2))  # type: ignore[arg-type]
