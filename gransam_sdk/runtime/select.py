"""From class probabilities to labelled prompts, and from their masks to the ones that stay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..classes import ClassSet
from ..errors import InputError
from ..manifest import HeadInfo
from ..nms import drop_contained, mask_nms, touching_groups
from ..shapes import Bool, Float, Int
from ..types import MaskChoice, Settings

STABLE_DELTA = 0.05
STABLE_LEAST = 0.98
STABILITY_OFFSET = 1.0


def check_choice(choice: MaskChoice, head: HeadInfo | None) -> None:
    """Checks that every mask that may be chosen has a label.

    Raises:
        InputError: ``single`` or ``stable`` with a head that labels masks, which has no label for token 0.
    """
    if head is not None and head.labels == "mask" and choice in ("single", "stable"):
        raise InputError(
            f"mask choice {choice}",
            expected="best_iou, whole or all3",
            found="a bundle that labels each of the masks 1 to 3 and has no label for mask 0",
            do=f"choose another mask; mask choice {choice} needs a bundle that labels prompts",
        )


def choose_masks(choice: MaskChoice, iou: Float, lattice: Float) -> Int:
    """Which of a prompt's four masks are kept.

    Args:
        choice: See ``Settings.mask_choice``.
        iou: (g,4) predicted IoU.
        lattice: (g,4,e,e) logits; only ``stable`` reads them.

    Returns:
        (g,1) int64, or (g,3) for ``all3``; the first column is the mask whose features the head sees.
    """
    best: Int = iou[:, 1:].argmax(axis=1) + 1
    if choice == "single":
        best = np.zeros_like(best)
    elif choice == "whole":
        best = np.full_like(best, 3)
    elif choice == "stable":
        best = np.where(stability(lattice[:, 0], STABLE_DELTA) < STABLE_LEAST, best, 0)
    elif choice == "all3":
        return np.stack([best, best % 3 + 1, (best + 1) % 3 + 1], axis=1)
    return best[:, None]


def stability(logits: Float, offset: float = STABILITY_OFFSET) -> Float:
    """SAM's stability score (n,): IoU of the masks cut at +offset and -offset; 0 where the looser one is empty.

    Source: segment-anything, ``utils/amg.py:calculate_stability_score``.
    """
    tight = (logits > offset).sum(axis=(1, 2))
    loose = (logits > -offset).sum(axis=(1, 2))
    return np.asarray(tight / np.maximum(loose, 1), dtype=np.float32)


def trusted(iou: Float, stable: Float, settings: Settings) -> Bool:
    """Which of n masks are good enough to be compared at all.

    Args:
        iou: (n,) float32 predicted IoU.
        stable: (n,) float32 stability scores inside the valid area.
        settings: ``pred_iou_thresh`` and ``stability_score_thresh``.

    Returns:
        (n,) bool.

    Source: segment-anything, ``automatic_mask_generator.py``, which drops masks at the first threshold, too.
    """
    good: Bool = stable >= settings.stability_score_thresh
    if settings.pred_iou_thresh > 0.0:  # predicted IoU may be below 0
        good &= iou >= settings.pred_iou_thresh
    return good


def softmax(logits: Float) -> Float:
    """Row-wise softmax (n,c)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def score(confidence: Float, predicted_iou: Float) -> Float:
    """(n,) float32 confidence × predicted IoU: what orders NMS, painting and COCO."""
    return confidence * np.clip(predicted_iou, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of n masks.

    Attributes:
        label: (n,) int64 index into the class set's labels; -1 where background or a class that was not asked for wins.
        confidence: (n,) float32, the winner's probability.
        passed: (n,) bool, confidence at or above the label's threshold.
        recorded: (n,) bool, confidence at or above the lower of that threshold and the record floor.
        order: (n,c) int64, columns of ``ClassSet.column_names`` by falling probability.
        probabilities: (n,c) float32 over these columns.
    """

    label: Int
    confidence: Float
    passed: Bool
    recorded: Bool
    order: Int
    probabilities: Float


def chosen_logits(logits: Float, choice: Int) -> Float:
    """Class logits of chosen masks, prompt by prompt.

    Args:
        logits: (g,c) of prompts, which all their masks share, or (g,3,c) of tokens 1 to 3.
        choice: (g,m) int64 as ``choose_masks`` gives it; no 0 where each mask has logits of its own.

    Returns:
        (g·m,c).
    """
    if logits.ndim == 2:
        return np.repeat(logits, choice.shape[1], axis=0)
    own: Float = logits[np.arange(len(choice))[:, None], choice - 1]  # (g,m,c)
    return own.reshape(choice.size, logits.shape[2])


def label_masks(logits: Float, classes: ClassSet, settings: Settings) -> Labels:
    """Class logits (n,c) to labels: a softmax over all columns of the head, then groups are summed."""
    probabilities = classes.group(softmax(logits))
    order = np.argsort(-probabilities, axis=1, kind="stable")
    rows = np.arange(len(logits))
    confidence = probabilities[rows, order[:, 0]]
    asked = order[:, 0] < len(classes.labels)
    label = np.where(asked, order[:, 0], -1)
    # An unasked winner is dropped whatever its confidence, so its threshold is never reached.
    threshold = np.where(asked, classes.thresholds[label], np.inf)
    floor = threshold if settings.record_floor is None else np.minimum(threshold, settings.record_floor)
    return Labels(
        label=label,
        confidence=confidence,
        passed=confidence >= threshold,
        recorded=asked & (confidence >= floor),
        order=order,
        probabilities=probabilities,
    )


def surviving(masks: Bool, labels: Int, scores: Float, passed: Bool, settings: Settings) -> Int:
    """Mask NMS, then containment.

    Masks that pass their threshold come before those that are only recorded, so that recording more never changes
    what passes.

    Args:
        masks: (n,y,x) bool low-res masks inside the valid area.
        labels: (n,) int64.
        scores: (n,) float32, confidence × predicted IoU.
        passed: (n,) bool.
        settings: ``nms_iou``, ``class_aware``, ``containment``.

    Returns:
        Indices of the masks that stay, best score first.
    """
    tiers = (~passed).astype(np.int64)
    kept = np.flatnonzero(masks.any(axis=(1, 2)))
    if settings.nms_iou < 1.0:
        classes = labels[kept] if settings.class_aware else None
        kept = kept[mask_nms(masks[kept], scores[kept], settings.nms_iou, classes=classes, tiers=tiers[kept])]
    if settings.containment < 1.0:
        kept = kept[drop_contained(masks[kept], labels[kept], settings.containment, tiers=tiers[kept])]
    return kept[np.lexsort((kept, -scores[kept]))]


def join_touching(logits: Float, masks: Bool, labels: Int, passed: Bool) -> tuple[Float, Int]:
    """Joins touching masks of one class.

    Args:
        logits: (n,l,l) low-res logits, best score first.
        masks: (n,y,x) bool, the same inside the valid area.
        labels: (n,) int64.
        passed: (n,) bool; what passes is never joined with what is only recorded.

    Returns:
        Logits (m,l,l), the pixelwise largest of each group, and (m,) the index of each group's best member.
    """
    groups = touching_groups(masks, labels * 2 + passed)
    leaders = np.unique(groups, return_index=True)[1]
    return np.stack([logits[groups == group].max(axis=0) for group in range(len(leaders))]), leaders
