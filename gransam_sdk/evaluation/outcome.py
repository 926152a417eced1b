"""What an evaluation yields: IoU by class, its mean, and intervals that say how much hangs on the photos at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..shapes import Int
from .miou import Float64, class_iou, interval95, mean_iou, resampled_iou


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a run's label maps agree with the ground truth; fractions, not per cent.

    Attributes:
        classes: c names by label value, background first.
        ids: The photos that were evaluated, sorted.
        confusions: (photos,c,c) int64 pixel counts in the order of ``ids``, rows the truth, columns the prediction.
        iou: (c,) float64 over all photos together; NaN where a class is in neither truth nor prediction.
        miou: Mean of ``iou`` over the classes that occur, background included.
        interval: 95 % bootstrap interval of ``miou`` over photos.
        foreground: The same mean without background.
        foreground_interval: 95 % bootstrap interval of ``foreground``.
        not_asked: Classes that the run had no label for; they count with what IoU that leaves them.
        extra: Records of the run that the ground truth does not list; they count nowhere.
        bootstrap: Photo sets drawn for the intervals.
        seed: Seed of the draws.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    confusions: Int
    iou: Float64
    miou: float
    interval: tuple[float, float]
    foreground: float
    foreground_interval: tuple[float, float]
    not_asked: tuple[str, ...]
    extra: int
    bootstrap: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Everything but ids and matrices, in per cent; a class that does not occur is null."""
        return {
            "photos": len(self.ids),
            "miou": percent(self.miou),
            "miou_interval95": [percent(value) for value in self.interval],
            "foreground": percent(self.foreground),
            "foreground_interval95": [percent(value) for value in self.foreground_interval],
            "iou": {name: percent(value) for name, value in zip(self.classes, self.iou.tolist(), strict=True)},
            "not_asked": list(self.not_asked),
            "extra_records": self.extra,
            "bootstrap": self.bootstrap,
            "seed": self.seed,
        }

    def table(self) -> str:
        """The result as text: one class a line, then the means with their intervals, then what was left out."""
        width = max(14, 2 + max(map(len, self.classes)))
        pixels = self.confusions.sum(axis=0)
        lines = [f"{'class':<{width}}{'IoU %':>8}{'true Mpx':>11}{'found Mpx':>11}"]
        for i, name in enumerate(self.classes):
            iou = "absent" if np.isnan(self.iou[i]) else f"{100 * self.iou[i]:.2f}"
            note = "   not asked for" if name in self.not_asked else ""
            true, found = pixels[i].sum() / 1e6, pixels[:, i].sum() / 1e6
            lines.append(f"{name:<{width}}{iou:>8}{true:>11.2f}{found:>11.2f}{note}")
        lines.append("")
        mean_name = f"mIoU{len(self.classes)}"
        means = ((mean_name, self.miou, self.interval), ("foreground", self.foreground, self.foreground_interval))
        for name, mean, (low, high) in means:
            lines.append(f"{name:<{width}}{100 * mean:>8.2f}   95 % interval {100 * low:.2f} to {100 * high:.2f}")
        lines.append("")
        lines.append(f"{len(self.ids)} photos, resampled {self.bootstrap} times for the intervals.")
        if np.isnan(self.iou).any():
            lines.append("Absent classes are in neither truth nor prediction and are left out of the means.")
        if self.extra:
            lines.append(f"{self.extra} records are not in the ground truth and count nowhere.")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean IoU of one evaluation less another's on the same photos, with 95 % bootstrap intervals; fractions."""

    miou: float
    interval: tuple[float, float]
    foreground: float
    foreground_interval: tuple[float, float]


def summarise(
    confusions: Mapping[str, Int],
    classes: tuple[str, ...],
    *,
    not_asked: tuple[str, ...],
    extra: int,
    bootstrap: int,
    seed: int,
) -> Evaluation:
    """The evaluation that per-photo confusion matrices amount to.

    Args:
        confusions: (c,c) int64 by photo id, at least one.
        classes: c names, background first.
        not_asked: Classes that the run had no label for.
        extra: Records that count nowhere.
        bootstrap: Photo sets to draw, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: ``bootstrap`` is below 1.
    """
    _check_bootstrap(bootstrap)
    ids = tuple(sorted(confusions))
    stacked = np.stack([confusions[photo] for photo in ids])
    iou = class_iou(stacked.sum(axis=0))
    resampled = resampled_iou(stacked, bootstrap, seed)
    return Evaluation(
        classes=classes,
        ids=ids,
        confusions=stacked,
        iou=iou,
        miou=float(mean_iou(iou)),
        interval=interval95(mean_iou(resampled)),
        foreground=float(mean_iou(iou[1:])),
        foreground_interval=interval95(mean_iou(resampled[:, 1:])),
        not_asked=not_asked,
        extra=extra,
        bootstrap=bootstrap,
        seed=seed,
    )


def paired_bootstrap(a: Evaluation, b: Evaluation, *, bootstrap: int = 1000, seed: int = 0) -> Difference:
    """How much better ``a`` is than ``b``, both measured on the same resampled photo sets.

    An interval without 0 in it says that the order of the two does not hang on which photos were at hand. It is
    narrower than the two separate intervals suggest, because a hard photo is hard for both.

    Args:
        a: One evaluation.
        b: Another one of the same photos and classes.
        bootstrap: Photo sets to draw, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: The photos or classes differ, or ``bootstrap`` is below 1.
    """
    if a.ids != b.ids or a.classes != b.classes:
        photos, classes = len(set(a.ids) ^ set(b.ids)), len(set(a.classes) ^ set(b.classes))
        raise InputError(
            "paired bootstrap",
            expected="the same photos and classes in both evaluations",
            found=f"{photos} photos and {classes} classes in only one",
            do="evaluate both runs against the same ground truth",
        )
    _check_bootstrap(bootstrap)
    first, second = (resampled_iou(each.confusions, bootstrap, seed) for each in (a, b))
    return Difference(
        miou=a.miou - b.miou,
        interval=interval95(mean_iou(first) - mean_iou(second)),
        foreground=a.foreground - b.foreground,
        foreground_interval=interval95(mean_iou(first[:, 1:]) - mean_iou(second[:, 1:])),
    )


def _check_bootstrap(bootstrap: int) -> None:
    if bootstrap < 1:
        raise InputError("bootstrap", expected="a whole number from 1", found=str(bootstrap))


def percent(fraction: float) -> float | None:
    """A fraction in per cent with four decimals; None for NaN, which JSON does not know."""
    return None if math.isnan(fraction) else round(100 * fraction, 4)
