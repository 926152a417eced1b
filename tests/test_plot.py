"""Plots: every point where arithmetic puts it, labels apart, files that are XML without scripts."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import plot
from plot import Axis, Line, Plot, draw, plot_of, scales, spread

SVG = "{http://www.w3.org/2000/svg}"
SAMPLE = Plot(
    name="sample",
    title="Time & <size>",
    sentence="What it shows.",
    x=Axis(label="size, megapixels", log=True, ticks=[0.1, 1, 10]),
    y=Axis(label="ms", log=True),
    lines=[
        Line(label="whole", points=[(0.1, 10), (1, 20), (10, 1000)], kind="whole"),
        Line(label="part", points=[(0.1, 0), (1, 15), (10, 900)]),
        Line(label="need", points=[(0.1, 5), (10, 5)], kind="bound"),
    ],
)


def parsed(one: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(draw(one))


def places(root: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    """Centres of a line's points."""
    circles = [circle for circle in root.iter(f"{SVG}circle") if circle.get("class") == kind]
    return [(float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))) for circle in circles]


def labels(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Where each text stands."""
    return {
        str(text.text): (float(text.get("x", "nan")), float(text.get("y", "nan"))) for text in root.iter(f"{SVG}text")
    }


def test_points_lie_where_equal_ratios_are_equally_long() -> None:
    root = parsed(SAMPLE)
    (x0, y0), (x1, y1), (x2, y2) = places(root, "whole")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.1) and x0 < x1
    # 10 to 20 is log10(2) decades, 20 to 1000 log10(50)
    assert (y1 - y0) / (y2 - y1) == pytest.approx(math.log10(2) / math.log10(50), abs=0.01) and y2 < y1 < y0
    ticks = labels(root)
    assert x0 == ticks["0.1"][0] and x2 == ticks["10"][0]
    assert y2 == pytest.approx(ticks["1,000"][1] - 4, abs=0.1)


def test_points_lie_where_equal_differences_are_equally_long() -> None:
    linear = replace(SAMPLE, x=Axis(label="x"), y=Axis(label="y"))
    (x0, y0), (x1, y1), (x2, y2) = places(parsed(linear), "whole")
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.9 / 9.9, abs=0.002)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(10 / 990, abs=0.002)
    assert places(parsed(linear), "part0")[0][1] == pytest.approx(plot.HEIGHT - plot.BOTTOM), "zero is at the bottom"


def test_what_has_no_place_on_a_logarithmic_axis_is_left_out() -> None:
    assert len(places(parsed(SAMPLE), "part0")) == 2
    assert len(places(parsed(replace(SAMPLE, y=Axis(label="y"))), "part0")) == 3


def test_a_part_keeps_the_colour_that_it_is_given() -> None:
    given = replace(SAMPLE, lines=[Line(label="a", points=[(1, 1)], colour=3), Line(label="b", points=[(1, 2)])])
    root = parsed(given)
    assert len(places(root, "part3")) == len(places(root, "part1")) == 1
    assert ".part3{" in draw(given)


def test_bounds_are_dashed_and_have_no_points() -> None:
    root = parsed(SAMPLE)
    assert len([path for path in root.iter(f"{SVG}path") if path.get("class") == "line bound"]) == 1
    assert not places(root, "bound")
    assert re.search(r"\.line\.bound\{[^}]*stroke-dasharray", draw(SAMPLE))


def test_every_line_is_labelled_beside_its_end_and_no_two_labels_touch() -> None:
    crowded = [Line(label=f"line {i}", points=[(1, 1), (10, 100 + i / 10)]) for i in range(6)]
    root = parsed(replace(SAMPLE, lines=crowded))
    found = {label: place for label, place in labels(root).items() if label.startswith("line")}
    heights = sorted(y for _, y in found.values())
    assert len(found) == 6 and min(b - a for a, b in itertools.pairwise(heights)) >= 15
    assert all(plot.TOP - 2 <= y <= plot.HEIGHT - plot.BOTTOM + 10 for y in heights)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([100.0, 200.0], [100.0, 200.0]),
        ([100.0, 100.0, 104.0], [100.0, 116.0, 132.0]),
        ([360.0, 364.0], [350.0, 366.0]),
    ],
)
def test_labels_are_moved_no_further_than_needed(wanted: Sequence[float], expected: Sequence[float]) -> None:
    assert spread(wanted) == expected


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0, 7.2, False, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (0.0, 341.0, False, [0, 50, 100, 150, 200, 250, 300, 350]),
        (0.0, 0.03, False, [0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03]),
        (1.0, 100.0, True, [1, 2, 5, 10, 20, 50, 100]),
        (3.0, 900.0, True, [2, 5, 10, 20, 50, 100, 200, 500, 1000]),
        (0.2, 4000.0, True, [0.1, 1, 10, 100, 1000, 10000]),
    ],
)
def test_ticks_are_round_and_hold_the_values(low: float, high: float, log: bool, expected: Sequence[float]) -> None:
    assert plot._round_ticks(low, high, log) == pytest.approx(expected)


@pytest.mark.parametrize("log", [False, True])
def test_one_point_alone_can_be_drawn(log: bool) -> None:
    one = replace(
        SAMPLE, x=Axis(label="x", log=log), y=Axis(label="y", log=log), lines=[Line(label="a", points=[(2, 3)])]
    )
    across, up = scales(one)
    assert across.low <= 2 <= across.high and up.low <= 3 <= up.high
    assert len(places(parsed(one), "part0")) == 1


def test_the_file_brings_dark_colours_and_no_script_and_survives_json() -> None:
    text = draw(SAMPLE)
    assert "prefers-color-scheme:dark" in text and "script" not in text and "http" not in text.replace(SVG[1:-1], "")
    assert "Time & <size>" in labels(parsed(SAMPLE))
    assert draw(plot_of(json.loads(json.dumps(asdict(SAMPLE))))) == text
