"""Labels and kept masks of two models, added up photo by photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..rle import rle_counts
from ..shapes import Float, Int
from ..types import Rle
from .parity_answers import Answers
from .parity_tally import overlaps, spread

CLEAR_MARGIN = 0.05
"""Lead of the largest class probability over the next from which a label is clear."""
LEAST_MATCH = 0.5
"""IoU from which two kept masks are the same object."""


class LabelTally:
    """The figures of ``Parity`` that a head makes possible; all of them None without one."""

    def __init__(self) -> None:
        self._labelled = False
        self._logit_gap = 0.0
        self._confident_iou: list[Float] = []
        self._matched_iou: list[Float] = []
        self._agree = np.zeros(4, dtype=np.int64)  # confident, of them agreeing, clear, of them agreeing
        self._sets = np.zeros(3, dtype=np.int64)  # kept in the reference, kept here, hits

    def add(self, found: Answers, expected: Answers) -> None:
        """One photo's answers and the reference's."""
        if found.labels is None or expected.labels is None or found.result is None or expected.result is None:
            return
        self._labelled = True
        if found.class_logits is not None and expected.class_logits is not None:
            gap = np.abs(found.class_logits.astype(np.float64) - expected.class_logits).max()
            self._logit_gap = max(self._logit_gap, float(gap))
        rows = np.flatnonzero(expected.labels.passed)
        self._confident_iou.append(
            overlaps(found.masks[rows, found.choice[rows]], expected.masks[rows, expected.choice[rows]])
        )
        same = found.labels.order[rows, 0] == expected.labels.order[rows, 0]
        clear = _margin(expected)[rows] > CLEAR_MARGIN
        self._agree += (len(rows), int(same.sum()), int(clear.sum()), int((same & clear).sum()))
        iou, pairs = match(found.result.masks, expected.result.masks)
        self._matched_iou.append(iou)
        hits = sum(found.result.names[i] == expected.result.names[j] for i, j in pairs)
        self._sets += (len(expected.result), len(found.result), hits)

    def figures(self) -> dict[str, Any]:
        """By the names of ``Parity``."""
        if not self._labelled:
            return {}
        confident, agreeing, clear, clear_agreeing = (int(count) for count in self._agree)
        kept, here, hits = (int(count) for count in self._sets)
        matched = np.concatenate(self._matched_iou)
        return {
            "class_logits_max_abs": self._logit_gap,
            "confident": confident,
            **spread("confident_iou", np.concatenate(self._confident_iou)),
            "label_agreement": agreeing / confident if confident else None,
            "clear": clear,
            "clear_label_agreement": clear_agreeing / clear if clear else None,
            "kept": kept,
            "matched": len(matched),
            **spread("kept_iou", matched),
            "kept_f1": 2 * hits / (kept + here) if kept + here else None,
        }


def match(found: Sequence[Rle], expected: Sequence[Rle]) -> tuple[Float, list[tuple[int, int]]]:
    """Pairs masks one to one, the largest IoU first, down to ``LEAST_MATCH``.

    Args:
        found: Masks of one size.
        expected: Masks of the same size.

    Returns:
        IoU (m,) float32 of the pairs, and the pairs themselves: index in ``found``, index in ``expected``.
    """
    iou = pairwise_iou(found, expected)
    free_found, free_expected = np.ones(len(found), dtype=np.bool_), np.ones(len(expected), dtype=np.bool_)
    pairs = []
    for place in np.argsort(-iou, axis=None, kind="stable"):
        i, j = divmod(int(place), len(expected))
        if iou[i, j] < LEAST_MATCH:
            break
        if free_found[i] and free_expected[j]:
            free_found[i] = free_expected[j] = False
            pairs.append((i, j))
    return np.array([iou[pair] for pair in pairs], dtype=np.float32), pairs


def pairwise_iou(masks: Sequence[Rle], others: Sequence[Rle]) -> Float:
    """IoU (n,m) float32 of run-length codes of one size, by runs: no mask is decoded.

    A mask's pixels before a place are a function that rises by one a pixel within its runs; at the ends of another
    mask's runs it says how much of the mask lies within them.
    """
    steps = [_rising(mask) for mask in others]
    iou = np.zeros((len(masks), len(others)), dtype=np.float32)
    for i, mask in enumerate(masks):
        places, before = _rising(mask)
        area = before[-1]
        for j, (other_places, other_before) in enumerate(steps):
            inside = np.interp(places, other_places, other_before)
            common = inside[2::2].sum() - inside[1:-1:2].sum()
            union = area + other_before[-1] - common
            iou[i, j] = common / union if union else 0.0
    return iou


def _rising(mask: Rle) -> tuple[Int, Int]:
    """Places 0, start, end, start, end, ... of a mask's runs, and its pixels before each."""
    runs = rle_counts(mask)
    runs = runs[: len(runs) // 2 * 2]  # ends with foreground
    pixels = np.where(np.arange(len(runs)) % 2 == 1, runs, 0)
    zero = np.zeros(1, dtype=np.int64)
    return np.concatenate([zero, runs.cumsum()]), np.concatenate([zero, pixels.cumsum()])


def _margin(answers: Answers) -> Float:
    """(g,) float32: largest class probability less the next."""
    labels = answers.labels
    if labels is None or labels.order.shape[1] < 2:
        return np.ones(len(answers.choice), dtype=np.float32)
    first, second = (np.take_along_axis(labels.probabilities, labels.order[:, i : i + 1], axis=1) for i in (0, 1))
    return np.asarray((first - second)[:, 0], dtype=np.float32)
