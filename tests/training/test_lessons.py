"""What is said of each class: cases made for it, counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from bags_by_hand import one_head
from torch import nn

from gransam_sdk.manifest import HeadCalibration
from gransam_sdk.training.bags import Bags, SceneBags
from gransam_sdk.training.calibrate import Calibration
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.folds import fold_numbers
from gransam_sdk.training.lessons import Lesson, draw_lessons, lesson_rows, unjudged_lessons
from gransam_sdk.types import Evidence

NAMES = ("fox", "badger", "owl")
GOOD = Lesson(
    name="fox", pictures=50, held=10, found=9, mistaken=1, mistaken_for="owl", background=6, on_background=1,
    threshold=0.4, precision=0.9, kept=80,
)  # fmt: skip


class Copy(nn.Module):
    """A head whose logits are the instance."""

    def forward(self, instances: torch.Tensor) -> torch.Tensor:
        return instances


def held(pictures: Sequence[tuple[int, dict[int, float]]], columns: int = 3) -> Bags:
    """Pictures of nine instances: label, and by class the probability of one instance; the others are unsure."""
    logits = np.zeros((len(pictures), 9, columns))
    for bag, (_, sure) in zip(logits, pictures, strict=True):
        for place, (column, p) in enumerate(sure.items()):
            bag[place, column] = np.log(p * (columns - 1) / (1 - p))
    labels = np.array([label for label, _ in pictures])
    return Bags(
        classes=NAMES,
        instances=logits.astype(np.float16),
        labels=labels,
        rim=np.zeros((len(labels), 9), dtype=np.float16),
        folds=fold_numbers(labels),
        scenes=SceneBags.none(9, columns),
        token_width=columns,
    )


def calibration(thresholds: Sequence[float] = (0.5, 0.5, 0.5), temperature: float = 1.0, kept: int = 50) -> Calibration:
    facts = HeadCalibration(temperature=temperature, target=0.8, pictures=0, background_pictures=0)
    evidence = Evidence(precision=0.85, kept=kept, pictures=0, basis="target")
    return Calibration(facts=facts, thresholds=tuple(thresholds), evidence=(evidence,) * len(thresholds))


def draw(bags: Bags, found: Calibration, config: HeadConfig | None = None) -> tuple[Lesson, ...]:
    twice = replace(
        bags,
        labels=np.tile(bags.labels, 2),
        instances=np.tile(bags.instances, (2, 1, 1)),
        rim=np.tile(bags.rim, (2, 1)),
    )
    return draw_lessons(twice, bags, config or one_head(), Copy(), found)


PICTURES: list[tuple[int, dict[int, float]]] = [
    *[(0, {0: 0.9})] * 5,  # foxes, found
    (0, {0: 0.45, 2: 0.4}),  # below the threshold, and still the bag's answer
    (0, {0: 0.6, 1: 0.8}),  # found, and taken for a badger
    (0, {1: 0.9}),
    (0, {2: 0.9}),
    *[(1, {1: 0.7})] * 4,
    *[(2, {2: 0.95})] * 4,
    (-1, {}),
    (-1, {0: 0.55, 2: 0.52}),
    (-1, {2: 0.48}),
]


def test_counts_by_hand() -> None:
    fox, badger, owl = draw(held(PICTURES), calibration())
    assert (fox.name, fox.pictures, fox.held, fox.found) == ("fox", 18, 9, 6)
    assert (fox.mistaken, fox.mistaken_for) == (2, "badger"), "more often than for an owl"
    assert (fox.background, fox.on_background) == (3, 1)
    assert (badger.held, badger.found, badger.mistaken, badger.mistaken_for, badger.on_background) == (4, 4, 0, None, 0)
    assert (owl.pictures, owl.held, owl.found, owl.on_background) == (8, 4, 4, 1)
    assert (fox.threshold, fox.precision, fox.kept) == (0.5, 0.85, 50)


def test_thresholds_are_of_the_tempered_probabilities() -> None:
    high = draw(held(PICTURES), calibration((0.5, 0.75, 0.5)))
    assert [lesson.found for lesson in high] == [6, 0, 4], "a class's own"
    cool = draw(held(PICTURES), calibration(temperature=2.0))  # 0.9 to 0.68, 0.7 to 0.52, 0.6 to 0.46, 0.55 to 0.44
    assert [lesson.found for lesson in cool] == [5, 4, 4]
    assert [lesson.on_background for lesson in cool] == [0, 0, 0]
    assert [lesson.mistaken for lesson in cool] == [2, 0, 0], "the answer is the same"


def test_what_explicit_background_wins_is_not_found() -> None:
    """Its column is no answer either."""
    bags = held([*[(0, {3: 0.9, 0: 0.6})] * 4, *[(0, {3: 0.9})] * 2, *[(-1, {3: 0.9})] * 2], columns=4)
    fox = draw(bags, calibration(), one_head(background="explicit"))[0]
    assert (fox.held, fox.found, fox.mistaken, fox.on_background) == (6, 4, 0, 0)


def test_a_good_class_has_no_remark() -> None:
    assert GOOD.remark == ""
    assert replace(GOOD, held=4, found=2, mistaken=1, background=0, on_background=0, kept=20).remark == ""


def test_too_few_pictures_come_first() -> None:
    said = replace(GOOD, held=3, found=0, mistaken=3, on_background=6, kept=0).remark
    assert said == "too few pictures to judge: 4 held out would need 20 in all"


def test_classes_that_are_alike() -> None:
    assert replace(GOOD, mistaken=2).remark == "2 of 10 taken for owl: add pictures of both, or merge them"
    assert replace(GOOD, held=20, found=19, mistaken=3).remark.startswith("3 of 20 taken for owl")
    assert replace(GOOD, held=21, found=19, mistaken=3).remark == "", "less than 15 %"
    assert replace(GOOD, held=4, found=4, mistaken=1).remark == "", "one may be chance"


def test_a_class_found_on_background() -> None:
    said = replace(GOOD, on_background=2).remark
    assert "found on 2 of 6 _background pictures" in said
    assert replace(GOOD, background=7, on_background=2).remark == "", "less than 30 %"
    assert replace(GOOD, background=1, on_background=1).remark == "", "one may be chance"
    assert replace(GOOD, on_background=2, mistaken=2).remark.startswith("2 of 10 taken"), "of two, the first"


def test_a_class_that_is_seldom_found() -> None:
    for seldom in (replace(GOOD, found=4), replace(GOOD, kept=19)):
        assert seldom.remark == "seldom found: more pictures, larger in the frame"
    assert replace(GOOD, found=5).remark == ""


def test_remarks_of_drawn_lessons() -> None:
    """Foxes are taken for badgers, badgers stand on every background picture, owls are rarely there."""
    pictures: list[tuple[int, dict[int, float]]] = [
        *[(0, {0: 0.9})] * 4, *[(0, {1: 0.9})] * 3,
        *[(1, {1: 0.9})] * 5,
        *[(2, {2: 0.9})] * 1, *[(2, {2: 0.4})] * 4,
        *[(-1, {1: 0.6})] * 4,
    ]  # fmt: skip
    fox, badger, owl = (lesson.remark for lesson in draw(held(pictures), calibration()))
    assert fox.startswith("3 of 7 taken for badger")
    assert "found on 4 of 4 _background pictures" in badger
    assert owl.startswith("seldom found")


def test_without_a_rehearsal_the_pictures_are_counted() -> None:
    lessons = unjudged_lessons(held(PICTURES), 0.4)
    assert [(lesson.name, lesson.pictures) for lesson in lessons] == [("fox", 9), ("badger", 4), ("owl", 4)]
    assert all(lesson.threshold == 0.4 and lesson.precision is None and lesson.held == 0 for lesson in lessons)
    assert all(lesson.remark.startswith("too few pictures") for lesson in lessons)


def test_rows() -> None:
    bare = replace(GOOD, name="owl", held=0, found=0, precision=None, kept=0)
    head, fox, owl = lesson_rows([GOOD, bare])
    assert head == ("class", "pictures", "held out", "found", "precision", "threshold", "remark")
    assert fox == ("fox", "50", "10", "9", "90% of 80", "0.40", "")
    assert owl == ("owl", "50", "0", "", "", "0.40", bare.remark), "nothing is claimed that is not known"
