"""The pieces of a mask that hang together: what stands for instances where only a class is annotated."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..shapes import Bool, Int


def connected_components(mask: Bool) -> Int:
    """Numbers the pieces of a mask; pixels hang together along edges and corners.

    Args:
        mask: (h,w) bool.

    Returns:
        (h,w) int64: 0 outside, pieces from 1 in the order of their first pixels, row by row from the top left.

    Raises:
        InputError: The mask is not a boolean matrix.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise InputError("mask", expected="(h,w) bool", found=f"shape {mask.shape}, dtype {mask.dtype}")
    # Runs of set pixels, row by row; a run's columns are start to stop - 1.
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    row, start = np.nonzero(edges > 0)
    stop = np.nonzero(edges < 0)[1]
    upper, lower = _touching(row, start, stop, mask.shape[1] + 1)
    # The first run of a piece becomes the number of all of its runs; numbers only fall, and links shorten.
    first = np.arange(len(row))
    while not np.array_equal(first[upper], first[lower]):
        least = np.minimum(first[upper], first[lower])
        np.minimum.at(first, first[upper], least)
        np.minimum.at(first, first[lower], least)
        first = first[first]
    number = np.unique(first, return_inverse=True)[1] + 1
    labels = np.zeros(mask.shape, dtype=np.int64)
    labels[mask] = np.repeat(number, stop - start)
    return labels


def _touching(row: Int, start: Int, stop: Int, stride: int) -> tuple[Int, Int]:
    """Pairs of runs in neighbouring rows that share a column or a corner.

    Args:
        row: (r,) of each run, ascending.
        start: (r,) first column, ascending within a row.
        stop: (r,) column after the last.
        stride: More than any ``stop``, so that row·stride + column orders the runs.
    """
    below = (row + 1) * stride
    low = np.searchsorted(row * stride + stop, below + start, side="left")
    high = np.searchsorted(row * stride + start, below + stop, side="right")
    count = np.maximum(high - low, 0)
    upper = np.repeat(np.arange(len(row)), count)
    within = np.arange(len(upper)) - np.repeat(np.cumsum(count) - count, count)
    return upper, np.repeat(low, count) + within
