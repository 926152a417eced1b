"""What the report says about a run's records: counted in one pass, in memory that does not grow with the run."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .exporters import ClassEntry, Records, kept_annotations

BINS = 20
"""Bars of a histogram over [0,1]."""
DOUBTFUL_SHOWN, EMPTY_SHOWN, NAMES_SHOWN = 60, 12, 200
"""Photos with labels, photos without, and names of those without that are kept for the page."""


@dataclass(slots=True)
class ClassTally:
    """Counts of one class: masks by bin of confidence, above and below the threshold, and photos that hold it."""

    labelled: list[int] = field(default_factory=lambda: [0] * BINS)
    below: list[int] = field(default_factory=lambda: [0] * BINS)
    photos: int = 0

    @property
    def masks(self) -> int:
        """Masks that reach the threshold."""
        return sum(self.labelled)


@dataclass(slots=True, kw_only=True)
class Sight:
    """A photo for the contact sheet: its record with the annotations to show, and how sure the model was.

    Attributes:
        record: ``image``, and ``annotations`` cut to those at or above their threshold, best score first.
        certainty: Least lead of a label over its runner-up; without labels, the confidence of the best guess.
        doubt: The annotation behind ``certainty``; None when nothing was recorded.
        thumbnail: JPEG bytes in base64; None when the photo could not be read again.
    """

    record: dict[str, Any]
    certainty: float
    doubt: Mapping[str, Any] | None
    thumbnail: str | None = None


@dataclass(slots=True, kw_only=True)
class Findings:
    """All that the page says about the records; its size does not grow with their number.

    Attributes:
        classes: Tally by class id.
        scores: Labelled masks by bin of score.
        photos: Records.
        empty: Records without a label.
        empty_names: The first keys of those.
        doubtful: Photos with labels, least certain first.
        closest: Photos without labels, best guess first.
    """

    classes: dict[int, ClassTally]
    scores: list[int] = field(default_factory=lambda: [0] * BINS)
    photos: int = 0
    empty: int = 0
    empty_names: list[str] = field(default_factory=list)
    doubtful: list[Sight] = field(default_factory=list)
    closest: list[Sight] = field(default_factory=list)

    @property
    def masks(self) -> int:
        """Masks that reach their class's threshold."""
        return sum(tally.masks for tally in self.classes.values())


def collect(records: Records, classes: Sequence[ClassEntry]) -> Findings:
    """Counts a run's records in one pass and picks the photos for the contact sheet."""
    findings = Findings(classes={entry.id: ClassTally() for entry in classes})
    doubtful: list[tuple[float, int, Sight]] = []
    closest: list[tuple[float, int, Sight]] = []
    for record in records():
        labelled = kept_annotations(record, classes)
        _count(findings, record["annotations"], labelled)
        shown = {"image": record["image"], "annotations": labelled}
        findings.photos += 1
        # heaps drop their smallest entry: the most certain photo here, the faintest guess there; ties, the later one
        if labelled:
            doubt = min(labelled, key=_lead)
            sight = Sight(record=shown, certainty=_lead(doubt), doubt=doubt)
            _push(doubtful, (-sight.certainty, -findings.photos, sight), DOUBTFUL_SHOWN)
        else:
            guess = max(record["annotations"], key=lambda a: float(a["confidence"]), default=None)
            sight = Sight(record=shown, certainty=guess["confidence"] if guess else 0.0, doubt=guess)
            _push(closest, (sight.certainty, -findings.photos, sight), EMPTY_SHOWN)
            findings.empty += 1
            if len(findings.empty_names) < NAMES_SHOWN:
                findings.empty_names.append(record["image"]["file_name"])
    findings.doubtful = [sight for *_, sight in sorted(doubtful, key=lambda entry: entry[:2], reverse=True)]
    findings.closest = [sight for *_, sight in sorted(closest, key=lambda entry: entry[:2], reverse=True)]
    return findings


def _count(findings: Findings, recorded: Sequence[Mapping[str, Any]], labelled: Sequence[Mapping[str, Any]]) -> None:
    ids = {annotation["id"] for annotation in labelled}
    for annotation in recorded:
        tally = findings.classes[annotation["category_id"]]
        bins = tally.labelled if annotation["id"] in ids else tally.below
        bins[_bin(annotation["confidence"])] += 1
    for annotation in labelled:
        findings.scores[_bin(annotation["score"])] += 1
    for category in {annotation["category_id"] for annotation in labelled}:
        findings.classes[category].photos += 1


def _bin(fraction: float) -> int:
    return min(max(int(fraction * BINS), 0), BINS - 1)


def _lead(annotation: Mapping[str, Any]) -> float:
    """How far a label's probability is ahead of the next one's."""
    runner_up = annotation["runner_up"]
    return float(annotation["confidence"]) - (float(runner_up[0][1]) if runner_up else 0.0)


def _push(heap: list[tuple[float, int, Sight]], entry: tuple[float, int, Sight], most: int) -> None:
    """The second number of an entry differs from all others', so that photos themselves are never compared."""
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)
