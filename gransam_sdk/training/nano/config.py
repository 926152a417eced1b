"""How the embedded segmenter is trained: every switch, its default and where that comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import InputError

Precision = Literal["bf16", "fp32"]
Shares = tuple[float, float, float]

LEAST_SIDE = 64
"""Smallest side: two cells at stride 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterConfig:
    """How the segmenter is trained; the defaults are those of the embedded bundle's.

    Attributes:
        sides: s of the steps, one after the other: step i is trained at ``sides[i % len(sides)]``.
        photos: b, photos a step.
        clicks: Clicks a photo.
        crop: Least share of a photo's area that a crop keeps.
        aspect: Largest natural logarithm of a crop's stretch.
        mosaic: Share of the photos that are four photos, each at half the side: small things are rare otherwise.
        paste: Share of the pictures that objects of other photos are put into.
        labelled: Share of the clicks that go to labelled regions where a photo has both these and unlabelled segments.
        least_area: Share of the square below which a region is not clicked.
        held_out: Share of the photos of ``held_sources`` that are never trained on.
        held_sources: Where held-out photos come from; empty means every source.
        shares: Of the budget, for the three phases; a training that starts from a checkpoint spends all on the last.
        block_rate: Learning rate of both distillation phases.
        mask_rate: Learning rate of the mask phase.
        encoder_rate: The encoder's, as a share of ``mask_rate``: it was taught already.
        rate_floor: What the learning rate ends at, as a share of its largest.
        warm_up: Steps until it is reached, at most a tenth of a phase's.
        distill_decay: Weight decay of the distillation phases.
        mask_decay: Weight decay of the mask phase.
        balance: Exponent of the area balance of the cross-entropy: 0 none, 1 both sides of a mask weigh the same.
        dice: Weight of the dice loss beside it.
        mean_of_three: Weight of the mean over tokens 1 to 3 beside their least, so that no token starves.
        whole: Weight of token 0's loss on whole objects.
        features: Weight of the teacher's features in the mask phase.
        meaning: Weight, beside the error of features, of what they mean to the teacher's last layers.
        average: Decay of the running mean of the weights, which is what is shipped.
        precision: Of products and convolutions: ``bf16`` by autocast, or ``fp32``; weights are fp32 in both.
        seed: Of initialisation and every draw.
    """

    sides: tuple[int, ...] = (224,)
    photos: int = 16
    clicks: int = 6
    crop: float = 0.35
    aspect: float = 0.35
    mosaic: float = 0.15
    paste: float = 0.35
    labelled: float = 0.7
    least_area: float = 8e-4
    held_out: float = 0.04
    held_sources: tuple[str, ...] = ("voc2012_train_aug", "coco_train2017")
    shares: Shares = (0.15, 0.2, 0.65)
    block_rate: float = 2.5e-3
    mask_rate: float = 8e-4
    encoder_rate: float = 0.7
    rate_floor: float = 0.02
    warm_up: int = 200
    distill_decay: float = 1e-4
    mask_decay: float = 0.02
    balance: float = 0.6
    dice: float = 1.5
    mean_of_three: float = 0.05
    whole: float = 0.5
    features: float = 0.6
    meaning: float = 0.5
    average: float = 0.998
    precision: Precision = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values outside their range."""
        if self.precision not in get_args(Precision):
            raise InputError("precision", expected=" or ".join(get_args(Precision)), found=repr(self.precision))
        checks = {
            "sides": bool(self.sides) and all(side >= LEAST_SIDE and side % 32 == 0 for side in self.sides),
            "crop": 0.0 < self.crop <= 1.0,
            "shares": len(self.shares) == 3 and min(self.shares) > 0.0 and abs(sum(self.shares) - 1.0) < 1e-6,
            "held_out": 0.0 <= self.held_out < 1.0,
            "average": 0.0 <= self.average < 1.0,
        }
        checks |= {name: getattr(self, name) >= 1 for name in ("photos", "clicks", "warm_up")}
        shares = ("mosaic", "paste", "labelled", "least_area", "rate_floor", "balance")
        checks |= {name: 0.0 <= getattr(self, name) <= 1.0 for name in shares}
        weights = (
            "aspect",
            "distill_decay",
            "mask_decay",
            "dice",
            "mean_of_three",
            "whole",
            "features",
            "meaning",
            "seed",
        )
        checks |= {name: getattr(self, name) >= 0 for name in weights}
        checks |= {name: getattr(self, name) > 0.0 for name in ("block_rate", "mask_rate", "encoder_rate")}
        for name, fine in checks.items():
            if not fine:
                raise InputError(name, expected="a value in its range", found=repr(getattr(self, name)))
