"""Tokens, predicted IoU and masks of two models, added up photo by photo."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import EnvironmentFault
from ..shapes import Bool, Float
from .parity_answers import Answers

LEAST_PIXELS = 100
"""Masks of fewer low-res pixels than this say little about parity: one pixel is a percent of them."""
_EDGES = np.logspace(-12, 6, 18 * 20 + 1)
"""Bins of token differences, 20 a decade: the upper edge of one is 12 % above its lower."""


class MaskTally:
    """The figures of ``Parity`` that need no head."""

    def __init__(self) -> None:
        self._photos: list[str] = []
        self._photo_iou: list[float] = []
        self._mask_iou: list[Float] = []
        self._bins = np.zeros(len(_EDGES) + 1, dtype=np.int64)
        self._largest = {"tokens_max_abs": 0.0, "iou_max_abs": 0.0}
        self._cosine = 1.0
        self._squares = np.zeros(2)  # of the differences, of the reference
        self._flips = np.zeros(2, dtype=np.int64)  # flipped, all

    def add(self, photo: str, found: Answers, expected: Answers) -> None:
        """One photo's answers and the reference's."""
        tokens, reference = found.tokens.astype(np.float64), expected.tokens.astype(np.float64)
        gaps = np.abs(tokens - reference)
        self._bins += np.bincount(np.searchsorted(_EDGES, gaps.ravel()), minlength=len(self._bins))
        self._see("tokens_max_abs", float(gaps.max()))
        self._see("iou_max_abs", float(np.abs(found.iou.astype(np.float64) - expected.iou).max()))
        lengths = np.linalg.norm(tokens, axis=2) * np.linalg.norm(reference, axis=2)
        cosine = (tokens * reference).sum(axis=2) / np.maximum(lengths, 1e-30)
        self._cosine = min(self._cosine, float(cosine.min()))
        self._squares += (float(np.square(gaps).sum()), float(np.square(reference).sum()))
        self._flips += (int((found.masks != expected.masks).sum()), expected.masks.size)
        large = expected.masks.sum(axis=(2, 3)) >= LEAST_PIXELS  # (g,4)
        overlap = overlaps(found.masks[large], expected.masks[large])
        self._photos.append(photo)
        self._photo_iou.append(float(overlap.mean()) if len(overlap) else 1.0)
        self._mask_iou.append(overlap)

    def figures(self) -> dict[str, Any]:
        """By the names of ``Parity``.

        Raises:
            EnvironmentFault: No mask was large enough.
        """
        every = np.concatenate(self._mask_iou)
        if not len(every):
            raise EnvironmentFault("parity", expected=f"masks of {LEAST_PIXELS} low-res pixels or more", found="none")
        worst = int(np.argmin(self._photo_iou))
        return {
            "photos": len(self._photos),
            "masks": len(every),
            **self._largest,
            "tokens_p999_abs": self._percentile999(),
            "tokens_cosine_min": self._cosine,
            "tokens_relative_norm": float(np.sqrt(self._squares[0] / max(self._squares[1], 1e-30))),
            "sign_flips": float(self._flips[0] / self._flips[1]),
            **spread("mask_iou", every),
            "worst_photo": self._photos[worst],
            "worst_photo_iou": self._photo_iou[worst],
        }

    def _see(self, name: str, gap: float) -> None:
        self._largest[name] = max(self._largest[name], gap)

    def _percentile999(self) -> float:
        """Upper edge of the bin that holds it, but not above the largest difference."""
        place = int(np.searchsorted(self._bins.cumsum(), 0.999 * self._bins.sum()))
        edge = float(_EDGES[min(place, len(_EDGES) - 1)])
        return min(edge, self._largest["tokens_max_abs"])


def overlaps(found: Bool, expected: Bool) -> Float:
    """IoU (n,) float32 of masks (n,y,x) one to one; two empty masks are equal."""
    common = (found & expected).sum(axis=(1, 2))
    union = (found | expected).sum(axis=(1, 2))
    return np.where(union > 0, common / np.maximum(union, 1), 1.0).astype(np.float32)


def spread(name: str, values: Float) -> dict[str, float | None]:
    """Mean, first percentile and least of values (n,), under names that begin with ``name``; None of nothing."""
    if not len(values):
        return dict.fromkeys((f"{name}_mean", f"{name}_p1", f"{name}_min"))
    exact = values.astype(np.float64)
    low = float(np.percentile(exact, 1))
    return {f"{name}_mean": float(exact.mean()), f"{name}_p1": low, f"{name}_min": float(exact.min())}
