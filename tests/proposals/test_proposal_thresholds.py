"""Calibration: thresholds are medians over grids, and give the wanted numbers of clusters."""

from __future__ import annotations

import numpy as np
import pytest
from slow_merging import merges

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.calibrate import thresholds
from gransam_sdk.proposals.merge_tree import merge_tree


def grids(count: int, shape: tuple[int, int] = (5, 5)) -> list[np.ndarray]:
    return [np.random.default_rng(seed).standard_normal((*shape, 4)).astype(np.float32) for seed in range(count)]


def test_thresholds_are_the_medians_of_where_each_number_is_first_reached() -> None:
    counts = (16, 8, 4, 2)
    reached = []
    for grid in grids(5):
        falls, lowest = {}, 1.0
        for k, (value, _, _) in enumerate(merges(grid)):
            lowest = min(lowest, value)  # what a threshold has to be for merge k to happen
            falls[grid.shape[0] * grid.shape[1] - 1 - k] = lowest
        reached.append([falls[count] for count in counts])
    assert thresholds(grids(5), counts) == pytest.approx(np.median(reached, axis=0).tolist(), abs=1e-6)


def test_a_photo_alone_is_divided_as_wanted() -> None:
    (grid,) = grids(1, (12, 12))
    tree = merge_tree(grid)
    counts = (32, 16, 4)
    for theta, count in zip(thresholds([grid], counts), counts, strict=True):
        left = len(tree.alive(tree.merges_at(theta)))
        assert left <= count, "the largest threshold at which at most so many are left"
        above = float(np.nextafter(np.float32(theta), np.float32(2)))
        assert len(tree.alive(tree.merges_at(above))) > count


def test_thresholds_descend_and_equal_ones_are_given_once() -> None:
    found = thresholds(grids(3, (8, 8)), (32, 8, 2))
    assert list(found) == sorted(set(found), reverse=True)
    assert thresholds([np.ones((6, 6, 2), dtype=np.float32)], (8, 4)) == (1.0,)


@pytest.mark.parametrize("counts", [(), (4, 8), (4, 4), (30,), (0,)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        thresholds(grids(1), counts)


def test_no_grid_is_refused() -> None:
    with pytest.raises(InputError, match="grids"):
        thresholds([], (4,))
