"""Pieces of masks against a flood that fills one pixel after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.components import connected_components
from gransam_sdk.evaluation.voc import read_label_map


def flooded(mask: np.ndarray) -> np.ndarray:
    """Numbers pieces in the order in which rows are read."""
    padded = np.pad(mask, 1)
    labels = np.zeros(padded.shape, dtype=np.int64)
    count = 0
    for start in map(tuple, np.argwhere(padded)):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if padded[near] and not labels[near]:
                    labels[near] = count
                    waiting.append(near)
    return labels[1:-1, 1:-1]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4, 0.5, 0.9])
def test_random_masks(share: float) -> None:
    random = np.random.default_rng(round(100 * share))
    for _ in range(40):
        mask = random.random(random.integers(1, 40, size=2)) < share
        np.testing.assert_array_equal(connected_components(mask), flooded(mask))


def test_a_spiral_is_one_piece_and_a_comb_joins_late() -> None:
    size = 61
    spiral = np.zeros((size, size), dtype=bool)
    y, x, dy, dx = 0, 0, 0, 1
    spiral[0, 0] = True
    for length in [size - 1, *[n for n in range(size - 1, 1, -2) for _ in range(2)]]:
        for _ in range(length):
            y, x = y + dy, x + dx
            spiral[y, x] = True
        dy, dx = dx, -dy
    assert connected_components(spiral).max() == 1 and not spiral.all()
    comb = np.zeros((30, 41), dtype=bool)
    comb[:, ::2] = True
    assert connected_components(comb).max() == 21
    comb[-1] = True
    assert connected_components(comb).max() == 1


def test_corners_join_and_edges_of_the_photo_do_not() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]], dtype=bool)
    assert connected_components(mask).tolist() == [[1, 0, 0, 2], [0, 1, 0, 0], [1, 0, 0, 3]]
    assert not connected_components(np.zeros((3, 0), dtype=bool)).size
    assert connected_components(np.zeros((2, 3), dtype=bool)).max() == 0


@pytest.mark.shared
def test_real_label_maps(shared: Path) -> None:
    folder = shared / "data" / "voc2012_dev" / "SegmentationClass"
    for path in sorted(folder.glob("*.png"))[::120]:
        labels = read_label_map(path)
        for value in np.unique(labels):
            mask = labels == value
            np.testing.assert_array_equal(connected_components(mask), flooded(mask))


def test_other_arrays_are_refused() -> None:
    for wrong in (np.ones((3, 3)), np.ones(3, dtype=bool)):
        with pytest.raises(InputError, match="bool"):
            connected_components(wrong)
