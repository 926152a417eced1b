"""Smoothing that stops at borders, against its formula cell by cell, and what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gransam_sdk.errors import InputError
from gransam_sdk.proposals.smoothing import smooth_within


def slow_step(grid: np.ndarray, spread: float) -> np.ndarray:
    """One step in float64, cell by cell."""
    y, x = grid.shape[:2]
    made = np.zeros_like(grid)
    for i in range(y):
        for j in range(x):
            total, weights = grid[i, j].copy(), 1.0
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < y and 0 <= m < x:
                    lengths = np.linalg.norm(grid[i, j]) * np.linalg.norm(grid[k, m])
                    weight = math.exp((float(grid[i, j] @ grid[k, m]) / lengths - 1) / spread)
                    total += weight * grid[k, m]
                    weights += weight
            made[i, j] = total / weights
    return made


@pytest.mark.parametrize("shape", [(5, 6), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_each_step_is_its_formula(shape: tuple[int, int], steps: int) -> None:
    features = np.random.default_rng(0).standard_normal((*shape, 4)).astype(np.float32)
    expected = features.astype(np.float64)
    for _ in range(steps):
        expected = slow_step(expected, 0.3)
    made = smooth_within(features, steps, 0.3)
    assert made.dtype == np.float32
    assert made == pytest.approx(expected, abs=1e-5)


def test_noise_goes_and_the_border_stays() -> None:
    clean = np.zeros((10, 12, 2), dtype=np.float32)
    clean[:, :6, 0] = clean[:, 6:, 1] = 1
    noisy = clean + 0.15 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    made = smooth_within(noisy, 8)
    assert made[:, :5].std(axis=(0, 1)).max() < 0.5 * noisy[:, :5].std(axis=(0, 1)).min()
    across = np.abs(made[:, 6] - made[:, 5]).mean()
    blurred = noisy.copy()
    for _ in range(8):
        padded = np.pad(blurred, ((1, 1), (1, 1), (0, 0)), mode="edge")
        blurred = (padded[1:-1, 1:-1] + padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 5
    assert across > 0.6 > 0.3 > np.abs(blurred[:, 6] - blurred[:, 5]).mean()


def test_zero_cells_are_no_numbers_to_divide_by() -> None:
    assert not smooth_within(np.zeros((3, 3, 2), dtype=np.float32)).any()


@pytest.mark.parametrize(("shape", "steps", "spread"), [((3, 3), 1, 0.3), ((3, 3, 1), -1, 0.3), ((3, 3, 1), 1, 0.0)])
def test_other_arguments_are_refused(shape: tuple[int, ...], steps: int, spread: float) -> None:
    with pytest.raises(InputError):
        smooth_within(np.ones(shape, dtype=np.float32), steps, spread)
