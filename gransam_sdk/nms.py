"""Greedy non-maximum suppression by mask IoU, for low-res masks (n,l,l); exact at any size.

Suppression compares a mask that is kept with those that are left, 64 pixels a machine word, and only where their areas
allow an IoU above the threshold: IoU is at most the smaller area over the larger. Whole matrices are counted by float32
matrix products over blocks of fewer than 2²⁴ pixels, below which float32 holds every whole number, and the blocks'
counts are added in float64. IoU is the quotient of whole numbers in float64: a comparison with a threshold never
depends on the order of summation.

Masks are compared where they show the photo: cut them to ``Frame.valid`` first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .shapes import AnyArray, Bool, Float, Int

_BLOCK_PIXELS = 2**16
"""Pixels counted in one product: a mask of SAM's low-res side. Below 2²⁴ for exactness, this small for memory."""


def mask_iou(masks: Bool, others: Bool | None = None) -> Float:
    """Intersection over union of each mask with each other mask.

    Args:
        masks: (n,...) bool.
        others: (m,...) bool of the same pixels; None compares ``masks`` with themselves.

    Returns:
        (n,m) float32 in [0,1]; 0 where either mask is empty.

    Raises:
        InputError: A stack is not boolean, or the two do not have the same pixels.
    """
    first = _flat(masks)
    second = first if others is None else _flat(others)
    if first.shape[1] != second.shape[1]:
        raise InputError("masks to compare", expected=f"{first.shape[1]} pixels each", found=f"{second.shape[1]}")
    return _iou(_intersections(first, second), _areas(first), _areas(second)).astype(np.float32)


def mask_nms(
    masks: Bool,
    scores: Float,
    iou_threshold: float = 0.5,
    *,
    classes: Int | None = None,
    tiers: Int | None = None,
) -> Int:
    """Keep the best of masks that show the same thing.

    Greedy: masks are taken by tier (0 first), then score (highest first), then index; each one taken drops every
    later mask whose IoU with it is above the threshold.

    Args:
        masks: (n,l,l) bool, or any (n,...).
        scores: (n,) what orders the masks.
        iou_threshold: Mask IoU above which the later of two masks goes; 1 keeps all.
        classes: (n,) int64; when given, only masks of one class drop each other.
        tiers: (n,) int64; None puts all masks in tier 0.

    Returns:
        (m,) int64 indices of the kept masks, in the order in which they were kept.

    Raises:
        InputError: The arrays do not have one length, or the masks are not boolean.
    """
    flat = _flat(masks)
    n = len(flat)
    scores = _per_mask("scores", scores, n)
    tiers = np.zeros(n, dtype=np.int64) if tiers is None else _per_mask("tiers", tiers, n)
    classes = np.zeros(n, dtype=np.int64) if classes is None else _per_mask("classes", classes, n)
    words = _packed(flat)
    areas = np.bitwise_count(words).sum(axis=1, dtype=np.int64).astype(np.float64)
    order = np.lexsort((np.arange(n), -scores, tiers))
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        small, large = np.minimum(areas[order], areas[best]), np.maximum(areas[order], areas[best])
        near = (small / np.maximum(large, 1) > iou_threshold) & (classes[order] == classes[best])
        rivals = order[near]
        common = np.bitwise_count(words[rivals] & words[best]).sum(axis=1, dtype=np.int64).astype(np.float64)
        near[near] = _iou(common[None], areas[[best]], areas[rivals])[0] > iou_threshold
        order = order[~near]
    return np.array(kept, dtype=np.int64)


def drop_contained(masks: Bool, classes: Int, threshold: float = 0.8, *, tiers: Int | None = None) -> Int:
    """Drop fragments: masks that lie inside a larger kept mask of their class.

    Masks are taken largest first (of equal ones, the lower index first). Each one taken drops every later mask of its
    class that has more than ``threshold`` of its area inside it, unless that mask's tier is the better (lower) one.

    Args:
        masks: (n,l,l) bool, or any (n,...).
        classes: (n,) int64.
        threshold: Share of a mask's own area, above which it goes; 1 keeps all.
        tiers: (n,) int64; None puts all masks in tier 0.

    Returns:
        (m,) int64 indices of the kept masks, ascending.

    Raises:
        InputError: The arrays do not have one length, or the masks are not boolean.
    """
    flat = _flat(masks)
    n = len(flat)
    areas = _areas(flat)
    inside = _intersections(flat, flat) / np.maximum(areas, 1)  # [i, j]: share of j inside i
    drops = inside > threshold
    drops &= _same(_per_mask("classes", classes, n))
    if tiers is not None:
        tiers = _per_mask("tiers", tiers, n)
        drops &= tiers[:, None] <= tiers[None, :]
    return np.sort(greedy(np.lexsort((np.arange(n), -areas)), drops))


def touching_groups(masks: Bool, classes: Int) -> Int:
    """Number the groups of masks that hang together: same class, and a common pixel or pixel edge.

    Args:
        masks: (n,l,l) bool.
        classes: (n,) int64.

    Returns:
        (n,) int64 group of each mask, 0 upwards in the order of each group's first mask.

    Raises:
        InputError: The arrays do not have one length, or the masks are not (n,l,l) boolean.
    """
    flat = _flat(masks)
    if masks.ndim != 3:
        raise InputError("masks", expected="(n,l,l) bool", found=f"shape {masks.shape}")
    n = len(masks)
    grown = masks.copy()  # every pixel and its four neighbours
    grown[:, 1:] |= masks[:, :-1]
    grown[:, :-1] |= masks[:, 1:]
    grown[:, :, 1:] |= masks[:, :, :-1]
    grown[:, :, :-1] |= masks[:, :, 1:]
    touch = (_intersections(_flat(grown), flat) > 0) & _same(_per_mask("classes", classes, n))
    np.fill_diagonal(touch, True)
    # The lowest index wanders along touching masks until every group agrees on its own.
    first = np.arange(n)
    while n:
        lowest = np.where(touch, first, n).min(axis=1)
        if np.array_equal(lowest, first):
            break
        first = lowest
    return np.unique(first, return_inverse=True)[1].astype(np.int64)


def greedy(order: Int, drops: NDArray[np.bool_]) -> Int:
    """Take what is left in ``order``; each index i taken removes the later j with ``drops[i, j]``.

    Args:
        order: (m,) int64 indices, the first to be taken first.
        drops: (n,n) bool.

    Returns:
        (k,) int64 indices of what was taken, in that order.
    """
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[~drops[best, order]]
    return np.array(kept, dtype=np.int64)


def _flat(masks: Bool) -> Bool:
    """(n, pixels) view or copy of (n,...) bool."""
    if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.ndim < 2:
        found = f"shape {masks.shape}, dtype {masks.dtype}" if isinstance(masks, np.ndarray) else type(masks).__name__
        raise InputError("masks", expected="(n,l,l) bool", found=found)
    return masks.reshape(len(masks), math.prod(masks.shape[1:]))


def _per_mask(name: str, values: AnyArray, n: int) -> AnyArray:
    if np.shape(values) != (n,):
        raise InputError(name, expected=f"one for each of {n} masks", found=f"shape {np.shape(values)}")
    return np.asarray(values)


def _intersections(first: Bool, second: Bool) -> NDArray[np.float64]:
    """(n,m) number of common pixels, exact."""
    counts = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1], _BLOCK_PIXELS):
        block = slice(start, start + _BLOCK_PIXELS)
        a = first[:, block].astype(np.float32)
        b = a if second is first else second[:, block].astype(np.float32)
        counts += a @ b.T
    return counts


def _packed(flat: Bool) -> NDArray[np.uint64]:
    """(n, pixels) to (n, words), 64 pixels a word, zeros behind the last pixel."""
    octets = np.packbits(flat, axis=1)
    padded = np.pad(octets, ((0, 0), (0, -octets.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)


def _areas(flat: Bool) -> NDArray[np.float64]:
    counts: Int = np.count_nonzero(flat, axis=1)
    return counts.astype(np.float64)


def _iou(common: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    union: NDArray[np.float64] = first[:, None] + second[None, :] - common
    return common / np.maximum(union, 1)  # both empty: 0 / 1


def _same(classes: AnyArray) -> NDArray[np.bool_]:
    return np.asarray(classes[:, None] == classes[None, :])
