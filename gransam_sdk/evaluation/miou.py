"""Mean IoU from confusion matrices, and how far it could have come out otherwise: a bootstrap over photos."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..shapes import AnyArray, Int

Float64: TypeAlias = NDArray[np.float64]
"""float64 array: ratios of counts."""

IGNORE = 255
"""Ground truth pixels of this value count nowhere (VOC's outlines and difficult objects)."""
_WEIGHTS_AT_A_TIME = 1 << 22
"""Bound on the resampling weights (sets x photos) held at once."""


def confusion_matrix(truth: AnyArray, predicted: AnyArray, classes: int) -> Int:
    """Counts pixels by true and predicted class.

    Args:
        truth: (h,w) whole numbers in 0..classes-1, or 255 where the pixel does not count.
        predicted: (h,w) whole numbers in 0..classes-1.
        classes: Classes, background included.

    Returns:
        (classes,classes) int64, rows the truth, columns the prediction.

    Raises:
        InputError: The maps differ in size, or hold a value outside the classes.
    """
    if truth.shape != predicted.shape:
        raise InputError("label maps", expected=f"one size, {truth.shape}", found=str(predicted.shape))
    counted = truth != IGNORE
    true, guess = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("ground truth", true), ("prediction", guess)):
        if values.size and not (values.min() >= 0 and values.max() < classes):
            found = f"{values.min()} to {values.max()}"
            raise InputError(f"values of the {name}", expected=f"0 to {classes - 1}", found=found)
    return np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: AnyArray) -> Float64:
    """Intersection over union of each class.

    Args:
        confusion: (...,c,c) counts, rows the truth.

    Returns:
        (...,c) float64 in [0,1]; NaN for a class that is neither in the truth nor in the prediction.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - hits
    iou: Float64 = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    return iou


def mean_iou(iou: Float64) -> Float64:
    """Mean over the classes of the last axis that occur (NaN ones do not); NaN where none does."""
    occurs = ~np.isnan(iou)
    total = np.where(occurs, iou, 0.0).sum(axis=-1)
    count = occurs.sum(axis=-1)
    mean: Float64 = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


def resampled_iou(confusions: Int, bootstrap: int, seed: int) -> Float64:
    """Class IoU of photo sets drawn with replacement; the same seed and photo count give the same draws.

    Args:
        confusions: (photos,c,c) int64, one matrix a photo.
        bootstrap: Sets to draw, each as large as the original.
        seed: Seed of the draws.

    Returns:
        (bootstrap,c) float64 in [0,1].
    """
    photos, classes = confusions.shape[0], confusions.shape[1]
    flat = confusions.reshape(photos, -1).astype(np.float64)  # counts below 2^53 add up exactly
    random = np.random.default_rng(seed)
    at_a_time = max(1, _WEIGHTS_AT_A_TIME // photos)
    iou = np.empty((bootstrap, classes))
    for first in range(0, bootstrap, at_a_time):
        sets = min(at_a_time, bootstrap - first)
        draws = random.integers(photos, size=(sets, photos)) + photos * np.arange(sets)[:, None]
        times = np.bincount(draws.ravel(), minlength=sets * photos).reshape(sets, photos)
        iou[first : first + sets] = class_iou((times @ flat).reshape(sets, classes, classes))
    return iou


def interval95(values: Float64) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of resampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
