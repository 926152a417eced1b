"""How well each class was learned, from pictures that the rehearsal did not see; and what to do about the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .bags import Bags
from .calibrate import LEAST_KEPT, LEAST_PICTURES, Calibration, instance_logits
from .config import HeadConfig
from .instances import select_instances
from .losses import bag_logits

ALIKE = 0.15
"""Share of a class's held-out pictures that are taken for one other class, from which the two count as alike."""
CONTEXT = 0.3
"""Share of the ``_background`` pictures with something kept of a class, from which it seems learned by its context."""
SELDOM = 0.5
"""Share of its held-out pictures in which a class is found, below which it counts as hardly learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is known of one class.

    Attributes:
        name: The class.
        pictures: Example pictures.
        held: Those that the rehearsal did not see; 0 without one.
        found: Held-out pictures with an instance of the class at its threshold.
        mistaken: Held-out pictures whose bag's answer is the class ``mistaken_for``, the most frequent wrong one.
        mistaken_for: Its name; none where no answer is wrong.
        background: ``_background`` pictures held out.
        on_background: Those of them with an instance of the class at its threshold.
        threshold: Confidence from which its masks are kept.
        precision: Source precision at that threshold; none where nothing is known.
        kept: Instances that it is of.
    """

    name: str
    pictures: int
    held: int
    found: int
    mistaken: int
    mistaken_for: str | None
    background: int
    on_background: int
    threshold: float
    precision: float | None
    kept: int

    @property
    def remark(self) -> str:
        """What is wrong, and what helps; empty where nothing is."""
        if self.held < LEAST_PICTURES:
            return f"too few pictures to judge: {LEAST_PICTURES} held out would need {LEAST_PICTURES * 5} in all"
        if self.mistaken_for and self.mistaken >= max(2, ALIKE * self.held):
            return f"{self.mistaken} of {self.held} taken for {self.mistaken_for}: add pictures of both, or merge them"
        if self.background >= LEAST_PICTURES and self.on_background >= max(2, CONTEXT * self.background):
            return (
                f"also found on {self.on_background} of {self.background} _background pictures: delete those that "
                "show it, or add more like them"
            )
        if self.kept < LEAST_KEPT or self.found < SELDOM * self.held:
            return "seldom found: more pictures, larger in the frame"
        return ""


def draw_lessons(
    bags: Bags, held: Bags, config: HeadConfig, head: nn.Module, calibration: Calibration
) -> tuple[Lesson, ...]:
    """Judges each class on held-out pictures.

    Args:
        bags: All pictures, to count.
        held: Those that ``head`` was not fitted on.
        config: Its own.
        head: Without the temperature.
        calibration: Of it.
    """
    logits = instance_logits(head, select_instances(held, config.inputs))
    answers = bag_logits(logits, config.divisor)[:, : len(bags.classes)].argmax(dim=1).numpy()
    confidence, winner = ((logits / calibration.facts.temperature).softmax(dim=2)).max(dim=2)
    background = held.labels < 0
    lessons = []
    for index, (name, threshold, evidence) in enumerate(
        zip(bags.classes, calibration.thresholds, calibration.evidence, strict=True)
    ):
        own = held.labels == index
        kept = ((winner == index) & (confidence >= torch.tensor(threshold))).any(dim=1).numpy()
        wrong = np.bincount(answers[own & (answers != index)], minlength=len(bags.classes))
        lessons.append(
            Lesson(
                name=name,
                pictures=int((bags.labels == index).sum()),
                held=int(own.sum()),
                found=int((own & kept).sum()),
                mistaken=int(wrong.max()),
                mistaken_for=bags.classes[int(wrong.argmax())] if wrong.any() else None,
                background=int(background.sum()),
                on_background=int((background & kept).sum()),
                threshold=threshold,
                precision=evidence.precision,
                kept=evidence.kept,
            )
        )
    return tuple(lessons)


def unjudged_lessons(bags: Bags, threshold: float) -> tuple[Lesson, ...]:
    """What is known where there were too few pictures to hold some out: how many there are."""
    nothing = {"held": 0, "found": 0, "mistaken": 0, "background": 0, "on_background": 0, "kept": 0}
    return tuple(
        Lesson(
            name=name,
            pictures=int((bags.labels == index).sum()),
            mistaken_for=None,
            threshold=threshold,
            precision=None,
            **nothing,
        )
        for index, name in enumerate(bags.classes)
    )


def lesson_rows(lessons: Sequence[Lesson]) -> list[tuple[str, ...]]:
    """A table, its head first: for the terminal and for the model card."""
    rows: list[tuple[str, ...]] = [("class", "pictures", "held out", "found", "precision", "threshold", "remark")]
    for lesson in lessons:
        precision = "" if lesson.precision is None else f"{lesson.precision:.0%} of {lesson.kept}"
        found = f"{lesson.found}" if lesson.held else ""
        counts = (str(lesson.pictures), str(lesson.held), found)
        rows.append((lesson.name, *counts, precision, f"{lesson.threshold:.2f}", lesson.remark))
    return rows
