"""What the model card says of a head, and what it must not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from bags_by_hand import noisy_bags, noisy_scenes, one_head

from gransam_sdk.training.bags import Bags
from gransam_sdk.training.card import head_card
from gransam_sdk.training.lessons import lesson_rows
from gransam_sdk.training.rehearse import Rehearsed, fit_calibrated

CONFIG = one_head(epochs=2, seed=3)


@pytest.fixture(scope="module")
def bags() -> Bags:
    return replace(noisy_bags(count=120), scenes=noisy_scenes(count=40))


@pytest.fixture(scope="module")
def rehearsed(bags: Bags) -> Rehearsed:
    return fit_calibrated(bags, CONFIG)


def table(card: str) -> list[list[str]]:
    lines = [line for line in card.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_is_that_of_the_terminal(bags: Bags, rehearsed: Rehearsed) -> None:
    head, rule, *rows = table(head_card(bags, CONFIG, rehearsed))
    wanted, *lessons = lesson_rows(rehearsed.lessons)
    assert tuple(head) == wanted and rule == ["---"] * len(wanted)
    assert [tuple(row) for row in rows] == lessons and len(lessons) == 4


def test_a_name_cannot_break_the_table(bags: Bags, rehearsed: Rehearsed) -> None:
    lessons = (replace(rehearsed.lessons[0], name="a|b"), *rehearsed.lessons[1:])
    card = head_card(bags, CONFIG, replace(rehearsed, lessons=lessons))
    (row,) = [line for line in card.splitlines() if line.startswith("| a")]
    assert row.startswith(r"| a\|b | 24 |") and row.replace(r"\|", "").count("|") == 8


def test_numbers_are_those_of_the_training(bags: Bags, rehearsed: Rehearsed) -> None:
    card = " ".join(head_card(bags, CONFIG, rehearsed).split())
    assert "Labels 4 classes" in card
    assert "96 of the classes, 24 of background, and 40 scenes" in card
    assert "2 + 2 epochs" in card and "seed 3" in card and "surroundings from 50% of the rim" in card
    assert "smallest threshold from 0.50 on" in card and "one head, inputs fused" in card
    many = " ".join(
        head_card(replace(bags, classes=tuple("abcdefghijk")), replace(CONFIG, members=4), rehearsed).split()
    )
    assert "smallest threshold from 0.30 on" in many and "4 heads averaged, inputs fused" in many
    assert f"{rehearsed.fitted.bag_accuracy:.1%} of the pictures" in card
    assert rehearsed.calibration is not None
    facts = rehearsed.calibration.facts
    assert f"{facts.pictures} pictures and {facts.background_pictures} of background" in card
    assert f"temperature {facts.temperature:.2f}" in card and "precision of 80%" in card
    plain = " ".join(head_card(bags, replace(CONFIG, scenes=False, rim=2.0), rehearsed).split())
    assert "0 scenes" in plain and "no rim rule" in plain and "of the rim" not in plain


def test_nothing_is_claimed_without_a_calibration() -> None:
    bags = noisy_bags(count=20)
    config = replace(CONFIG, uncertainty_weight=0.0)
    card = head_card(bags, config, fit_calibrated(bags, config))
    text, rows = card.partition("| class")[0], table(card)[2:]
    assert "too few pictures to calibrate" in text and "**Threshold** 0.5 for every class" in text
    for claim in ("temperature", "Calibrated", "source precision", "rehearsal"):
        assert claim not in text
    assert [row[2:5] for row in rows] == [["0", "", ""]] * 4, "held out, found, precision"
    assert all("too few pictures to judge" in row[6] for row in rows)
    assert re.search(r"\b2 epochs", " ".join(card.split())), "a teacher alone"
