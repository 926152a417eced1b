"""From a head's logits to confidences that mean something, and to a threshold a class, on held-out source pictures.

The pictures' folders are all that is known, so *source precision* is all that can be measured: the share of kept
instances that carry their folder's class. A kept instance on what surrounds the object counts as right. Instances are
counted before mask suppression, so several may lie on one object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.head import Head, PrototypeHead
from ..shapes import Bool, Float, Int
from .config import HeadConfig
from .instances import as_labels, select_instances
from .losses import bag_logits, bag_size
from .tokens import Bags
from .trainer import PART

TEMPERATURES = (0.2, 5.0)
"""Bounds of the temperature: pictures that a head knows without a fault would ask for one of 0."""
LOWEST, HIGHEST, STEP = 0.3, 0.95, 0.01
"""Thresholds that are tried."""
LEAST_KEPT = 20
"""Kept instances below which a threshold's precision counts as unknown."""
LEAST_PICTURES = 4
"""The same for the held-out pictures of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCalibration:
    """What a class's threshold rests on.

    Attributes:
        threshold: Confidence from which its masks are trusted.
        precision: Source precision at that threshold; none where nothing is kept.
        kept: Instances kept at that threshold, which the precision is of.
        pictures: Held-out pictures of the class.
        basis: ``target``: the smallest threshold that reaches the target. ``highest``: none reaches it, so the highest
            was taken. ``default``: too little was held out or kept to say, so the default was taken.
    """

    threshold: float
    precision: float | None
    kept: int
    pictures: int
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What held-out pictures say about a head.

    Attributes:
        temperature: Already folded into the head's last layer.
        target: Source precision that the thresholds aim at.
        background_pictures: Held-out ``_background`` pictures; all that is kept on them counts as wrong.
        classes: By class, in the order of the logits.
    """

    temperature: float
    target: float
    background_pictures: int
    classes: tuple[ClassCalibration, ...]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """By class."""
        return tuple(found.threshold for found in self.classes)


def calibrate(head: Head | PrototypeHead, held_out: Bags, config: HeadConfig, *, target: float = 0.8) -> Calibration:
    """Fits a temperature, folds it into the head, and sets a threshold for each class.

    Args:
        head: In evaluation mode; changed in place.
        held_out: Pictures that the head was not fitted on, see ``split_bags``.
        config: The head's own; its ``threshold`` is the default of classes that too little is known of.
        target: Source precision that a threshold shall reach, above 0 and up to 1.

    Raises:
        InputError: A target outside its range, or no held-out picture of any class.
    """
    if not 0.0 < target <= 1.0:
        raise InputError("target", expected="above 0, up to 1", found=repr(target))
    labels = as_labels(held_out)
    if not bool((labels >= 0).any()):
        raise InputError("held-out pictures", expected="pictures of the classes", found="none")
    logits = _logits(head, select_instances(held_out, config.inputs))
    temperature = fit_temperature(*answering_instances(logits, labels, len(held_out.classes), config.divisor))
    head.fold_temperature(temperature)
    probabilities = (logits / temperature).softmax(dim=2).numpy()
    return Calibration(
        temperature=temperature,
        target=target,
        background_pictures=int((labels < 0).sum()),
        classes=class_thresholds(
            probabilities, held_out.labels, len(held_out.classes), target=target, default=config.threshold
        ),
    )


def answering_instances(logits: Tensor, labels: Tensor, classes: int, divisor: int) -> tuple[Tensor, Tensor]:
    """The instances that speak for a bag's answer, and the folder's class of each.

    The answer is the class with the largest bag logit; equation (2) pools the top k of that class, and these are
    taken. Taking the top k of the folder's class instead would look up what is to be predicted, and be too sure.

    Args:
        logits: (m,g,c) of bags.
        labels: (m,) int64; ``_background``, below 0, has no class to find and is left out.
        classes: k; an explicit background's logit is never the answer, but stays in the softmax.
        divisor: a.

    Returns:
        (n,c) logits and (n,) int64 labels.
    """
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    answer = bag_logits(logits, divisor)[:, :classes].argmax(dim=1)
    size = bag_size(logits.shape[1], divisor)
    rows = torch.arange(len(logits))
    top = logits[rows, :, answer].topk(size, dim=1).indices
    return logits[rows[:, None], top].flatten(0, 1), labels.repeat_interleave(size)


def fit_temperature(logits: Tensor, labels: Tensor, bounds: tuple[float, float] = TEMPERATURES) -> float:
    """The temperature with the least negative log-likelihood of labels (n,) under softmax(logits (n,c) / T).

    It is convex in 1/T, so golden-section search finds it. Source: Guo et al., ICML 2017.
    """
    exact, rows = logits.double(), labels[:, None]

    def cost(inverse: float) -> float:
        return -float((exact * inverse).log_softmax(dim=1).gather(1, rows).mean())

    return 1.0 / _minimum(cost, 1.0 / bounds[1], 1.0 / bounds[0])


def class_thresholds(
    probabilities: Float, labels: Int, classes: int, *, target: float, default: float
) -> tuple[ClassCalibration, ...]:
    """The smallest threshold of each class at which source precision reaches the target.

    Args:
        probabilities: (m,g,c) of the held-out bags; an instance whose largest is explicit background's is dropped.
        labels: (m,) class of each bag, -1 for ``_background``.
        classes: k.
        target: Of the precision.
        default: Threshold of a class with fewer than ``LEAST_PICTURES`` held out, or fewer than ``LEAST_KEPT``
            instances at the lowest threshold.
    """
    winner, confidence = probabilities.argmax(axis=2), probabilities.max(axis=2)
    right = winner == labels[:, None]
    found = []
    for index in range(classes):
        own = winner == index
        pictures = int((labels == index).sum())
        found.append(_class_threshold(confidence[own], right[own], pictures, target, default))
    return tuple(found)


def _class_threshold(confidence: Float, right: Bool, pictures: int, target: float, default: float) -> ClassCalibration:
    def at(threshold: float, basis: str) -> ClassCalibration:
        kept = confidence >= np.float32(threshold)
        count = int(kept.sum())
        precision = float(right[kept].mean()) if count else None
        return ClassCalibration(threshold=threshold, precision=precision, kept=count, pictures=pictures, basis=basis)

    tried = [round(LOWEST + STEP * i, 2) for i in range(round((HIGHEST - LOWEST) / STEP) + 1)]
    if pictures < LEAST_PICTURES or at(tried[0], "default").kept < LEAST_KEPT:
        return at(default, "default")
    for threshold in tried:
        result = at(threshold, "target")
        if result.kept >= LEAST_KEPT and result.precision is not None and result.precision >= target:
            return result
    return at(tried[-1], "highest")


def _logits(head: nn.Module, instances: Tensor) -> Tensor:
    """(m,g,c) float32 of bags (m,g,w)."""
    with torch.no_grad():
        return torch.cat([head(part.float()) for part in instances.split(PART)])


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function is least in [low, high], to 1e-6 of the width."""
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(30):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2
