"""What a timed run says: a table for a terminal, and JSON values with the machine in them."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from ..machine import describe_machine, peak_memory
from .timing import OTHER, PERCENTILES, STAGES, WHOLE, TimedRun, Timing

MIB = 1 << 20
_BAR = 20
"""Characters of a bar for the whole photo."""
_FEW = 100
"""Samples below which the 99th percentile is little more than the slowest one."""


def timing_lines(run: TimedRun) -> list[str]:
    """The run as text, one table a segmenter."""
    lines = [_conditions(run), f"on {_machine()}"]
    for timing in run.timings:
        lines += ["", *_head(timing), "", *_table(timing), "", *_foot(timing, run)]
    lines += ["", f"peak memory of this process {peak_memory() / MIB:.0f} MiB"]
    if run.failed:
        lines.append(f"{len(run.failed)} photos cannot be read and were left out: {', '.join(run.failed[:3])}")
    return lines


def timing_json(run: TimedRun) -> dict[str, Any]:
    """The run as JSON values, times in milliseconds."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "platform": describe_machine(),
        "photos": run.photos,
        "megapixels": {"median": _megapixels(run), "least": min(run.pixels) / 1e6, "largest": max(run.pixels) / 1e6},
        "rounds": run.rounds,
        "warm_up": run.warm_up,
        "failed": list(run.failed),
        "peak_memory_bytes": peak_memory(),
        "segmenters": [_segmenter(timing, run) for timing in run.timings],
    }


def _segmenter(timing: Timing, run: TimedRun) -> dict[str, Any]:
    bundle = timing.bundle
    compared = {} if timing.agreement is None else {"agreement": timing.agreement.to_json()}
    return {
        "name": timing.name,
        "bundle": {"name": bundle.name, "sha256": bundle.digest, "architecture": bundle.architecture},
        "precision": bundle.precision,
        "provider": timing.provider,
        "threads": timing.threads,
        "prompts": timing.prompts,
        "chunk": timing.chunk,
        "load_ms": _ms(timing.load),
        "photos_per_second": round(timing.photos_per_second, 4),
        "masks_per_photo": round(timing.masks, 3),
        "cold_ms": {stage: _ms(timing.first.get(stage, 0.0)) for stage in _rows(timing)},
        "warm_ms": {
            stage: {f"p{rank}": _ms(timing.percentile(stage, rank)) for rank in PERCENTILES}
            | {"share": round(timing.share(stage), 5)}
            for stage in _rows(timing)
        },
        "samples": len(timing.visits),
        "speed_up": round(timing.speed_up(run.timings[0]), 4),
        **compared,
    }


def _conditions(run: TimedRun) -> str:
    return (
        f"{run.photos} photos of {_megapixels(run):.2f} megapixels (median), {run.rounds} rounds after {run.warm_up} "
        "photos of warm-up, which do not count; one after the other, nothing read ahead"
    )


def _machine() -> str:
    facts = describe_machine()
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}"


def _head(timing: Timing) -> list[str]:
    bundle = timing.bundle
    threads = {0: "threads of the engine's own", 1: "1 thread"}.get(timing.threads, f"{timing.threads} threads")
    return [
        timing.name,
        f"  {bundle.architecture}, {bundle.precision}, {timing.provider}, {threads}, "
        f"{timing.prompts} prompts in chunks of {timing.chunk}",
    ]


def _table(timing: Timing) -> list[str]:
    ranks = "".join(f"{f'p{rank}':>9}" for rank in PERCENTILES)
    lines = [f"  {'ms a photo':<14}{ranks}{'cold':>9}{'share':>8}"]
    for stage in _rows(timing):
        if stage == WHOLE:
            lines.append(f"  {'-' * (14 + 9 * len(PERCENTILES) + 9 + 8)}")
        times = "".join(_show(timing.percentile(stage, rank)) for rank in PERCENTILES)
        share = timing.share(stage)
        bar = "" if stage == WHOLE else "#" * round(_BAR * share)
        lines.append(f"  {stage:<14}{times}{_show(timing.first.get(stage, 0.0))}{share:>8.1%}  {bar}".rstrip())
    return lines


def _foot(timing: Timing, run: TimedRun) -> list[str]:
    lines = [
        f"  {timing.photos_per_second:.2f} photos a second, {timing.masks:.1f} masks a photo; "
        f"loaded in {timing.load:.2f} s; cold is the first photo after that"
    ]
    if len(timing.visits) < _FEW:
        lines.append(f"  of {len(timing.visits)} samples: p95 and p99 say little more than the slowest one")
    if timing.agreement is not None:
        lines.append(f"  {timing.speed_up(run.timings[0]):.2f} times as fast as {run.timings[0].name}")
        lines.append(f"  {timing.agreement}")
    return lines


def _rows(timing: Timing) -> tuple[str, ...]:
    """The stages in their order, then those that a segmenter has beyond them, the rest and the sum."""
    own = {stage for visit in timing.visits for stage in visit} - {*STAGES, OTHER, WHOLE}
    return (*STAGES, *sorted(own), OTHER, WHOLE)


def _megapixels(run: TimedRun) -> float:
    return float(np.median(run.pixels)) / 1e6


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 4)


def _show(seconds: float) -> str:
    """Milliseconds in nine characters, three digits that mean something."""
    value = 1000 * seconds
    return f"{value:>9.2f}" if value < 10 else f"{value:>9.1f}" if value < 1000 else f"{value:>9.0f}"
