"""The candidate masks of one photo, as one table that can be cut and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from ..shapes import AnyArray, Bool, Float, Int
from .model import Prompts
from .select import Labels, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """n candidate masks.

    Attributes:
        points: (n,2) float32 XY in [0,1] of the photo.
        tokens: (n,4,d) float32.
        iou: (n,) float32, predicted IoU of the chosen mask.
        choice: (n,) int64, which of the prompt's masks.
        label: (n,) int64 index into the class set's labels.
        confidence: (n,) float32.
        passed: (n,) bool, confidence at or above the label's threshold.
        order: (n,c) int64, class columns by falling probability.
        probabilities: (n,c) float32.
        state: ``m_*`` rows.
    """

    points: Float
    tokens: Float
    iou: Float
    choice: Int
    label: Int
    confidence: Float
    passed: Bool
    order: Int
    probabilities: Float
    state: Mapping[str, AnyArray]

    @classmethod
    def of(cls, prompts: Prompts, choice: Int, labels: Labels) -> Self:
        """The recorded masks of one chunk; what the others hold is let go.

        Args:
            prompts: g of them.
            choice: (g,m) int64, which of their masks.
            labels: Of the g·m chosen masks, prompt by prompt.
        """
        mask = np.flatnonzero(labels.recorded)
        row, chosen = mask // choice.shape[1], choice.reshape(-1)[mask]
        return cls(
            points=prompts.points[row],
            tokens=prompts.tokens[row],
            iou=prompts.iou[row, chosen],
            choice=chosen,
            label=labels.label[mask],
            confidence=labels.confidence[mask],
            passed=labels.passed[mask],
            order=labels.order[mask],
            probabilities=labels.probabilities[mask],
            state={name: value[row] for name, value in prompts.state.items()},
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """All chunks of a photo in one table."""
        columns = {
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(cls)
            if column.name != "state"
        }
        state = {name: np.concatenate([part.state[name] for part in parts]) for name in parts[0].state}
        return cls(**columns, state=state)

    def take(self, rows: Int | Bool) -> Self:
        """The given rows, in the order of their indices, without state: masks are made by then."""
        columns = {column.name: getattr(self, column.name)[rows] for column in fields(self) if column.name != "state"}
        return type(self)(**columns, state={})

    def without_state(self) -> Self:
        """All rows without state."""
        return replace(self, state={})

    @property
    def score(self) -> Float:
        """(n,) float32: confidence × predicted IoU."""
        return score(self.confidence, self.iou)
