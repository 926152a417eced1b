"""Where a click on an object goes: to its pixel that lies farthest from everything that is not the object."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..shapes import AnyArray, Bool, Int

_INT32_SIDE = 46_000
"""Longest side whose squared distances fit into 32 bits, which are half the work of 64."""


def click_point(mask: Bool) -> tuple[float, float]:
    """The centre of the deepest pixel; of equally deep ones the first, row by row from the top left.

    Args:
        mask: (h,w) bool.

    Returns:
        (x, y) in pixels of the photo, each a whole number and a half.

    Raises:
        InputError: The mask is not a boolean matrix, or is empty.
    """
    depth = squared_depth(mask)
    if not depth.any():
        raise InputError("mask to click on", expected="a pixel or more", found="none")
    row, column = divmod(int(depth.argmax()), mask.shape[1])
    return column + 0.5, row + 0.5


def squared_depth(mask: Bool) -> Int:
    """Squared distance of each pixel's centre to that of the nearest pixel outside; exact.

    Whatever lies beyond the photo's edge is outside, so a pixel at the edge has depth 1.

    Args:
        mask: (h,w) bool.

    Returns:
        (h,w) int64 in square pixels; 0 outside the mask.

    Raises:
        InputError: The mask is not a boolean matrix.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:
        raise InputError("mask", expected="(h,w) bool", found=f"shape {mask.shape}, dtype {mask.dtype}")
    depth = np.zeros(mask.shape, dtype=np.int64)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        depth[box] = _from_columns(_to_outside_above_or_below(np.pad(mask[box], 1)))[1:-1, 1:-1]
    return depth


def _to_outside_above_or_below(mask: Bool) -> AnyArray:
    """(y,x) squared distance within each column, of a mask whose rim is False."""
    height = len(mask)
    place = np.arange(height, dtype=np.int32 if max(mask.shape) < _INT32_SIDE else np.int64)[:, None]
    above = np.maximum.accumulate(np.where(mask, 0, place), axis=0)
    below = np.minimum.accumulate(np.where(mask, height - 1, place)[::-1], axis=0)[::-1]
    near: AnyArray = np.minimum(place - above, below - place)
    return near * near


def _from_columns(squares: AnyArray) -> AnyArray:
    """Least of squares[y, x + k] + k² over all k: Felzenszwalb and Huttenlocher 2012, equation (2), along the rows.

    All rows take step k at once. A row is done when none of its values is above k², which takes no more steps than its
    deepest pixel is deep; the lower envelope needs fewer, one by one.
    """
    least = squares.copy()
    band = slice(0, len(squares))  # rows that are not done
    for k in range(1, squares.shape[1]):
        deep = np.flatnonzero(least[band].max(axis=1) > k * k)
        if not len(deep):
            break
        band = slice(band.start + int(deep[0]), band.start + int(deep[-1]) + 1)
        away, part = squares[band] + k * k, least[band]
        np.minimum(part[:, k:], away[:, :-k], out=part[:, k:])
        np.minimum(part[:, :-k], away[:, k:], out=part[:, :-k])
    return least
