"""The stand-in that is measured, the turns that paths take, and what the script says of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam_random import NARROW_TINY, random_sam
from sample_photos import sample_path

from gransam_sdk.export.sam import PlainSam
from gransam_sdk.nms import mask_iou
from gransam_sdk.rle import rle_encode
from gransam_sdk.types import PointGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import random_bundle
import reference
import reference_paths
import reference_report
from kept import Kept
from reference_report import report


def test_recentred_masks_differ_between_clicks() -> None:
    photo = sample_path("coffee.png")

    def look(change: Callable[[PlainSam], object]) -> tuple[float, float]:
        plain = PlainSam(random_sam(NARROW_TINY, seed=3))
        change(plain)
        maps = {name: value[0] for name, value in plain.encode(random_bundle._square(plain, photo)).items()}
        _, iou, logits = plain.decode(maps, torch.from_numpy(PointGrid(per_side=5).points()))
        overlap = mask_iou((logits[:, 1] > 0).numpy())
        return float(np.median(overlap[~np.eye(25, dtype=bool)])), float(iou.mean())

    before, _ = look(lambda plain: None)
    after, iou = look(lambda plain: random_bundle.recentre(plain, [photo]))
    assert before > 0.5 > after and iou == pytest.approx(random_bundle.PREDICTED_IOU, abs=1e-3)


def test_the_threshold_lets_the_wanted_number_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred masks of one pixel: as many survive as pass."""
    masks = np.zeros((100, 10, 10), dtype=bool)
    masks[np.arange(100), np.arange(100) // 10, np.arange(100) % 10] = True
    confidence = np.linspace(0.01, 1.0, 100, dtype=np.float32)
    answer = (confidence, np.zeros(100, dtype=np.int64), np.ones(100, dtype=np.float32), masks)
    monkeypatch.setattr(random_bundle, "_answers", lambda model, head, photo: answer)
    threshold, survivors = random_bundle.choose_threshold(None, None, [Path("a"), Path("b")])  # type: ignore[arg-type]
    assert survivors == random_bundle.WANTED and (confidence >= threshold).sum() == random_bundle.WANTED


def test_paths_take_turns_and_one_photo_before(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, str]] = []

    def path(name: str) -> Callable[[Path], Kept]:
        def run(photo: Path) -> Kept:
            taken.append((name, photo.name))
            return Kept(masks=(), names=())

        return run

    photos = [Path("a"), Path("b")]
    seconds, kept = reference.interleave({name: path(name) for name in ("x", "y")}, photos, rounds=2)
    assert [name for name, _ in taken[2:]] == ["x", "y", "y", "x", "y", "x", "x", "y"]
    assert taken[:2] == [("x", "b"), ("y", "b")]
    assert {name: len(values) for name, values in seconds.items()} == {"x": 4, "y": 4}
    assert {name: len(values) for name, values in kept.items()} == {"x": 2, "y": 2}


def options(**changes: Any) -> argparse.Namespace:
    given = {"arch": "nano", "rows": None, "quick": False, "threads": 2, "rounds": 1, "measured": ["a", "b"]}
    return argparse.Namespace(**{**given, **changes})


def test_what_cannot_run_here_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(name: str, *rest: object) -> str:
        if name == "openvino":
            raise reference_paths.MissingExtraError("openvino is not installed")
        return name

    monkeypatch.setattr(reference_paths, "build", build)
    paths = reference_paths.open_paths(None, Path(), options())  # type: ignore[arg-type]
    assert list(paths) == ["reference", "hoist-free", "onnxruntime"], "nano has no official paths"
    assert "openvino is not installed" in capsys.readouterr().err
    quick = reference_paths.open_paths(None, Path(), options(quick=True, arch="mobile-sam"))  # type: ignore[arg-type]
    assert list(quick) == ["reference", "onnxruntime"]
    asked = reference_paths.open_paths(None, Path(), options(rows=["official"], arch="sam-vit-b"))  # type: ignore[arg-type]
    assert list(asked) == ["reference", "official"]


def test_the_report_says_how_many_times_as_fast_and_whether_masks_agree(tmp_path: Path) -> None:
    mask, other = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    mask[:4], other[4:, :4] = True, True
    theirs = Kept(masks=(rle_encode(mask), rle_encode(other)), names=("cat", "dog"))
    ours = Kept(masks=(rle_encode(other),), names=("cat",))
    file = tmp_path / "result.json"
    seconds = {"reference": [8.0, 12.0], "onnxruntime": [2.0, 2.0]}
    report(options(json=file), seconds, {"reference": [theirs] * 2, "onnxruntime": [ours] * 2}, {})
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["rows"][0][:4] == ["PyTorch, the mask generator's order of work", 10.0, 1.0, "1.00 to 1.00"]
    assert result["rows"][1][1:6] == [2.0, 5.0, "4.00 to 6.00", 1.0, "4 / 2, 2"]
    assert result["rows"][1][6:10] == ["1.00000", "1.00000", "1.00000", "0.00%"]
    assert "4 kept masks: fewer than 1,000" in result["notes"][-1]
    assert reference_report.void([600, 400]) == []
