"""How well one click on an object brings its mask, and whether the segmenter knows how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import InputError
from ..shapes import Float, Int
from .miou import Float64, interval95

SMALL, LARGE = 32**2, 96**2
"""Pixels from which on COCO calls an instance medium, and large."""
SIZES: dict[str, tuple[int, int | None]] = {
    "all": (0, None),
    "from 32²": (SMALL, None),
    "small": (0, SMALL),
    "medium": (SMALL, LARGE),
    "large": (LARGE, None),
}
"""Groups of instances by name: pixels of the photo from which on, and below which."""
BINS = 10
"""Equal parts of [0,1] by which predicted IoU is compared with true IoU."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clicks:
    """What t clicks brought, each on one instance.

    Attributes:
        iou: (t,4) float64 in [0,1], of each of the click's masks with the instance.
        predicted: (t,4) float32, what the segmenter said that it would be.
        areas: (t,) int64 pixels of the instance in the photo.
        photos: (t,) int64, which photo it is of.
    """

    iou: Float64
    predicted: Float
    areas: Int
    photos: Int

    def __post_init__(self) -> None:
        """Rejects arrays of different lengths."""
        t = len(self.iou)
        for name, shape in (("iou", (t, 4)), ("predicted", (t, 4)), ("areas", (t,)), ("photos", (t,))):
            if getattr(self, name).shape != shape:
                raise InputError(f"clicks: {name}", expected=str(shape), found=str(getattr(self, name).shape))

    def of_size(self, least: int, below: int | None = None) -> Self:
        """Those on instances of ``least`` pixels or more, and fewer than ``below``."""
        rows = (self.areas >= least) & (self.areas < np.inf if below is None else self.areas < below)
        return type(self)(
            iou=self.iou[rows], predicted=self.predicted[rows], areas=self.areas[rows], photos=self.photos[rows]
        )

    def chosen(self) -> Int:
        """(t,) int64 in 1..3: the mask that the product keeps by default, of the largest predicted IoU."""
        best: Int = self.predicted[:, 1:].argmax(axis=1) + 1
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Masks whose predicted IoU lies in one part of [0,1]: how many, and the means of predicted and true IoU."""

    count: int
    predicted: float
    true: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Predicted against true IoU.

    Attributes:
        bins: Those that hold a mask, by rising prediction.
        gap: Mean over the masks of how far their bin's prediction lies from its truth (expected calibration error).
        error: Mean absolute difference, mask by mask.
        correlation: Pearson's; NaN where either does not vary. Of masks, so it says how well they are ordered.
    """

    bins: tuple[Bin, ...]
    gap: float
    error: float
    correlation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OneClick:
    """Mean IoU of clicks, in [0,1]; NaN without a click.

    Attributes:
        count: Clicks.
        single: Of mask 0.
        chosen: Of the mask of 1 to 3 that has the largest predicted IoU.
        best: Of the best of 1 to 3, which only the ground truth can tell.
        interval: 95 % bootstrap interval of ``chosen``, over photos.
        calibration: Of the chosen masks.
    """

    count: int
    single: float
    chosen: float
    best: float
    interval: tuple[float, float]
    calibration: Calibration


def by_size(clicks: Clicks) -> dict[str, OneClick]:
    """The figures of each of ``SIZES``."""
    return {name: one_click(clicks.of_size(*bounds)) for name, bounds in SIZES.items()}


def one_click(clicks: Clicks, *, bootstrap: int = 1000, seed: int = 0) -> OneClick:
    """The figures of all clicks together, every click counting the same.

    Args:
        clicks: Any number of them.
        bootstrap: Photo sets to draw for the interval.
        seed: Seed of the draws.
    """
    rows, choice = np.arange(len(clicks.iou)), clicks.chosen()
    chosen = clicks.iou[rows, choice]
    return OneClick(
        count=len(rows),
        single=_mean(clicks.iou[:, 0]),
        chosen=_mean(chosen),
        best=_mean(clicks.iou[:, 1:].max(axis=1)),
        interval=_interval(chosen, clicks.photos, bootstrap, seed),
        calibration=calibrate(clicks.predicted[rows, choice], chosen),
    )


def calibrate(predicted: Float | Float64, true: Float64) -> Calibration:
    """Compares predicted with true IoU of any masks.

    Args:
        predicted: (m,), taken for what is next to it in [0,1] where it lies outside.
        true: (m,) in [0,1].
    """
    said = np.clip(predicted.astype(np.float64), 0.0, 1.0)
    place = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    groups = [place == i for i in range(BINS) if (place == i).any()]
    bins = tuple(Bin(count=int(g.sum()), predicted=_mean(said[g]), true=_mean(true[g])) for g in groups)
    varies = len(said) > 1 and said.std() > 0 and true.std() > 0
    return Calibration(
        bins=bins,
        gap=sum(b.count * abs(b.predicted - b.true) for b in bins) / len(said) if bins else float("nan"),
        error=_mean(np.abs(said - true)),
        correlation=float(np.corrcoef(said, true)[0, 1]) if varies else float("nan"),
    )


def _interval(values: Float64, photos: Int, bootstrap: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean when photos, with all of their clicks, are drawn with replacement."""
    if not len(values):
        return float("nan"), float("nan")
    photo = np.unique(photos, return_inverse=True)[1]
    sums, counts = np.bincount(photo, weights=values), np.bincount(photo)
    times = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=bootstrap)
    return interval95((times @ sums) / (times @ counts))


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")
