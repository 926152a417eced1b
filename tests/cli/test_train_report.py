"""What ``gransam train`` says when it is stopped, and its report, which has to fit a terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bundles import write_good
from PIL import Image

from gransam_sdk.commands.train import _report
from gransam_sdk.training.lessons import Lesson

CAT = Lesson(
    name="cat", pictures=40, held=8, found=8, mistaken=0, mistaken_for=None, background=8, on_background=0,
    threshold=0.57, precision=0.8, kept=975,
)  # fmt: skip
DOG = Lesson(
    name="dog", pictures=40, held=8, found=8, mistaken=0, mistaken_for=None, background=8, on_background=6,
    threshold=0.3, precision=0.8, kept=840,
)  # fmt: skip


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stopped_training_says_what_is_kept(
    stop: type[BaseException], gransam: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, name in enumerate(("red", "blue")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 90 * index, dtype=np.uint8)).save(tmp_path / "pictures" / name / "0.png")

    def stopped(*_: object, **__: object) -> None:
        raise stop(143)

    monkeypatch.setattr("gransam_sdk.training.rehearse.fit_calibrated", stopped)
    base = write_good(tmp_path / "tiny", head=False)
    paths = [tmp_path / "pictures", "-o", tmp_path / "mine", "--base", base, "--cache", tmp_path / "cache"]
    done = gransam("train", *paths, fake=False)
    assert done.code == (130 if stop is KeyboardInterrupt else 143)
    assert "stopped; the epochs that were trained are kept" in done.err
    assert not (tmp_path / "mine").exists()


def test_remarks_stand_below_the_table() -> None:
    lines = _report(SimpleNamespace(calibration=object(), lessons=(CAT, DOG)))  # type: ignore[arg-type]
    assert lines[1:4] == [
        "class  pictures  held out  found  precision   threshold",
        "cat    40        8         8      80% of 975  0.57",
        "dog    40        8         8      80% of 840  0.30",
    ]
    assert lines[4:] == [f"dog: {DOG.remark}"]
    assert lines[0].startswith("on held-out pictures") and max(map(len, lines[:4])) <= 100


def test_nothing_is_said_of_held_out_pictures_where_there_are_none() -> None:
    lines = _report(SimpleNamespace(calibration=None, lessons=(CAT,)))  # type: ignore[arg-type]
    assert lines[0].startswith("class")
