"""Where a training of the segmenter is, on disk, so that a killed run goes on to the same bytes.

No random numbers are in it: after initialisation they are drawn for batches only, anew for each by its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..state_file import StateFolder, split_parts

SCHEMA = 1
STAGE = "segmenter"
PARTS = ("model", "average", "optimizer")


@dataclass(kw_only=True)
class SegmenterState:
    """Where a training is between two steps.

    Attributes:
        phase: Name of the phase.
        step: Steps of it done.
        steps: Steps of each phase, once they are known.
        averaged: Steps in the running mean.
        seconds: Spent so far.
        history: What was told.
        model: Weights.
        average: Their running mean; empty in phases without one.
        optimizer: AdamW's tensors, ``INDEX.NAME`` of a parameter's.
    """

    phase: str = ""
    step: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    averaged: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    model: Mapping[str, Tensor] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)


FACTS = ("phase", "step", "steps", "averaged", "seconds", "history")


class SegmenterStore(StateFolder):
    """The folder of one segmenter's training; see ``fit.segmenter_identity`` for its identity."""

    kept = "what was saved before is kept"

    def save(self, state: SegmenterState) -> None:
        """Replaces the file.

        Raises:
            OutputError: The disk refused; the file before is still there.
        """
        tensors = {f"{part}.{name}": value for part in PARTS for name, value in getattr(state, part).items()}
        self.put(STAGE, SCHEMA, {name: getattr(state, name) for name in FACTS}, tensors)

    def load(self) -> SegmenterState | None:
        """The last state, or none where nothing was saved.

        Raises:
            OutputError: The file is damaged, or belongs to another setting or other pictures.
        """
        taken = self.take(STAGE, SCHEMA)
        if taken is None:
            return None
        facts, tensors = taken
        known: dict[str, Any] = {name: facts[name] for name in FACTS}
        return SegmenterState(**known | split_parts(tensors, PARTS))
