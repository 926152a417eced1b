"""Pictures held out of training: a share of every class's, the same ones for a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..shapes import Bool, Int
from .tokens import Bags


def hold_out(labels: Int, share: float, seed: int) -> Bool:
    """Draws pictures to hold out.

    Args:
        labels: (m,) class of each picture; any number, -1 included, is a class of its own here.
        share: Of each class, rounded, but at least one picture and never all of them: a lone picture is not held out.
        seed: Of the draw.

    Returns:
        (m,) bool, true for what is held out; nothing where ``share`` is 0.
    """
    held = np.zeros(len(labels), dtype=np.bool_)
    random = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(rows)), 1), len(rows) - 1) if share else 0
        held[rows[:count]] = True
    return held


def split_bags(bags: Bags, share: float, seed: int) -> tuple[Bags, Bags]:
    """Bags to train on, and bags held out to calibrate on, ``_background`` pictures in both."""
    held = hold_out(bags.labels, share, seed)
    rest, out = (replace(bags, instances=bags.instances[rows], labels=bags.labels[rows]) for rows in (~held, held))
    return rest, out
