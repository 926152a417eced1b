"""``gransam bench``: what is clocked, what is counted, what is said. The models are fake ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.record import parse_record
from gransam_sdk.classes import select_classes
from gransam_sdk.commands.bench import bench, plan_setups
from gransam_sdk.errors import InputError
from gransam_sdk.evaluation import timing_report
from gransam_sdk.evaluation.agreement import AgreementTally
from gransam_sdk.evaluation.timing import (
    OTHER,
    STAGES,
    WHOLE,
    TimedRun,
    Timing,
    time_photo,
    time_segmenters,
)
from gransam_sdk.evaluation.timing_report import timing_json, timing_lines
from gransam_sdk.rle import rle_encode
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.result import Result
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.shapes import Pixels
from gransam_sdk.types import Settings


class Watched(Segmenter):
    """Says who took a photo, and takes its time over it."""

    log: list[str]
    name = ""
    pause = 0.0
    closed = False

    def segment(self, pixels: Pixels, **options: Any) -> Result:
        self.log.append(self.name)
        time.sleep(self.pause)
        return super().segment(pixels, **options)

    def close(self) -> None:
        self.closed = True


def opener(log: list[str], name: str, pause: float = 0.0, **settings: Any) -> Callable[[], Watched]:
    def make() -> Watched:
        bundle = fake_bundle()
        made = Watched(fake_model(bundle), select_classes(bundle.classes), Settings(**settings))
        made.log, made.name, made.pause = log, name, pause
        return made

    return make


@pytest.fixture
def paths(photos: Path) -> list[Path]:
    return sorted(photos.iterdir())


def test_every_stage_is_clocked_and_they_add_up(paths: list[Path], tmp_path: Path) -> None:
    with OutputFolder.open(tmp_path / "run") as out:
        result, seconds = time_photo(opener([], "x")(), paths[0], out)
    assert set(seconds) == {*STAGES, OTHER, WHOLE}
    assert all(seconds[stage] > 0 for stage in STAGES)
    assert sum(seconds[stage] for stage in (*STAGES, OTHER)) == pytest.approx(seconds[WHOLE])
    assert seconds[OTHER] > -1e-6, "no stage is counted twice"
    record = parse_record((tmp_path / "run" / "records" / f"{paths[0].name}.json").read_bytes())
    assert len(record["annotations"]) == len(result) > 0, "writing is writing the record"


def test_warm_up_does_not_count_and_segmenters_take_turns(paths: list[Path]) -> None:
    log: list[str] = []
    told: list[tuple[int, int]] = []
    setups = {name: opener(log, name) for name in ("a", "b")}
    run = time_segmenters(setups, paths, rounds=2, warm_up=4, progress=lambda *done: told.append(done))
    assert log[:8] == ["a"] * 4 + ["b"] * 4, "more warm-up than photos"
    assert log[8:] == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b", "b", "a"]
    assert [len(timing.visits) for timing in run.timings] == [6, 6]
    assert told[-1] == (12, 12) and (run.photos, run.rounds, run.warm_up) == (3, 2, 4)


def test_a_segmenter_that_takes_longer_is_slower_and_its_masks_are_compared(paths: list[Path]) -> None:
    setups = {"quick": opener([], "q"), "slow": opener([], "s", pause=0.05)}
    quick, slow = time_segmenters(setups, paths, rounds=1, warm_up=1).timings
    assert slow.speed_up(quick) < 1 < quick.speed_up(slow)
    assert slow.percentile(WHOLE, 50) > 0.05 and slow.percentile(OTHER, 50) > 0.05
    assert quick.agreement is None
    assert slow.agreement is not None and slow.agreement.same_label == 1.0
    assert slow.agreement.kept == slow.agreement.found == slow.agreement.matched == round(3 * slow.masks)


def test_unreadable_photos_are_left_out_and_sessions_closed(paths: list[Path]) -> None:
    bad = paths[0].with_name("bad.jpg")
    bad.write_bytes(b"\xff\xd8\xff not a photo")
    opened: list[Watched] = []

    def make() -> Segmenter:
        opened.append(opener([], "x")())
        return opened[-1]

    run = time_segmenters({"x": make}, [bad, *paths], rounds=1, warm_up=1)
    assert (run.failed, run.photos, run.pixels) == (("bad.jpg",), 3, (2400,) * 3)
    assert opened[0].closed
    with pytest.raises(InputError, match="1 that cannot"):
        time_segmenters({"x": make}, [bad])
    with pytest.raises(InputError, match="from 1"):
        time_segmenters({"x": make}, paths, rounds=0)


def hand_made(name: str, whole: list[float], **changes: Any) -> Timing:
    """A timing whose photos take so many seconds, three quarters of them in the prompt graph."""
    visits = tuple({"read": 0.0, "prompt graph": 0.75 * s, OTHER: 0.25 * s, WHOLE: s} for s in whole)
    given: dict[str, Any] = {
        "name": name, "bundle": fake_bundle(), "provider": "FakeExecutionProvider", "threads": 2, "prompts": 36,
        "chunk": 16, "load": 0.25, "first": {"prompt graph": 1.5, OTHER: 0.5, WHOLE: 2.0}, "visits": visits,
        "masks": 2.5, "agreement": None,
    }  # fmt: skip
    return Timing(**{**given, **changes})


def test_figures_against_hand_counted_ones() -> None:
    first, second = hand_made("a", [1.0, 2.0, 3.0, 4.0]), hand_made("b", [0.5, 0.5, 1.0, 4.0])
    assert first.photos_per_second == pytest.approx(4 / 10)
    assert first.share("prompt graph") == pytest.approx(0.75) and first.share("rle") == 0.0
    assert [first.percentile(WHOLE, rank) for rank in (50, 90)] == pytest.approx([2.5, 3.7])
    assert second.speed_up(first) == pytest.approx(2.5), "median of 2, 4, 3 and 1"


@pytest.fixture
def timed() -> Iterator[TimedRun]:
    tally = AgreementTally()
    mask, half = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    mask[:], half[:8] = True, True
    tally.add_masks([rle_encode(half)], ["dog"], [rle_encode(mask), rle_encode(~mask)], ["cat", "dog"])
    timings = (hand_made("a", [1.0, 2.0]), hand_made("b", [0.5, 0.5], agreement=tally.sum()))
    yield TimedRun(photos=1, pixels=(307_200,), rounds=2, warm_up=3, failed=("bad.jpg",), timings=timings)


def test_agreement_is_counted_pair_by_pair(timed: TimedRun) -> None:
    agreement = timed.timings[1].agreement
    assert agreement is not None
    assert (agreement.photos, agreement.kept, agreement.found, agreement.matched) == (1, 2, 1, 1)
    assert agreement.iou_mean == agreement.iou_min == pytest.approx(0.8) and agreement.same_label == 0.0
    nothing = AgreementTally().sum()
    assert nothing.matched == 0 and nothing.iou_mean is None and "no mask in common" in str(nothing)


def test_the_table_says_what_it_is_of_and_fits_a_terminal(timed: TimedRun) -> None:
    lines = timing_lines(timed)
    text = "\n".join(lines)
    assert "1 photos of 0.31 megapixels (median), 2 rounds after 3 photos of warm-up, which do not count" in text
    assert "fake, fp32, FakeExecutionProvider, 2 threads, 36 prompts in chunks of 16" in text
    table = [line for line in lines if line.startswith("  ")]
    assert max(map(len, table[:16])) <= 100
    prompt = next(line for line in lines if "prompt graph" in line).split()
    assert prompt[2:8] == ["1125", "1425", "1462", "1492", "1500", "75.0%"] and prompt[8] == "#" * 15
    assert next(line for line in lines if "whole photo" in line).split()[2] == "1500"
    assert "3.00 times as fast as a" in text and "IoU mean 0.80000" in text and "same label 0.00%" in text
    assert "of 2 samples" in text and "bad.jpg" in text and "peak memory" in text


def test_the_json_has_every_figure_and_the_machine(timed: TimedRun) -> None:
    told = json.loads(json.dumps(timing_json(timed), allow_nan=False))
    assert told["platform"]["cores"] >= 1 and told["platform"]["packages"]["numpy"] == np.__version__
    first, second = told["segmenters"]
    assert first["warm_ms"][WHOLE] == {"p50": 1500.0, "p90": 1900.0, "p95": 1950.0, "p99": 1990.0, "share": 1.0}
    assert first["cold_ms"]["prompt graph"] == 1500.0 and first["load_ms"] == 250.0
    assert set(first["warm_ms"]) == {*STAGES, OTHER, WHOLE}
    assert second["speed_up"] == 3.0 and second["agreement"]["matched"] == 1 and "agreement" not in first


def test_a_stage_of_another_engine_gets_a_row() -> None:
    visit = {"fused graph": 0.5, OTHER: 0.5, WHOLE: 1.0}
    timing = replace(hand_made("a", [1.0]), visits=(visit,))
    assert [line.split()[:2] for line in timing_report._table(timing)][-5:-2] == [
        ["write", "0.00"], ["fused", "graph"], ["other", "500.0"],
    ]  # fmt: skip


def test_peak_memory_is_the_processs_own() -> None:
    """A process says what it held itself, not what the larger one held that started it."""
    held = np.ones(96 << 20, dtype=np.uint8)
    code = "from gransam_sdk.machine import peak_memory as p; a = p(); x = b'1' * (64 << 20); print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before < held.nbytes and 60 << 20 < after - before < 80 << 20


def test_every_bundle_meets_every_engine() -> None:
    setups = plan_setups(["one", "two", "one"], ["onnxruntime", "openvino"], device="cpu", threads=1)
    assert list(setups) == ["one on onnxruntime", "one on openvino", "two on onnxruntime", "two on openvino"]
    assert list(plan_setups(["one"], ["auto"], device="cpu", threads=None)) == ["one"]


def test_the_command_prints_and_writes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(bundle: str, **options: Any) -> Segmenter:
        asked.append((bundle, options))
        return opener([], bundle)()

    monkeypatch.setattr("gransam_sdk.runtime.load.load", load)
    app = typer.Typer()
    app.command()(bench)
    file = tmp_path / "bench.json"
    arguments = ["--photos", str(photos), "--limit", "2", "--rounds", "1", "--threads", "1", "--json", str(file)]
    done = CliRunner().invoke(app, ["my-bundle", *arguments, "--backend", "openvino"])
    assert done.exit_code == 0, done.output
    assert asked == [("my-bundle", {"device": "auto", "backend": "openvino", "threads": 1})]
    assert "2 photos of 0.00 megapixels" in done.stdout and "whole photo" in done.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["segmenters"][0]["samples"] == 2
    done = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "missing" / "bench.json")])
    assert "a file that can be written" in str(done.exception)
