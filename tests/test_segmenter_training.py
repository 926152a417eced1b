"""The log of a segmenter's training as a result file: rows of what was judged, and plots that can be drawn."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import segmenter_training
from plot import draw, plot_of

FEATURES = {"stride16": 0.5, "stride32": 0.25}
MASKS = {"meaning": 1.5, "single": 0.4, "predicted": 0.41, "best_of_three": 0.5}
LOG: dict[str, Any] = {
    "device": "cpu",
    "threads": 2,
    "torch": "2.13.0",
    "init_sha256": None,
    "config": {"photos": 16, "clicks": 6, "sides": [224], "seed": 0},
    "data": {"photos": {"voc2012_train_aug": 2400, "unlabelled": 30}, "held_out": 108},
    "seconds": 960.0,
    "steps": {"blocks": 100, "encoder": 100, "masks": 1200},
    "history": [
        {"phase": "blocks", "step": 50, "seconds": 60.0, "total": 0.9},
        {"phase": "blocks", "step": 100, "seconds": 120.0, "held_out": FEATURES},
        {"phase": "masks", "step": 0, "seconds": 300.0, "held_out": FEATURES | MASKS},
        {
            "phase": "masks",
            "step": 1200,
            "seconds": 900.0,
            "held_out": FEATURES | MASKS | {"single": 0.6, "meaning": 1},
        },
    ],
}


def test_rows_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nano.json").write_text(json.dumps(LOG))
    script = Path(segmenter_training.__file__)
    monkeypatch.setattr(sys, "argv", [str(script), "--log", str(tmp_path / "nano.json")])
    monkeypatch.setattr("result.RESULTS", tmp_path / "results")
    segmenter_training.main()
    result = json.loads((tmp_path / "results" / "segmenter_training.json").read_text())
    assert result["rows"] == [
        [1, "blocks", 100, 2.0, 0.5, 0.25, None, None, None, None],
        [1, "masks", 0, 5.0, 0.5, 0.25, 1.5, 0.4, 0.41, 0.5],
        [1, "masks", 1200, 15.0, 0.5, 0.25, 1, 0.6, 0.41, 0.5],
    ]
    features, meaning, masks = map(plot_of, result["plots"])
    assert [len(line.points) for line in features.lines] == [3, 3]
    assert [list(map(tuple, line.points)) for line in meaning.lines] == [[(5.0, 1.5), (15.0, 1)]]
    assert {line.label: list(map(tuple, line.points)) for line in masks.lines}["mask 0"] == [(5.0, 0.4), (15.0, 0.6)]
    assert all(f">{line.label}<" in draw(plot) for plot in (features, meaning, masks) for line in plot.lines)
    assert "1,200 of masks" in result["notes"][0] and "2,400 of voc2012_train_aug" in result["notes"][1]
    assert "mask 0" in capsys.readouterr().out


def test_trainings_that_go_on_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = LOG | {"init_sha256": "0123456789abcdef", "config": LOG["config"] | {"sides": [192, 288]}}
    second["history"] = [row | {"phase": "masks"} for row in LOG["history"][2:]]
    for name, log in (("first", LOG), ("second", second)):
        (tmp_path / name).write_text(json.dumps(log))
    arguments = [segmenter_training.__file__, "--log", *(str(tmp_path / name) for name in ("first", "second"))]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr("result.RESULTS", tmp_path / "results")
    segmenter_training.main()
    result = json.loads((tmp_path / "results" / "segmenter_training.json").read_text())
    assert [(row[0], row[3]) for row in result["rows"]] == [(1, 2.0), (1, 5.0), (1, 15.0), (2, 21.0), (2, 31.0)]
    assert "Training 2: from a checkpoint (0123456789ab)" in result["notes"][2] and "192, 288" in result["notes"][2]
    assert "training" in capsys.readouterr().out


def test_a_line_needs_two_points() -> None:
    judged = [row for row in LOG["history"] if "held_out" in row][:1]
    assert [asdict(plot) for plot in segmenter_training.plots(judged)] == []
