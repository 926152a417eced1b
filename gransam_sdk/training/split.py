"""Bags held out of training: whole folds, so that no scene is torn between both sides."""

from __future__ import annotations

import numpy as np

from .bags import Bags
from .folds import held_folds


def split_bags(bags: Bags, share: float, seed: int) -> tuple[Bags, Bags]:
    """Bags to train on, and bags held out: class pictures, ``_background`` pictures and scenes.

    Args:
        bags: Of all pictures.
        share: See ``held_folds``.
        seed: Of the draw of folds.
    """
    folds = held_folds(bags.folds, share, seed)
    pictures, scenes = np.isin(bags.folds, folds), np.isin(bags.scenes.folds, folds)
    return bags.take(~pictures, ~scenes), bags.take(pictures, scenes)
