"""The table of input sides: one row a side, from bundles that were compiled at it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from sample_photos import CHECKPOINT, SHARED

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import sides


@pytest.mark.slow
@pytest.mark.shared
def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    arguments = ["--checkpoint", CHECKPOINT, "--data", SHARED / "data", "--side", 96, 160, "--count", 1]
    arguments += ["--photos", 1, "--json", file]
    monkeypatch.setattr(sys, "argv", ["sides.py", *map(str, arguments)])
    sides.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    rows = [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
    assert [row["side"] for row in rows] == [96, 160]
    small, large = rows
    assert small["bundle MB"] == pytest.approx(large["bundle MB"], abs=0.3), "weights do not depend on the side"
    for row in rows:
        parts = row["image ms"] + row["100 prompts ms"] + row["25 masks ms"]
        assert row["all ms"] == pytest.approx(parts, abs=0.2) and row["image ms"] > 0
        assert 0 < row["COCO chosen %"] <= row["COCO best of three %"] <= 100
    assert "first 1 photos" in result["question"]
