"""From a head's logits to confidences that mean something, and to a threshold a class, on held-out source pictures.

The pictures' folders are all that is known, so *source precision* is all that can be measured: the share of kept
instances that carry the folder's class of the picture they are on, alone or in a scene. A kept instance on what
surrounds the object counts as right. Instances are counted before mask suppression, so several may lie on one object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..manifest import HeadCalibration
from ..shapes import Bool, Float, Int
from ..types import Basis, Evidence
from .bags import Bags
from .config import HeadConfig
from .instances import MASK_TOKENS, as_labels, select_instances, select_scene_instances
from .losses import bag_logits, bag_size
from .trainer import PART

TARGET = 0.8
"""Source precision that a threshold shall reach where the caller does not say."""
TEMPERATURES = (0.5, 5.0)
"""Bounds of the temperature: a few pictures that a head knows without a fault would ask for one of 0."""
LOWEST, LOWEST_OF_FEW, HIGHEST, STEP = 0.3, 0.5, 0.95, 0.01
"""Thresholds that are tried, of many classes and of few: with four, chance alone is 0.25."""
LEAST_ODDS = 4.0
"""Between the two: how much likelier than the mean of the others a class must be to be kept."""
LEAST_KEPT = 20
"""Kept instances below which a threshold's precision counts as unknown."""
LEAST_PICTURES = 4
"""The same for the held-out pictures of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What held-out pictures say about a head.

    Attributes:
        facts: The temperature to divide the logits by, the target, and how many pictures were held out; all that is
            kept on those of background counts as wrong.
        thresholds: By class, in the order of the logits.
        evidence: What each threshold rests on.
    """

    facts: HeadCalibration
    thresholds: tuple[float, ...]
    evidence: tuple[Evidence, ...]


def calibrate(head: nn.Module, held_out: Bags, config: HeadConfig, *, target: float = TARGET) -> Calibration:
    """Finds a temperature, and under it a threshold for each class.

    Args:
        head: In evaluation mode; not changed.
        held_out: Pictures that the head was not fitted on, and scenes of them, see ``split_bags``.
        config: The head's own; its ``threshold`` is the default of classes that too little is known of.
        target: Source precision that a threshold shall reach, above 0 and up to 1.

    Raises:
        InputError: A target outside its range, or no held-out picture of any class.
    """
    check_precision(target)
    labels, classes = as_labels(held_out), len(held_out.classes)
    if not bool((labels >= 0).any()):
        raise InputError("held-out pictures", expected="pictures of the classes", found="none")
    logits = instance_logits(head, select_instances(held_out, config.inputs))
    temperature = fit_temperature(*answering_instances(logits, labels, classes, config.divisor))
    in_scenes = instance_logits(head, select_scene_instances(held_out, config.inputs))
    under = held_out.scenes.under()
    if config.inputs == "per_token":
        under = np.repeat(under, MASK_TOKENS, axis=1)
    alone = np.broadcast_to(held_out.labels[:, None], logits.shape[:2])
    probabilities = (torch.cat([logits.flatten(0, 1), in_scenes.flatten(0, 1)]) / temperature).softmax(dim=1).numpy()
    pictures = np.array([int((held_out.labels == index).sum()) for index in range(classes)])
    found = class_thresholds(
        probabilities, np.concatenate([alone.ravel(), under.ravel()]), pictures, target=target, default=config.threshold
    )
    return Calibration(
        facts=HeadCalibration(
            temperature=temperature,
            target=target,
            pictures=int(pictures.sum()),
            background_pictures=int((labels < 0).sum()),
        ),
        thresholds=tuple(threshold for threshold, _ in found),
        evidence=tuple(evidence for _, evidence in found),
    )


def check_precision(target: float) -> None:
    """Rejects a source precision that no threshold can be chosen by.

    Raises:
        InputError: Not above 0 and up to 1.
    """
    if not 0.0 < target <= 1.0:
        raise InputError("target precision", expected="above 0, up to 1", found=repr(target))


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
    probabilities: Float, truth: Int, pictures: Int, *, target: float, default: float
) -> list[tuple[float, Evidence]]:
    """The smallest threshold of each class at which source precision reaches the target.

    Args:
        probabilities: (n,c) of held-out instances; one whose largest is explicit background's is dropped.
        truth: (n,) class of the picture that each is on; -1 for ``_background``.
        pictures: (k,) held-out pictures of each class.
        target: Of the precision.
        default: Threshold, but at least the lowest that is tried, of a class with fewer than ``LEAST_PICTURES`` held
            out, or fewer than ``LEAST_KEPT`` instances at the lowest.
    """
    winner, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = winner == truth
    least = lowest_threshold(probabilities.shape[1])
    tried = [round(least + STEP * i, 2) for i in range(round((HIGHEST - least) / STEP) + 1)]
    return [
        _class_threshold(confidence[winner == index], right[winner == index], int(count), tried, target, default)
        for index, count in enumerate(pictures)
    ]


def lowest_threshold(columns: int) -> float:
    """The lowest threshold that is tried for a head of so many logits: 0.50 up to 5, 0.30 from 11 on."""
    return min(LOWEST_OF_FEW, max(LOWEST, round(LEAST_ODDS / (LEAST_ODDS + columns - 1), 2)))


def _class_threshold(
    confidence: Float, right: Bool, pictures: int, tried: list[float], target: float, default: float
) -> tuple[float, Evidence]:
    def at(threshold: float, basis: Basis) -> tuple[float, Evidence]:
        kept = confidence >= np.float32(threshold)
        count = int(kept.sum())
        precision = float(right[kept].mean()) if count else None
        return threshold, Evidence(precision=precision, kept=count, pictures=pictures, basis=basis)

    if pictures < LEAST_PICTURES or at(tried[0], "default")[1].kept < LEAST_KEPT:
        return at(max(default, tried[0]), "default")
    for threshold in tried:
        found = at(threshold, "target")
        if found[1].kept >= LEAST_KEPT and found[1].precision is not None and found[1].precision >= target:
            return found
    return at(tried[-1], "highest")


def instance_logits(head: nn.Module, instances: Tensor) -> Tensor:
    """(m,g,c) float32 of bags (m,g,w)."""
    with torch.no_grad():
        parts = [head(part.float()) for part in instances.split(PART)] if len(instances) else []
    return torch.cat(parts) if parts else torch.zeros(0, instances.shape[1], head(instances[:0].float()).shape[-1])


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
