"""Bars by precision: the table of the format's page, both sides of each bar, and what a missing figure means."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from bundles import good_parts

import gransam_sdk
from gransam_sdk.errors import BundleError
from gransam_sdk.manifest_reader import parse_manifest
from gransam_sdk.parity_bars import BARS, PRECISIONS, Bar, broken_bars, check_parity

SCHEMA = json.loads((Path(gransam_sdk.__file__).parent / "bundle.schema.json").read_bytes())
PERFECT = {
    "masks": 5000,
    "tokens_max_abs": 0.0,
    "tokens_p999_abs": 0.0,
    "tokens_cosine_min": 1.0,
    "tokens_relative_norm": 0.0,
    "sign_flips": 0.0,
    **{f"{kind}_iou_{of}": 1.0 for kind in ("mask", "confident", "kept") for of in ("mean", "p1", "min")},
    "label_agreement": 1.0,
    "clear_label_agreement": 1.0,
    "kept_f1": 1.0,
    "miou_change": 0.0,
}
TABLE = {
    "fp32": {"tokens_max_abs": 1e-3, "tokens_p999_abs": 1e-4, "tokens_cosine_min": 0.99999, "sign_flips": 1e-4,
             "mask_iou_mean": 0.9995, "kept_iou_mean": 0.9995, "label_agreement": 0.999, "kept_f1": 0.999,
             "clear_label_agreement": 1.0},
    "fp16": {"tokens_cosine_min": 0.999, "tokens_relative_norm": 1e-2, "sign_flips": 2e-3, "kept_iou_mean": 0.99,
             "kept_iou_p1": 0.95, "label_agreement": 0.995, "kept_f1": 0.99, "miou_change": 0.1},
    "int8": {"tokens_cosine_min": 0.99, "sign_flips": 1e-2, "kept_iou_mean": 0.97, "kept_iou_p1": 0.85,
             "label_agreement": 0.985, "kept_f1": 0.97, "miou_change": 0.5},
}  # fmt: skip
"""Typed from the project's goal table, not read from the code."""
ROWS = [
    (precision, figure, limit)
    for same, row in ((("fp32", "fp32-w16"), "fp32"), (("fp16", "bf16"), "fp16"), (("int8",), "int8"))
    for precision in same
    for figure, limit in TABLE[row].items()
]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_perfect_bundle_breaks_nothing(precision: str) -> None:
    assert broken_bars(precision, PERFECT) == []


@pytest.mark.parametrize(("precision", "figure", "limit"), ROWS)
def test_each_bar_lies_where_the_table_says(precision: str, figure: str, limit: float) -> None:
    worse = -1 if PERFECT[figure] >= limit else 1
    assert broken_bars(precision, PERFECT | {figure: limit}) == []
    (broken,) = broken_bars(precision, PERFECT | {figure: limit + worse * 1e-6})
    assert broken.bar.figure == figure and broken.bar.limit == limit
    assert [one.bar.figure for one in broken_bars(precision, PERFECT | {figure: float("nan")})] == [figure]


def test_mean_iou_may_neither_fall_nor_rise() -> None:
    for change in (0.4, -0.4):
        assert broken_bars("int8", PERFECT | {"miou_change": change}) == []
        assert len(broken_bars("fp16", PERFECT | {"miou_change": change})) == 1


@pytest.mark.parametrize(("share", "count"), [("label_agreement", "confident"), ("kept_f1", "kept")])
def test_one_answer_of_few_may_differ_and_two_may_not(share: str, count: str) -> None:
    for differ, breaks in ((1, False), (2, True)):
        figures = PERFECT | {share: 1 - differ / 60, count: 60}
        assert [one.bar.figure for one in broken_bars("fp32", figures)] == ([share] if breaks else [])
    assert broken_bars("fp32", PERFECT | {share: 0.9989, count: 5000})
    assert broken_bars("fp32", PERFECT | {share: 0.98, count: 0})
    assert broken_bars("fp32", PERFECT | {share: float("nan"), count: 60})


def test_without_a_head_all_masks_are_judged_instead_of_kept_ones() -> None:
    bare = {name: PERFECT[name] for name in ("masks", "tokens_cosine_min", "tokens_relative_norm", "sign_flips")}
    bare |= {"mask_iou_mean": 0.98, "mask_iou_p1": 0.8}
    assert [one.bar.figure for one in broken_bars("int8", bare)] == ["mask_iou_p1"]
    kept = {"kept_iou_mean": 0.98, "kept_iou_p1": 0.9}
    assert broken_bars("int8", bare | kept) == []


def test_missing_figures_break_reduced_precisions_alone() -> None:
    assert broken_bars("fp32-w16", {}) == []
    for precision in ("fp16", "bf16", "int8"):
        required = {bar.figure for bar in BARS[precision] if bar.required}
        assert {"masks", "tokens_cosine_min", "sign_flips", "mask_iou_mean", "mask_iou_p1"} <= required
        assert {one.bar.figure for one in broken_bars(precision, {})} == required
        assert broken_bars(precision, PERFECT | {"masks": 999})[0].bar.figure == "masks"


def test_the_refusal_says_expected_found_and_what_to_do() -> None:
    with pytest.raises(BundleError) as refused:
        check_parity("bundle x", "int8", PERFECT | {"kept_f1": 0.5, "sign_flips": None})
    assert "kept_f1 >= 0.97" in refused.value.expected and "sign_flips <= 0.01" in refused.value.expected
    assert refused.value.found == "sign_flips missing, kept_f1 0.5" and "gransam parity" in refused.value.do
    with pytest.raises(BundleError, match="unverified"):
        check_parity("bundle x", "fp32", PERFECT | {"verdict": "unverified"})
    check_parity("bundle x", "int8", PERFECT | {"reference": "PyTorch"})


def test_bars_read_as_they_are_meant() -> None:
    shown = [str(Bar(figure="x", kind=kind, limit=0.5)) for kind in ("at most", "at least", "within")]
    assert shown == ["<= 0.5", ">= 0.5", "+- 0.5"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("parity", "says"),
    [
        ({"reference": "none", "verdict": "unverified"}, None),
        ({"reference": "none", "verdict": "unverified", "masks": 8}, None),
        ({"reference": "none", "verdict": "passes"}, "verdict"),
        ({"verdict": "unverified"}, "reference"),
        ({"reference": "none", "verdict": "unverified", "masks": 0}, "masks"),
        ({"reference": "none"}, "mask_iou_mean"),
    ],
)
def test_reader_and_schema_agree_on_the_verdict(precision: str, parity: dict[str, object], says: str | None) -> None:
    parts = good_parts()
    parts.seal()
    manifest = parts.manifest | {"precision": precision, "parity": parity}
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid(manifest)
    assert valid == (says is None)
    if says is None:
        assert parse_manifest(json.dumps(manifest).encode()).parity == parity
        return
    with pytest.raises(BundleError, match=says):
        parse_manifest(json.dumps(manifest).encode())
