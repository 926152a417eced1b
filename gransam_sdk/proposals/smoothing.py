"""Smoothing of a feature grid that stops at borders: single odd cells join what is around them, regions stay apart.

Without it most of what merging leaves at the fine levels are cells of their own, too small to be regions.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..shapes import Float

_TINY = 1e-12


def smooth_within(features: Float, steps: int = 4, spread: float = 0.3) -> Float:
    """Each cell becomes the mean of itself and its four neighbours, weighted by how similar they are, step by step.

    The weight of a neighbour is exp((cosine - 1) / spread), that of the cell itself 1 (after Perona and Malik 1990).

    Args:
        features: (y,x,D) float32.
        steps: How often; 0 leaves the grid as it is.
        spread: What a cosine may fall short of 1 by for a neighbour still to count 1/e, above 0.

    Returns:
        (y,x,D) float32.

    Raises:
        InputError: Another shape, or arguments outside their range.
    """
    if features.ndim != 3 or steps < 0 or not spread > 0:
        found = f"{features.shape}, {steps} steps, spread {spread}"
        raise InputError("smoothing", expected="(y,x,D), steps from 0 and a spread above 0", found=found)
    grid = features.astype(np.float32)
    for _ in range(steps):
        units = grid / np.maximum(np.linalg.norm(grid, axis=-1, keepdims=True), _TINY)
        total, weights = grid.copy(), np.ones((*grid.shape[:2], 1), dtype=np.float32)
        for here, there in _PAIRS:
            cosine = (units[here] * units[there]).sum(axis=-1, keepdims=True)
            weight = np.exp((cosine - 1) / np.float32(spread))
            total[here] += weight * grid[there]
            total[there] += weight * grid[here]
            weights[here] += weight
            weights[there] += weight
        grid = np.asarray(total / weights, dtype=np.float32)
    return grid


_PAIRS = (
    (np.s_[:-1], np.s_[1:]),  # down
    (np.s_[:, :-1], np.s_[:, 1:]),  # across
)
