"""A run as an evaluation sees it: labels and thresholds, what the labels stand for, and the record of each photo."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..annotate.exporters import ClassEntry, class_entries
from ..annotate.record import Record, iter_records
from ..errors import InputError
from ..shapes import Int, Pixels
from .miou import confusion_matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRun:
    """A run folder's labels.

    Attributes:
        folder: The run folder.
        classes: The labels, with the thresholds at which they are evaluated.
        members: By ``category_id``, the bundle's classes that a label stands for, in lower case.
    """

    folder: Path
    classes: tuple[ClassEntry, ...]
    members: Mapping[int, tuple[str, ...]]

    def values(self, meanings: Mapping[str, int]) -> tuple[dict[int, int], tuple[str, ...]]:
        """Pixel value by ``category_id``: the one that all members of a label mean, whatever the label's name.

        Args:
            meanings: Pixel value, from 1, by lower-case class name.

        Returns:
            The values, and the names of labels without one: a member is unknown, or members mean different things.
        """
        values, strange = {}, []
        for entry in self.classes:
            meant = {meanings.get(name, 0) for name in self.members[entry.id]}
            if len(meant) == 1 and meant != {0}:
                values[entry.id] = meant.pop()
            else:
                strange.append(entry.name)
        return values, tuple(strange)


def read_run(folder: Path, conf: float | Mapping[str, float] | None) -> LabelledRun:
    """The labels of a run folder, from its ``run.json``.

    Args:
        folder: Folder that ``gransam annotate`` filled.
        conf: One confidence threshold, or thresholds by label, over those of the run.

    Raises:
        InputError: No run, an unknown label in ``conf``, or a threshold below what the run recorded.
    """
    described = _read_description(folder)
    classes = _with_conf(class_entries(described["classes"]), conf, float(described["settings"]["record_floor"]))
    members = {int(row["id"]): tuple(str(name).lower() for name in row["members"]) for row in described["classes"]}
    return LabelledRun(folder=folder, classes=classes, members=members)


def matched_records(run: Path, photos: Sequence[str], gt: Path) -> Iterator[tuple[str | None, Record]]:
    """The records of a run, each with its photo; None where the ground truth does not list it.

    Args:
        run: The run folder.
        photos: The ground truth's photos, as file names without extension.
        gt: Where they are listed; for error messages.

    Raises:
        InputError: Two records of one photo, or, after the last one, a photo without a record.
    """
    missing, wanted = dict.fromkeys(photos), set(photos)
    for record in iter_records(run):
        photo = PurePosixPath(record["image"]["file_name"]).stem
        if photo not in wanted:
            yield None, record
            continue
        if photo not in missing:
            raise InputError(f"run {run}", expected=f"one record for {photo}", found="two or more photos of that name")
        del missing[photo]
        yield photo, record
    if missing:
        raise InputError(
            f"run {run}",
            expected=f"a record for each of the {len(wanted)} photos of {gt}",
            found=f"{len(missing)} without: {few(list(missing))}",
            do="annotate these photos into the same run; failures.jsonl names those that could not be read",
        )


def compare_maps(truth: Pixels, predicted: Pixels, classes: int, *, record: Record, source: str) -> Int:
    """The confusion matrix of one photo; ``source`` names the ground truth in an error message.

    Raises:
        InputError: The two maps differ in size.
    """
    if truth.shape != predicted.shape:
        raise InputError(
            f"sizes of {record['image']['file_name']} and {source}",
            expected=f"one size for both; the ground truth has {truth.shape[1]} x {truth.shape[0]}",
            found=f"the record has {predicted.shape[1]} x {predicted.shape[0]}",
            do="compare ground truth with the photos it was drawn on; records are in the upright frame",
        )
    return confusion_matrix(truth, predicted, classes)


def few(names: Sequence[str]) -> str:
    """The first five of a list, for an error message."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _read_description(run: Path) -> dict[str, Any]:
    """The run's own account of its classes and settings."""
    try:
        described = json.loads((run / "run.json").read_bytes())
        if all(isinstance(row["members"], list) for row in described["classes"]):
            float(described["settings"]["record_floor"])
            return dict(described)
        found = "classes without members"
    except (OSError, ValueError, TypeError, KeyError) as error:
        found = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    raise InputError(
        f"run {run}",
        expected="a folder with the run.json of a run",
        found=found,
        do="make one with gransam annotate PHOTOS -o RUN",
    )


def _with_conf(
    classes: Sequence[ClassEntry], conf: float | Mapping[str, float] | None, floor: float
) -> tuple[ClassEntry, ...]:
    """The classes with other thresholds; none may ask for masks that the run did not record."""
    if conf is None:
        return tuple(classes)
    wanted = conf if isinstance(conf, Mapping) else {entry.name: conf for entry in classes}
    unknown = sorted(set(wanted) - {entry.name for entry in classes})
    if unknown:
        raise InputError(
            "conf", expected=f"labels of the run: {', '.join(c.name for c in classes)}", found=", ".join(unknown)
        )
    changed = []
    for entry in classes:
        threshold, least = float(wanted.get(entry.name, entry.threshold)), min(entry.threshold, floor)
        if threshold < least:
            raise InputError(
                f"conf of {entry.name}",
                expected=f"{least:g} or more: masks below it were not recorded",
                found=f"{threshold:g}",
                do="annotate into a new folder with that --conf",
            )
        changed.append(replace(entry, threshold=threshold))
    return tuple(changed)
