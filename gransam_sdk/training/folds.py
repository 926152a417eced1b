"""Ten folds of the example pictures. What is held out is whole folds, and a scene is of pictures of one."""

from __future__ import annotations

import numpy as np

from ..shapes import Int

FOLDS = 10


def fold_numbers(labels: Int) -> Int:
    """Deals the pictures of each class out in turn, from fold 0: any seed holds out other folds of the same ones.

    Args:
        labels: (m,) class of each picture; any number, -1 included, is a class of its own here.

    Returns:
        (m,) in 0..9.
    """
    folds = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def held_folds(folds: Int, share: float, seed: int) -> Int:
    """Draws the folds to hold out.

    Args:
        folds: (m,) of the pictures there are.
        share: Of all ten folds, rounded, but at least one.
        seed: Of the draw.

    Returns:
        Folds that occur, never 0: a class's first picture is always trained on. None where ``share`` is 0.
    """
    count = max(round(share * FOLDS), 1) if share else 0
    there = np.setdiff1d(folds, [0])
    return np.sort(np.random.default_rng(seed).permutation(there)[:count])
