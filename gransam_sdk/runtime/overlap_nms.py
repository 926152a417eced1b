"""Suppression of masks whose common pixels an engine has counted: ``select.surviving`` without the masks."""

from __future__ import annotations

import numpy as np

from ..nms import greedy
from ..shapes import Bool, Float, Int
from ..types import Settings


def surviving_overlaps(common: Int, areas: Int, labels: Int, scores: Float, passed: Bool, settings: Settings) -> Int:
    """Mask NMS, then containment, by the rules of ``nms`` and to the same indices.

    Args:
        common: (n,n) int64, pixels that two masks share inside the valid area.
        areas: (n,) int64, pixels inside the valid area; masks without one go.
        labels: (n,) int64.
        scores: (n,) float32, confidence × predicted IoU.
        passed: (n,) bool.
        settings: ``nms_iou``, ``class_aware``, ``containment``.

    Returns:
        Indices of the masks that stay, best score first.
    """
    tiers = (~passed).astype(np.int64)
    same = labels[:, None] == labels[None, :]
    kept = np.flatnonzero(areas)
    if settings.nms_iou < 1.0:
        union = areas[:, None] + areas[None, :] - common
        drops = common / np.maximum(union, 1) > settings.nms_iou  # float64, as whole numbers divide
        if settings.class_aware:
            drops &= same
        kept = greedy(kept[np.lexsort((kept, -scores[kept], tiers[kept]))], drops)
    if settings.containment < 1.0:
        drops = (common / np.maximum(areas, 1) > settings.containment) & same  # [i, j]: share of j inside i
        drops &= tiers[:, None] <= tiers[None, :]
        # Of equal masks the one goes first that suppression took first.
        kept = greedy(kept[np.argsort(-areas[kept], kind="stable")], drops)
    return np.asarray(kept[np.lexsort((kept, -scores[kept]))])
