"""Whether two segmenters kept the same masks with the same names: what stands beside every ratio of speeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.result import Result
from ..shapes import Float
from ..types import Rle
from .parity_labels import match


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Kept masks of two segmenters, paired one to one at the photo's size, the largest IoU first, from IoU 0.5.

    Attributes:
        photos: Photos compared.
        kept: Masks that the first one kept.
        found: Masks that the second one kept.
        matched: Pairs.
        iou_mean: Mean IoU of the pairs; None without any, like the next three.
        iou_p1: First percentile of it.
        iou_min: Least of it.
        same_label: Share of the pairs with one class name, in [0,1].
    """

    photos: int
    kept: int
    found: int
    matched: int
    iou_mean: float | None
    iou_p1: float | None
    iou_min: float | None
    same_label: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        if not self.matched:
            return f"no mask in common: {self.kept} and {self.found} kept"
        return (
            f"{self.matched} masks matched one to one of {self.kept} and {self.found} kept, IoU mean "
            f"{self.iou_mean:.5f}, 1st percentile {self.iou_p1:.4f}, min {self.iou_min:.4f}, "
            f"same label {self.same_label:.2%}"
        )


class AgreementTally:
    """Adds photos up."""

    def __init__(self) -> None:
        self._photos = self._kept = self._found = self._same = 0
        self._iou: list[Float] = []

    def add(self, found: Result, expected: Result) -> None:
        """One photo's masks and those of the first segmenter."""
        self.add_masks(found.masks, found.names, expected.masks, expected.names)

    def add_masks(
        self, found: Sequence[Rle], names: Sequence[str], expected: Sequence[Rle], expected_names: Sequence[str]
    ) -> None:
        """The same of run-length codes of one size and their class names."""
        iou, pairs = match(found, expected)
        self._photos += 1
        self._kept += len(expected)
        self._found += len(found)
        self._same += sum(names[i] == expected_names[j] for i, j in pairs)
        self._iou.append(iou)

    def sum(self) -> Agreement:
        """All photos together."""
        every = np.concatenate(self._iou) if self._iou else np.zeros(0, dtype=np.float32)
        some = len(every) > 0
        return Agreement(
            photos=self._photos,
            kept=self._kept,
            found=self._found,
            matched=len(every),
            iou_mean=float(every.mean(dtype=np.float64)) if some else None,
            iou_p1=float(np.percentile(every, 1)) if some else None,
            iou_min=float(every.min()) if some else None,
            same_label=self._same / len(every) if some else None,
        )
