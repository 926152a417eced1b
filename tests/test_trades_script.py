"""The table of parts: what is cut is gone, what is left trains, and each has a row."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from nano_random import random_nano
from sample_photos import CHECKPOINT, SHARED

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import trades


@pytest.mark.parametrize("name", trades.PARTS)
def test_a_cut_changes_what_it_says_it_cuts(name: str) -> None:
    cut, before = random_nano(), random_nano()
    trades.PARTS[name](cut)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, whole = cut.image_encoder(image), before.image_encoder(image)
    same = [torch.equal(a, b) for a, b in zip(found, whole, strict=True)]
    context, skips = "context" not in name, name not in ("no detail", "no skips")
    assert same == [context, context and skips, context and skips, True]  # detail hears of the embedding
    if name == "no skips":
        assert not found[1].any() and not found[2].any()
    assert [a.shape for a in found] == [b.shape for b in whole]
    assert len(cut.mask_decoder.transformer.layers) == (1 if name == "one layer of attention" else 2)


@pytest.mark.slow
@pytest.mark.shared
def test_the_whole_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "result.json"
    arguments = ["--checkpoint", CHECKPOINT, "--data", SHARED / "data", "--steps", 1, "--side", 64, "--photos", 1]
    arguments += ["--teacher", SHARED / "models" / "mobilenetv2-imagenet.safetensors", "--json", file]
    arguments += ["--part", "whole", "no skips", "one layer of attention"]
    monkeypatch.setattr(sys, "argv", ["trades.py", *map(str, arguments)])
    monkeypatch.setattr(trades, "keep_freed_memory", lambda: None)
    trades.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    rows = {row[0]: dict(zip(result["columns"], row, strict=True)) for row in result["rows"]}
    assert list(rows) == ["whole", "no skips", "one layer of attention"]
    assert rows["whole"]["M weights"] > rows["no skips"]["M weights"] > rows["one layer of attention"]["M weights"]
    assert rows["whole"]["image ms"] > 0 and rows["one layer of attention"]["image ms"] is None
    for row in rows.values():
        assert 0 <= row["held out: chosen %"] <= row["best of three %"] <= 100
        assert 0 <= row["COCO chosen %"] <= row["COCO best of three %"] <= 100  # what is cut may find nothing
    assert rows["whole"]["held out: chosen %"] > 0 and rows["whole"]["COCO best of three %"] > 0
    assert "first 1 photos" in result["question"] and "1 steps" in result["question"]
