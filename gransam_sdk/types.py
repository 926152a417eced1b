"""The frozen values that pass between rooms: classes, the point grid, what a run may be told to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict, get_args

import numpy as np

from .errors import InputError
from .shapes import Float

MaskChoice = Literal["best_iou", "single", "whole", "stable", "all3"]
"""Which of a prompt's four masks is kept (see ``Settings.mask_choice``)."""
Basis = Literal["target", "highest", "default"]
"""Why a class has its threshold (see ``Evidence.basis``)."""

DEFAULT_THRESHOLD = 0.70
"""Confidence threshold where neither the caller nor the bundle sets one (GranSAM supplement: 70 %)."""
RECORD_FLOOR = 0.30
"""Masks down to this confidence are recorded, so that a later export can be looser without a model."""
MAX_POINTS_PER_SIDE = 128


class Rle(TypedDict):
    """COCO compressed run-length encoding: ``size`` is [h, w], ``counts`` the 5-bit column-major string."""

    size: list[int]
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a class's threshold rests on: example pictures that the head was not fitted on.

    Attributes:
        precision: In [0,1], share of the instances kept at the threshold that carry their folder's class; none where
            nothing is kept.
        kept: Instances kept at the threshold.
        pictures: Held-out pictures of the class.
        basis: ``target``: the smallest threshold that reaches the target precision. ``highest``: none reaches it, so
            the highest was taken. ``default``: too little was held out or kept to say, so the default was taken.
    """

    precision: float | None
    kept: int
    pictures: int
    basis: Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassInfo:
    """One class of a bundle.

    Attributes:
        id: 1-based id; the column of the head's logits is ``id - 1``.
        name: Unique name, as the user types it.
        aliases: Other names that mean this class.
        color: (r, g, b), 0-255.
        threshold: Confidence from which a mask of this class is trusted, in (0, 1].
        evidence: What the threshold rests on; none where the head is not calibrated.
    """

    id: int
    name: str
    aliases: tuple[str, ...] = ()
    color: tuple[int, int, int] = (128, 128, 128)
    threshold: float = DEFAULT_THRESHOLD
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PointGrid:
    """A square grid of point prompts, one click in the centre of each cell (SAM's ``points_per_side``).

    Attributes:
        per_side: Points along each side, 1 to 128; g = per_side².
    """

    per_side: int = 10

    def __post_init__(self) -> None:
        """Reject grids that no run can mean."""
        if isinstance(self.per_side, bool) or not isinstance(self.per_side, int):
            raise InputError("points per side", expected="a whole number", found=repr(self.per_side))
        if not 1 <= self.per_side <= MAX_POINTS_PER_SIDE:
            raise InputError(
                "points per side",
                expected=f"1 to {MAX_POINTS_PER_SIDE}",
                found=str(self.per_side),
                do="10 is the paper's grid (100 prompts a photo)",
            )

    def points(self) -> Float:
        """(g,2) float32 XY in (0,1) of the photo, row by row from the top left."""
        centres = (np.arange(self.per_side, dtype=np.float32) + 0.5) / self.per_side
        x, y = np.meshgrid(centres, centres, indexing="xy")
        return np.stack([x.ravel(), y.ravel()], axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything besides bundle and classes that changes a result; part of a run's fingerprint.

    Attributes:
        points_per_side: Side of the prompt grid; None takes the bundle's.
        mask_choice: ``best_iou`` keeps the mask of tokens 1-3 with the largest predicted IoU, ``single`` token 0,
            ``whole`` token 3, ``stable`` token 0 unless its stability score is under 0.98 (SAM 2's rule, on the
            lattice), ``all3`` keeps tokens 1-3 as three masks. They share the prompt's label, or have each its own
            where the bundle labels masks; such a bundle has none for token 0, so ``single`` and ``stable`` are refused.
        conf: One confidence threshold for all classes; None takes each class's own.
        class_conf: Thresholds by class or group name; they win over ``conf``.
        record_floor: Masks down to this confidence are returned too (never above a class's threshold);
            None returns only those that pass their threshold.
        pred_iou_thresh: Masks of lower predicted IoU are dropped; 0 drops none (segment-anything's default is 0.88).
        stability_score_thresh: Masks of lower stability score are dropped; 0 drops none (segment-anything's default is
            0.95, where nothing else says what a mask is worth).
        nms_iou: Mask IoU above which the lower-scored of two masks is dropped; 1 turns NMS off.
        class_aware: Compare only masks of the same class in NMS.
        containment: Share of a mask inside a larger kept mask of its class above which it is dropped; 1 turns it off.
        join_fragments: Join touching masks of one class into one annotation with the best one's scores.
        decode_to_scale: Decode large JPEGs at 1/2, 1/4 or 1/8 where that leaves twice what the model is shown.
        chunk: Prompts decoded at a time; None takes the bundle's. Results may differ by rounding (≤ 1e-4).
    """

    points_per_side: int | None = None
    mask_choice: MaskChoice = "best_iou"
    conf: float | None = None
    class_conf: Mapping[str, float] = field(default_factory=dict)
    record_floor: float | None = None
    pred_iou_thresh: float = 0.0
    stability_score_thresh: float = 0.6
    nms_iou: float = 0.5
    class_aware: bool = False
    containment: float = 0.8
    join_fragments: bool = False
    decode_to_scale: bool = False
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Reject values outside their range, naming the option."""
        if self.points_per_side is not None:
            PointGrid(per_side=self.points_per_side)
        if self.mask_choice not in get_args(MaskChoice):
            raise InputError("mask choice", expected=" | ".join(get_args(MaskChoice)), found=repr(self.mask_choice))
        fractions = {"conf": self.conf, "record_floor": self.record_floor}
        fractions |= {"nms_iou": self.nms_iou, "containment": self.containment}
        fractions |= {f"conf {name}": value for name, value in self.class_conf.items()}
        for name, value in fractions.items():
            if value is not None:
                _check_fraction(name, value)
        for name in ("pred_iou_thresh", "stability_score_thresh"):
            value = getattr(self, name)
            if value != 0.0:
                _check_fraction(name, value)
        if self.chunk is not None and (not isinstance(self.chunk, int) or self.chunk < 1):
            raise InputError("chunk", expected="a whole number from 1", found=repr(self.chunk))


def _check_fraction(name: str, value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.0 < value <= 1.0:
        raise InputError(name, expected="a number above 0, up to 1", found=repr(value))
