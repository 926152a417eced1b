"""What a path hands over: the masks that it kept of a photo, the largest score first, and the rule that keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from gransam_sdk.shapes import Bool, Float, Int
from gransam_sdk.types import Rle, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Masks of one photo.

    Attributes:
        masks: n run-length codes of the photo's size.
        names: n class names; none where a path labels nothing.
        extra: What else a path can tell.
    """

    masks: tuple[Rle, ...]
    names: tuple[str, ...]
    extra: Any = None


def encode(masks: Bool) -> list[Any]:
    """(n,h,w) bool to pycocotools' run-length codes."""
    codes: list[Any] = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return codes


def as_rle(code: Any) -> Rle:
    """With text instead of bytes, as JSON has it."""
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def suppress(codes: list[Any], labels: Int, scores: Float, settings: Settings) -> list[int]:
    """The product's rule with pycocotools' arithmetic: greedy by mask IoU, then fragments of a larger mask.

    Args:
        codes: n run-length codes of the masks that are compared.
        labels: (n,) class index.
        scores: (n,) what orders them; of equal ones the first goes first.
        settings: ``nms_iou`` and ``containment``.

    Returns:
        Indices of the masks that stay, the largest score first.
    """
    area = [int(pixels) for pixels in coco.area(codes)] if codes else []
    order = [int(i) for i in np.lexsort((np.arange(len(codes)), -scores)) if area[i] > 0]
    overlap = coco.iou(codes, codes, [0] * len(codes)) if codes else np.zeros((0, 0))
    kept: list[int] = []
    for i in order:
        if all(overlap[i, j] <= settings.nms_iou for j in kept):
            kept.append(i)
    # Against a "crowd", pycocotools divides by the first mask's own area: the share of i inside j.
    inside = coco.iou(codes, codes, [1] * len(codes)) if codes else overlap
    whole: list[int] = []
    for i in sorted(kept, key=lambda mask: (-area[mask], mask)):
        if all(labels[i] != labels[j] or inside[i, j] <= settings.containment for j in whole):
            whole.append(i)
    return [i for i in kept if i in whole]
