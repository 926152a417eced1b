"""What one step of a photo hands to the next: prepare, infer, finish. Each may run in a thread of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..geometry import Frame
from ..shapes import AnyArray, Float, Int
from ..types import Settings
from .found import Found
from .select import stability, surviving, trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A photo as the model is shown it; its own pixels are needed no more.

    Attributes:
        frame: Where it lies in the model square.
        feeds: The first graph's inputs.
        seconds: Time by stage so far.
    """

    frame: Frame
    feeds: Mapping[str, AnyArray]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """What the graphs said of a photo; they are needed no more.

    Attributes:
        frame: Where the photo lies in the model square.
        found: n masks that are confident enough to be recorded.
        logits: (n,l,l) float32, theirs.
        seconds: Time by stage so far.
    """

    frame: Frame
    found: Found
    logits: Float
    seconds: Mapping[str, float]

    def surviving(self, settings: Settings) -> Int:
        """(m,) int64 indices of the masks that can be trusted and that suppression keeps, best score first."""
        rows, cols = self.frame.valid(self.logits.shape[-1])
        logits = self.logits[:, :rows, :cols]
        good = np.flatnonzero(trusted(self.found.iou, stability(logits), settings))
        return good[self.suppress(good, settings)]

    def suppress(self, among: Int, settings: Settings) -> Int:
        """(m,) int64 places in ``among`` (k,) int64, the indices of the masks that are compared."""
        rows, cols = self.frame.valid(self.logits.shape[-1])
        found = self.found.take(among)
        return surviving(self.logits[among, :rows, :cols] > 0, found.label, found.score, found.passed, settings)


class StageClock:
    """Seconds by stage.

    Args:
        seconds: Those that count already.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = defaultdict(float, seconds or {})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
