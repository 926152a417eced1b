"""What a run counts and clocks, and the report that comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from ..machine import peak_memory
from .progress import PhotoStatus

FINISHED_WITH_FAILURES = 3
"""Exit code of a run that went through although some photos failed."""


@dataclass(kw_only=True)
class Tally:
    """Counts that grow during a run.

    Attributes:
        new: Photos recorded for the first time.
        redone: Photos recorded again: they changed, or their record was damaged.
        done: Photos that an earlier run recorded.
        failed: Photos without a record.
        masks: Masks recorded by this run, those under their class's threshold included.
        seconds: Time by stage. Reading, the graphs and the rest run beside each other: it may be more than ``wall``.
        wall: Seconds that the loop took.
        reduced_chunks: Prompts a run took at most in the end, by graph, where the device had no memory for the chunk.
    """

    new: int = 0
    redone: int = 0
    done: int = 0
    failed: int = 0
    masks: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    wall: float = 0.0
    reduced_chunks: Mapping[str, int] = field(default_factory=dict)

    def count(self, status: PhotoStatus) -> None:
        """One photo is through."""
        setattr(self, status, getattr(self, status) + 1)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds the stages of one photo."""
        for stage, spent in seconds.items():
            self.seconds[stage] += spent

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - begun

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Takes the time of the loop."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.wall += perf_counter() - begun

    def to_json(self) -> dict[str, object]:
        """The part of ``run.json`` that tells what happened."""
        return {
            "counts": {"photos": self.new + self.redone + self.done + self.failed, **self._counts()},
            **self._measured(),
            **({"reduced_chunks": dict(self.reduced_chunks)} if self.reduced_chunks else {}),
        }

    def report(self, run: Path) -> RunReport:
        """The same for the caller of a finished run in the folder ``run``."""
        return RunReport(run=run, **self._counts(), **self._measured())

    def _counts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("new", "redone", "done", "failed", "masks")}

    def _measured(self) -> dict[str, Any]:
        annotated = self.new + self.redone
        return {
            "timings": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
            "seconds": round(self.wall, 3),
            "photos_per_second": round(annotated / self.wall, 3) if annotated and self.wall else None,
            "peak_memory_bytes": peak_memory(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a finished run did.

    Attributes:
        run: The run folder.
        new: Photos recorded for the first time.
        redone: Photos recorded again: they changed, or their record was damaged.
        done: Photos that an earlier run recorded.
        failed: Photos without a record; ``failures.jsonl`` says why.
        masks: Masks recorded by this run, those under their class's threshold included.
        timings: Seconds by stage; reading, the graphs and the rest run beside each other.
        seconds: Seconds that the loop took.
        photos_per_second: Photos annotated by this run over ``seconds``; None if there were none.
        peak_memory_bytes: Largest resident memory of the process so far.
    """

    run: Path
    new: int
    redone: int
    done: int
    failed: int
    masks: int
    timings: Mapping[str, float]
    seconds: float
    photos_per_second: float | None
    peak_memory_bytes: int

    @property
    def photos(self) -> int:
        """All photos that the run went through."""
        return self.new + self.redone + self.done + self.failed

    @property
    def exit_code(self) -> int:
        """What the command line returns: 0, or 3 if photos failed."""
        return FINISHED_WITH_FAILURES if self.failed else 0
