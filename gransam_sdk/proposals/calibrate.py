"""Thresholds for a kind of features: each kind has its own range of cosines, so thresholds are measured, not chosen.

Methods 2.8: merge the grids of some photos to the end; the threshold that stands for n clusters is the median, over
the grids, of the similarity at which the number of clusters first falls to n.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from ..errors import InputError
from ..shapes import Float
from .merge_tree import MergeTree, merge_tree

COUNTS = (128, 64, 32, 16, 8, 4)
"""Clusters that a photo is divided into, from fine to coarse."""


def thresholds(grids: Iterable[Float], counts: Sequence[int] = COUNTS) -> tuple[float, ...]:
    """A threshold for each wanted number of clusters.

    Args:
        grids: Features (y,x,D) float32 of some photos (50 are plenty), each of more cells than the largest count.
        counts: Wanted clusters, descending.

    Returns:
        Cosines, descending, as ``propose`` takes them. Counts that come to the same threshold give it once.

    Raises:
        InputError: No grid, counts that do not descend, or a grid with too few cells.
    """
    return thresholds_of((merge_tree(grid) for grid in grids), counts)


def thresholds_of(trees: Iterable[MergeTree], counts: Sequence[int] = COUNTS) -> tuple[float, ...]:
    """The same from trees.

    Raises:
        InputError: See ``thresholds``.
    """
    if list(counts) != sorted(set(counts), reverse=True) or not counts:
        raise InputError("counts", expected="numbers of clusters, descending", found=str(list(counts)))
    reached = [[tree.theta_of(count) for count in counts] for tree in trees]
    if not reached:
        raise InputError("grids", expected="at least one", found="none")
    medians = [statistics.median(values) for values in zip(*reached, strict=True)]
    return tuple(sorted(set(medians), reverse=True))
