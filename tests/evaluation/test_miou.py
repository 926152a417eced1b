"""Confusion matrices, IoU and bootstrap intervals against cases counted by hand and plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hand_run import as_list, evaluate

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation import miou as miou_module
from gransam_sdk.evaluation.miou import class_iou, confusion_matrix, interval95, mean_iou, resampled_iou
from gransam_sdk.evaluation.outcome import paired_bootstrap


def test_a_confusion_matrix_counted_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 2]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1], [1, 1, 0]], dtype=np.uint8)
    matrix = confusion_matrix(truth, predicted, 4)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # background: 1 hit of {3 pixels}, class 1: 2 of 3, class 2: 0 of 1, class 3 is nowhere
    assert as_list(class_iou(matrix)) == [1 / 3, 2 / 3, 0.0, None]
    assert float(mean_iou(class_iou(matrix))) == pytest.approx(1 / 3)
    assert np.isnan(mean_iou(np.array([np.nan, np.nan])))


def test_values_and_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="prediction"):
        confusion_matrix(np.zeros((2, 2)), np.full((2, 2), 4), 4)
    with pytest.raises(InputError, match="ground truth"):
        confusion_matrix(np.full((2, 2), 7), np.zeros((2, 2)), 4)
    with pytest.raises(InputError, match="size"):
        confusion_matrix(np.zeros((2, 3)), np.zeros((3, 2)), 4)


def test_bootstrap_equals_a_loop_over_photo_sets(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    evaluation = evaluate(tmp_path, gt, guesses, seed=3)
    random = np.random.default_rng(3)
    means = []
    for _ in range(200):
        total = sum(evaluation.confusions[i] for i in random.integers(12, size=12))
        hits = np.diag(total)
        union = total.sum(0) + total.sum(1) - hits
        means.append(np.mean([h / u for h, u in zip(hits, union, strict=True) if u]))
    assert evaluation.interval == pytest.approx((np.percentile(means, 2.5), np.percentile(means, 97.5)), abs=1e-12)


def test_draws_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    confusions = np.random.default_rng(0).integers(0, 50, size=(7, 3, 3))
    together = resampled_iou(confusions, 50, seed=1)
    monkeypatch.setattr(miou_module, "_WEIGHTS_AT_A_TIME", 20)
    np.testing.assert_array_equal(resampled_iou(confusions, 50, seed=1), together)
    assert (resampled_iou(confusions, 50, seed=2) != together).any()


def test_the_interval_covers_about_95_of_100() -> None:
    """Photos from a known distribution: the interval of a sample holds the population's value nearly that often."""
    random = np.random.default_rng(0)
    right = random.binomial(50, random.beta(4, 2, size=(3000, 2)))  # of 50 pixels of either class in each photo
    population = np.stack([right[:, 0], 50 - right[:, 0], 50 - right[:, 1], right[:, 1]], axis=1).reshape(-1, 2, 2)
    truth = float(mean_iou(class_iou(population.sum(axis=0))))
    held = 0
    for trial in range(200):
        sample = population[random.integers(3000, size=60)]
        low, high = interval95(mean_iou(resampled_iou(sample, 200, seed=trial)))
        held += low <= truth <= high
    assert 176 <= held <= 199


def test_paired_bootstrap_sees_what_separate_intervals_hide(
    tmp_path: Path, gt: Path, maps: dict[str, np.ndarray], guesses: dict[str, np.ndarray]
) -> None:
    worse = evaluate(tmp_path, gt, guesses)
    slightly = {photo: guess.copy() for photo, guess in guesses.items()}
    for photo, guess in slightly.items():
        guess[:1] = np.where(maps[photo][:1] == 255, 0, maps[photo][:1])  # a little better on every photo
    better = evaluate(tmp_path, gt, slightly)
    difference = paired_bootstrap(better, worse)
    assert difference.miou == pytest.approx(better.miou - worse.miou)
    assert 0 < difference.interval[0] < difference.miou < difference.interval[1]
    assert better.interval[0] < worse.interval[1], "the two intervals overlap all the same"
    same = paired_bootstrap(worse, worse)
    assert (same.miou, same.interval, same.foreground_interval) == (0.0, (0.0, 0.0), (0.0, 0.0))
    assert paired_bootstrap(worse, better).interval == pytest.approx([-v for v in difference.interval[::-1]])


def test_paired_bootstrap_needs_the_same_photos(tmp_path: Path, gt: Path, guesses: dict[str, np.ndarray]) -> None:
    whole = evaluate(tmp_path, gt, guesses)
    (gt / "dev.txt").write_text("\n".join(list(guesses)[1:]))
    with pytest.raises(InputError, match="1 photos and 0 classes"):
        paired_bootstrap(whole, evaluate(tmp_path, gt, guesses))
    with pytest.raises(InputError, match="bootstrap"):
        paired_bootstrap(whole, whole, bootstrap=0)
