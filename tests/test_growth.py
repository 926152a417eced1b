"""Sweeps: counts by arithmetic, what sentences say of known times, and a tiny run from photos to plots."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from sample_photos import sample_path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import growth
import growth_report
import roofline
from growth_report import GROUPS, Axes, Measured, Swept, added, fit
from roofline import Roof, Work, photo_work, run_work

from gransam_sdk.bundle import Bundle, open_bundle
from gransam_sdk.evaluation.timing import WHOLE
from gransam_sdk.export.graph_cost import graph_cost


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("nano-voc20")


def place(at: float, whole: float, roof: tuple[float, float] = (0.01, 0.02), **parts: float) -> Measured:
    """Milliseconds by stage; the rest of the whole is ``other``."""
    stages: Mapping[str, float] = {name.replace("_", " "): value / 1e3 for name, value in parts.items()}
    rest = {"other": whole / 1e3 - sum(stages.values()), WHOLE: whole / 1e3}
    return Measured(at=at, seconds={**stages, **rest}, kept=5.0, roof=roof)


@pytest.mark.parametrize(("graph", "axis"), [("image", "b"), ("prompt", "g"), ("head", "g"), ("mask", "n")])
def test_work_of_a_run_is_that_of_its_own_count(bundle: Bundle, graph: str, axis: str) -> None:
    """The line through two and three rows, against a count of seven."""
    cost = graph_cost(bundle.graph_bytes(graph), {axis: 7})
    work = run_work(bundle, graph, 7)
    assert (work.multiply_adds, work.bytes) == (cost.multiply_adds, cost.touched_bytes)


def test_work_of_a_photo_is_its_runs(bundle: Bundle) -> None:
    """25 prompts in chunks of 10 are runs of 10, 10 and 5; 12 masks are runs of 10 and 2."""

    def count(graph: str, axis: str, rows: int) -> Work:
        cost = graph_cost(bundle.graph_bytes(graph), {axis: rows})
        return Work(multiply_adds=cost.multiply_adds, bytes=cost.touched_bytes)

    expected = count("image", "b", 1)
    for rows in (10, 10, 5):
        expected = expected + count("prompt", "g", rows) + count("head", "g", rows)
    expected = expected + count("mask", "n", 10) + count("mask", "n", 2)
    assert photo_work(bundle, prompts=25, masks=12, chunk=10) == expected
    smaller_chunks = photo_work(bundle, prompts=25, masks=12, chunk=5)
    assert smaller_chunks.multiply_adds == expected.multiply_adds
    assert smaller_chunks.bytes > expected.bytes, "weights are read again in every run"


def test_without_masks_the_mask_graph_costs_nothing(bundle: Bundle) -> None:
    one, none = (photo_work(bundle, prompts=10, masks=masks, chunk=10) for masks in (1, 0))
    assert one.multiply_adds - none.multiply_adds == run_work(bundle, "mask", 1).multiply_adds


def test_seconds_under_the_roof_are_amounts_over_rates() -> None:
    roof = Roof(threads=2, multiply_adds=100e9, bytes=20e9)
    assert roof.seconds(Work(multiply_adds=2e9, bytes=1e9)) == (0.02, 0.05)


def test_rates_are_amounts_over_the_least_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that stands still but for one tick a reading, every run takes a second."""
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "COPIED", 1 << 12)
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert roofline._product_rate(1) == 64**3
    assert roofline._copy_rate(2) == 2 * (1 << 12), "as many bytes written as read"


def test_the_line_through_known_times() -> None:
    places = [place(at, 30 + 2 * at) for at in (1, 10, 100)]
    assert fit(places, [one.whole for one in places]) == pytest.approx((30, 2))


def test_what_is_added_is_told_by_its_share() -> None:
    first, last = place(1, 100, rle=1, decode=2, read=1), place(10, 200, rle=61, decode=30, read=5)
    shares = dict(added([first, last]))
    assert shares["rle"] == pytest.approx(0.6) and shares["read, decode"] == pytest.approx(0.32)
    assert next(iter(shares)) == "rle" and sum(shares.values()) == pytest.approx(1)
    said = growth_report.say_photo_size([first, last])
    assert "From 1 to 10 megapixels a photo takes 100 to 200 ms" in said and "60% is rle and 32% read, decode" in said


def test_sentences_say_the_ratios_of_known_times() -> None:
    threads = [
        place(1, 200, roof=(0.08, 0.1), prompt_graph=150),
        place(2, 125, roof=(0.04, 0.1), prompt_graph=75),
    ]
    assert "1.60 times as fast; the graphs alone gain 2.00 times" in growth_report.say_threads(threads)
    assert "product 2.00 times" in growth_report.say_threads(threads)
    chunks = growth_report.say_chunk([place(1, 200), place(10, 100), place(100, 150)])
    assert (
        chunks
        == "Fastest is a chunk of 10, 100 ms a photo; it takes 2.00 times with 1 and 1.50 times with 100 at a time."
    )
    prompts = growth_report.say_prompts([place(25, 45, roof=(0.01, 0)), place(1025, 1045, roof=(0.21, 0))])
    assert "20 ms before the first prompt and 1.00 ms for each" in prompts and "0.20 ms for each, 20% of it" in prompts
    kept = growth_report.say_kept([place(0, 100), place(100, 200, mask_graph=60, rle=30)])
    assert "1.00 ms for each (0.60 ms mask graph, 0.00 ms nms, 0.30 ms rle)" in kept


def test_a_plot_has_the_whole_its_larger_parts_and_the_roof_dashed() -> None:
    swept = Swept(
        axes=Axes(label="threads"),
        places=[
            place(1, 200, roof=(0.08, 0.1), prompt_graph=150, rle=19),
            place(2, 100, roof=(0.04, 0.1), prompt_graph=50, rle=12, nms=1),
        ],
    )
    lines = {line.label: line for line in swept.plot("threads").lines}
    assert list(lines) == ["whole photo", "prompt graph", "write, other", "rle", "multiply-adds need", "bytes need"]
    assert lines["whole photo"].points == [(1, 200), (2, 100)]
    assert lines["prompt graph"].colour == 0 and lines["rle"].colour == 3, "the same in every plot"
    assert lines["multiply-adds need"].points == [(1, 80), (2, 40)] and lines["multiply-adds need"].kind == "bound"
    assert all(len(row) == len(growth_report.COLUMNS) for row in swept.rows("threads"))
    assert swept.rows("threads")[1][4 + list(GROUPS).index("nms")] == 1.0


def test_a_resampled_photo_has_the_pixels_asked_for(tmp_path: Path) -> None:
    for megapixels in (0.1, 2.0):
        with Image.open(growth.resample(sample_path("coffee.png"), megapixels, tmp_path)) as picture:
            assert picture.width * picture.height == pytest.approx(1e6 * megapixels, rel=0.01)
            assert picture.width / picture.height == pytest.approx(600 / 400, rel=0.01)


def test_a_tiny_run_goes_from_photos_to_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    growth.resample(sample_path("coffee.png"), 0.05, photos)
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "COPIED", 1 << 16)
    monkeypatch.setattr(growth, "SIDES", (2, 4))
    monkeypatch.setattr(growth, "SHARES", (0.0, 1.0))
    monkeypatch.setattr(growth, "MEGAPIXELS", (0.05, 0.2))
    monkeypatch.setattr(growth, "CHUNKS", (25, 50))
    monkeypatch.setattr(growth, "CORES", 1)
    file = tmp_path / "growth.json"
    script = str(Path(growth.__file__))
    asked = ["--photos", str(photos), "--rounds", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [script, *asked, "--sweep", *growth.SWEEPS])
    roofline.measure_roof.cache_clear()
    try:
        growth.main()
    finally:
        roofline.measure_roof.cache_clear()
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [plot["name"] for plot in found["plots"]] == [f"growth-{name}" for name in growth.SWEEPS]
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    prompts = [row for row in rows if row["what grows"] == "prompts"]
    assert [row["value"] for row in prompts] == [4, 16]
    kept = [row["masks kept"] for row in rows if row["what grows"] == "kept"]
    assert kept[0] == 0 and kept[1] > 95, "thresholds let nothing through, then everything"
    assert all(row["ms a photo"] > 0 for row in rows)


def test_a_part_of_the_table_does_not_replace_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["growth.py", "--photos", "p", "--sweep", "kept"])
    with pytest.raises(SystemExit):
        growth.main()
