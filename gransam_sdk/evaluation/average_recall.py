"""Average recall of masks without classes: how much of what is annotated a list of proposals holds (COCO's AR)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..shapes import Bool, Int
from .miou import Float64

THRESHOLDS: Float64 = np.linspace(0.5, 0.95, 10)
"""IoU from which on an instance counts as found; the recall is averaged over them."""
LARGE = 32**2
"""Pixels from which on COCO calls an instance more than small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AverageRecall:
    """Recall, mean over ``THRESHOLDS``; fractions, not per cent; NaN without an instance.

    Attributes:
        ar: Of all instances.
        ar_large: Of those of at least ``LARGE`` pixels.
        true: Instances in the ground truth.
        true_large: Of at least ``LARGE`` pixels.
        found: Proposals that took part.
    """

    ar: float
    ar_large: float
    true: int
    true_large: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlaps:
    """What recall needs to know of one photo; small, where its masks are not.

    Attributes:
        iou: (p,t) float64, of each proposal, best first, with each instance.
        areas: (t,) int64 pixels of each instance.
    """

    iou: Float64
    areas: Int


def average_recall(truths: Iterable[Bool], proposals: Iterable[Bool], limit: int) -> AverageRecall:
    """COCO's average recall with ``useCats=0`` and ``maxDets=[limit]``.

    Args:
        truths: A photo's instances (t,h,w) bool, photo by photo; crowds left out, as they can be neither found nor
            missed. Taken one at a time, so that a generator's masks are never all in memory.
        proposals: Its masks (p,h,w) bool, best first, of the same photos in the same order.
        limit: A photo's first so many proposals count.

    Raises:
        InputError: The photos or their sizes are not the same, a stack is not boolean, or ``limit`` is below 1.
    """
    _check_limit(limit)
    try:
        photos = [overlaps(truth, found[:limit]) for truth, found in zip(truths, proposals, strict=True)]
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("photos", expected="truths and proposals of the same", found=str(error)) from error
    return recall_of(photos, limit)


def recall_of(photos: Sequence[Overlaps], limit: int) -> AverageRecall:
    """The same from overlaps: for several limits, or other orders of the proposals, masks are compared once.

    Raises:
        InputError: ``limit`` is below 1.
    """
    _check_limit(limit)
    hits = hits_large = np.zeros(len(THRESHOLDS), dtype=np.int64)
    for photo in photos:
        iou, large = photo.iou[:limit], photo.areas >= LARGE
        hits = hits + count_found(iou)
        # COCO lets a proposal take an instance outside the range of sizes only where it fits none inside.
        hits_large = hits_large + count_found(iou[:, large])
    true = sum(len(photo.areas) for photo in photos)
    true_large = sum(int((photo.areas >= LARGE).sum()) for photo in photos)
    return AverageRecall(
        ar=float(hits.mean() / true) if true else float("nan"),
        ar_large=float(hits_large.mean() / true_large) if true_large else float("nan"),
        true=true,
        true_large=true_large,
        found=sum(min(len(photo.iou), limit) for photo in photos),
    )


def overlaps(truths: Bool, proposals: Bool) -> Overlaps:
    """Compares a photo's proposals with its instances, exactly.

    Args:
        truths: (t,h,w) bool.
        proposals: (p,h,w) bool.

    Raises:
        InputError: A stack is not boolean, or the two do not have one size.
    """
    for name, masks in (("truths", truths), ("proposals", proposals)):
        if masks.ndim != 3 or masks.dtype != np.bool_ or masks.shape[1:] != truths.shape[1:]:
            expected = f"(n,h,w) bool of {truths.shape[1:]}"
            raise InputError(name, expected=expected, found=f"shape {masks.shape}, dtype {masks.dtype}")
    pixels = math.prod(truths.shape[1:])
    true, found = (np.packbits(masks.reshape(len(masks), pixels), axis=1) for masks in (truths, proposals))
    areas, sizes = (np.bitwise_count(words).sum(axis=1, dtype=np.int64) for words in (true, found))
    common = np.zeros((len(found), len(true)), dtype=np.int64)
    for place, words in enumerate(true):
        common[:, place] = np.bitwise_count(found & words).sum(axis=1, dtype=np.int64)
    return Overlaps(iou=common / np.maximum(sizes[:, None] + areas - common, 1), areas=areas)


def count_found(iou: Float64) -> Int:
    """Instances that are found: proposals, best first, each take the free instance that they overlap best.

    Args:
        iou: (p,t) float64.

    Returns:
        (10,) int64, for each of ``THRESHOLDS``.
    """
    counts = np.zeros(len(THRESHOLDS), dtype=np.int64)
    for place, least in enumerate(THRESHOLDS):
        free = np.where(iou >= least, iou, -1.0)
        for proposal in np.flatnonzero((free >= 0).any(axis=1)):
            row = free[proposal]
            best = len(row) - 1 - int(row[::-1].argmax())  # of equal ones COCO takes the last
            if row[best] >= 0:
                counts[place] += 1
                free[:, best] = -1.0
    return counts


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise InputError("limit", expected="a whole number from 1", found=str(limit))
