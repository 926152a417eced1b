"""What is held out of training: whole folds of every class, and their scenes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from bags_by_hand import noisy_bags, noisy_scenes

from gransam_sdk.training.folds import FOLDS, fold_numbers, held_folds
from gransam_sdk.training.split import split_bags


def test_each_class_is_dealt_out_in_turn() -> None:
    labels = np.array([0] * 23 + [1] * 3 + [-1] * 11 + [0] * 2 + [7])
    folds = fold_numbers(labels)
    assert folds[labels == 0].tolist() == [*range(10), *range(10), 0, 1, 2, 3, 4]
    assert folds[labels == 1].tolist() == [0, 1, 2]
    assert folds[labels == -1].tolist() == [*range(10), 0]
    assert folds[labels == 7].tolist() == [0]
    assert len(fold_numbers(labels[:0])) == 0


def test_folds_that_are_held() -> None:
    folds = np.arange(40) % FOLDS
    drawn = {tuple(held_folds(folds, 0.2, seed).tolist()) for seed in range(60)}
    assert all(len(pair) == 2 and 0 < pair[0] < pair[1] < FOLDS for pair in drawn)
    assert {fold for pair in drawn for fold in pair} == set(range(1, FOLDS)), "all but 0 have their turn"
    assert len(drawn) > 15 and np.array_equal(held_folds(folds, 0.2, 3), held_folds(folds, 0.2, 3))
    assert [len(held_folds(folds, share, 0)) for share in (0.0, 0.01, 0.1, 0.34, 0.99)] == [0, 1, 1, 3, 9]
    few = np.array([0, 1, 2, 0, 1])
    assert all(set(held_folds(few, 0.2, seed)) == {1, 2} for seed in range(9)), "only folds that occur"
    assert len(held_folds(np.zeros(4, dtype=np.int64), 0.2, 0)) == 0


def test_bags_are_parted_and_nothing_is_lost() -> None:
    bags = replace(noisy_bags(count=50), scenes=noisy_scenes(count=30))
    rest, held = split_bags(bags, 0.2, seed=3)
    assert len(held.labels) == 10 and len(rest.labels) == 40
    assert sorted(held.labels.tolist()) == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert len(held.scenes.folds) == 6 and len(rest.scenes.folds) == 24
    assert not set(held.scenes.folds) & set(rest.scenes.folds) and set(held.scenes.folds) == set(held.folds)
    parts = {picture.tobytes() for part in (rest, held) for picture in part.instances}
    assert parts == {picture.tobytes() for picture in bags.instances}
    for part in (rest, held):
        for picture, label in zip(part.instances, part.labels, strict=True):
            row = next(i for i, other in enumerate(bags.instances) if np.array_equal(other, picture))
            assert bags.labels[row] == label
        for scene, shown in zip(part.scenes.instances, part.scenes.parts, strict=True):
            row = next(i for i, other in enumerate(bags.scenes.instances) if np.array_equal(other, scene))
            assert np.array_equal(bags.scenes.parts[row], shown)
