"""What ``gransam annotate`` says at the end: for people on stderr, for programs as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..annotate.plan import RunPlan
    from ..annotate.tally import RunReport

MIB = 1024 * 1024


def report_lines(report: RunReport, out: str) -> list[str]:
    """A run's end: counts, why photos failed, speed, and where the results are.

    Args:
        report: What the run did.
        out: The run folder as the user wrote it.
    """
    lines = [f"{report.photos} photos: {_counts(report)}"]
    reasons = failures_by_reason(report)
    if reasons:
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        lines.append(f"failed: {listed}; see {Path(out, 'failures.jsonl')}")
    if report.photos_per_second is not None:
        lines.append(f"{report.photos_per_second:.1f} photos a second in {report.seconds:.1f} s; seconds by stage:")
        lines.extend(_stages(report.timings))
    lines.append(f"peak memory {report.peak_memory_bytes / MIB:.0f} MiB")
    lines.append("results:")
    lines.extend(f"  {Path(out, path)}" for path in results_of(report))
    return lines


def report_to_json(report: RunReport) -> dict[str, object]:
    """The run report with the reasons of its failures and the paths of its results."""
    return {
        **asdict(report),
        "run": str(report.run),
        "photos": report.photos,
        "failures": failures_by_reason(report),
        "results": results_of(report),
        "exit_code": report.exit_code,
    }


def plan_lines(plan: RunPlan) -> list[str]:
    """What a run would do."""
    work = plan.photos - plan.done - plan.unreadable
    bundle = plan.run["bundle"]
    return [
        f"{plan.photos} photos: {work} to annotate, {plan.done} recorded before, {plan.unreadable} unreadable",
        f"{plan.bytes / MIB:.1f} MiB to read; bundle {bundle['name']}, sha256 {bundle['digest']}",
        f"classes: {', '.join(label['name'] for label in plan.run['classes'])}",
        "nothing was written",
    ]


def failures_by_reason(report: RunReport) -> dict[str, int]:
    """Failed photos by reason, the most frequent first."""
    from ..annotate.failures import iter_failures

    return dict(Counter(failure.reason for failure in iter_failures(report.run)).most_common())


def results_of(report: RunReport) -> list[str]:
    """What there is to look at in the run folder, relative to it."""
    from ..annotate.exporters import coco, overlays, voc
    from ..annotate.record import FOLDER as RECORDS
    from ..annotate.report import PATH as REPORT

    places = (REPORT, f"{overlays.FOLDER}/", coco.PATH, f"{voc.FOLDER}/", f"{RECORDS}/")
    return [place for place in places if (report.run / place).exists()]


def _counts(report: RunReport) -> str:
    parts = [f"{report.new} annotated"] if report.new else []
    for count, what in (
        (report.redone, "annotated again"),
        (report.done, "recorded before"),
        (report.failed, "failed"),
    ):
        if count:
            parts.append(f"{count} {what}")
    masks = f"; {report.masks} masks recorded" if report.new + report.redone else ""
    return ", ".join(parts) + masks


def _stages(timings: Mapping[str, float]) -> list[str]:
    """Seconds by stage, the slowest first, in lines that fit a narrow terminal; no stage is split."""
    slowest = sorted(timings.items(), key=lambda item: -item[1])
    text = ", ".join(f"{stage} {spent:.2f}".replace(" ", "\0") for stage, spent in slowest)
    lines = textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  ", break_long_words=False)
    return [line.replace("\0", " ") for line in lines]
