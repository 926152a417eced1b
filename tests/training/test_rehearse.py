"""A rehearsal, then the head: what is held out, what is folded in, and that a killed one goes on to the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bags_by_hand import CLASSES, noisy_bags, noisy_scenes, one_head

from gransam_sdk.errors import InputError, OutputError
from gransam_sdk.training import rehearse
from gransam_sdk.training.bags import Bags
from gransam_sdk.training.calibrate import calibrate
from gransam_sdk.training.fit import fit_head
from gransam_sdk.training.rehearse import fit_calibrated
from gransam_sdk.training.split import split_bags

HERE = Path(__file__).parent
CONFIG = one_head(epochs=2)


def all_bags(count: int = 120) -> Bags:
    return replace(noisy_bags(count=count), scenes=noisy_scenes(count=40))


def test_the_rehearsals_temperature_is_in_the_final_head() -> None:
    bags = all_bags()
    lines: list[str] = []
    rehearsed = fit_calibrated(bags, CONFIG, target=0.6, log=lines.append)
    rest, held = split_bags(bags, 0.2, 0)
    expected = calibrate(fit_head(rest, CONFIG).head, held, CONFIG, target=0.6)
    assert rehearsed.calibration == expected and expected.facts.target == 0.6
    assert abs(expected.facts.temperature - 1.0) > 0.01, "or nothing could be seen below"
    plain = fit_head(bags, CONFIG)
    x = torch.from_numpy(bags.instances[:3].astype(np.float32))
    torch.testing.assert_close(rehearsed.fitted.head(x), plain.head(x) / expected.facts.temperature)
    assert rehearsed.fitted.bad_share == plain.bad_share
    assert [lesson.name for lesson in rehearsed.lessons] == list(bags.classes)
    for index, lesson in enumerate(rehearsed.lessons):
        assert lesson.pictures == 24 and lesson.held == int((held.labels == index).sum()) >= 4
        assert lesson.background == int((held.labels < 0).sum())
        assert (lesson.threshold, lesson.kept) == (expected.thresholds[index], expected.evidence[index].kept)
    assert lines[0] == f"rehearsal, to calibrate with: {len(held.labels)} of 120 pictures are held out"
    assert "final training, on all 120 pictures" in lines
    assert sum("teacher epoch" in line for line in lines) == sum("student epoch" in line for line in lines) == 4


def test_the_rehearsal_sees_nothing_that_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Bags] = []

    def watched(bags: Bags, *arguments: object, **settings: object) -> object:
        met.append(bags)
        return fit_head(bags, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(rehearse, "fit_head", watched)
    bags = all_bags()
    fit_calibrated(bags, CONFIG)
    first, last = met
    assert last is bags
    _, held = split_bags(bags, 0.2, 0)
    for seen, hidden in ((first.instances, held.instances), (first.scenes.instances, held.scenes.instances)):
        assert len(hidden) and not {row.tobytes() for row in seen} & {row.tobytes() for row in hidden}
    assert not set(first.scenes.folds) & set(held.folds)


def test_too_few_pictures_are_not_rehearsed_with() -> None:
    bags, lines = noisy_bags(count=90), []  # 18 of each class, and 2 of 10 folds hold 4 of them at most
    counts = {seed: int(np.bincount(split_bags(bags, 0.2, seed)[1].labels + 1)[1:].max()) for seed in range(20)}
    seed = next(seed for seed, most in counts.items() if most == 3)
    rehearsed = fit_calibrated(bags, replace(CONFIG, seed=seed), log=lines.append)
    assert rehearsed.calibration is None
    assert not any("rehearsal" in line for line in lines)
    assert all(lesson.held == 0 and lesson.threshold == CONFIG.threshold for lesson in rehearsed.lessons)
    assert all("too few pictures" in lesson.remark for lesson in rehearsed.lessons)
    plain = fit_head(bags, replace(CONFIG, seed=seed)).head.state_dict()
    assert all(torch.equal(plain[name], value) for name, value in rehearsed.fitted.head.state_dict().items())
    enough = next(seed for seed, most in counts.items() if most == 4)
    assert fit_calibrated(bags, replace(CONFIG, seed=enough)).calibration is not None


def test_one_class_is_judged_and_another_is_not() -> None:
    whole = all_bags(200)
    rare = np.flatnonzero(whole.labels == 2)[6:]
    bags = whole.take(~np.isin(np.arange(200), rare), np.ones(40, dtype=bool))
    rehearsed = fit_calibrated(bags, replace(CONFIG, epochs=6))
    assert rehearsed.calibration is not None
    assert ["too few" in lesson.remark for lesson in rehearsed.lessons] == [False, False, True, False]
    assert [evidence.basis == "default" for evidence in rehearsed.calibration.evidence][2]
    assert rehearsed.calibration.thresholds[2] == CONFIG.threshold


def test_a_hold_out_of_its_own_within_the_rehearsal() -> None:
    bags = all_bags()
    for seed in range(3):
        rehearsed = fit_calibrated(bags, replace(CONFIG, hold_out=0.1, seed=seed))
        assert rehearsed.calibration is not None
        assert rehearsed.fitted.held_out_accuracy is not None


def test_one_class_and_background() -> None:
    bags = noisy_bags(count=150)
    one = replace(bags.take(bags.labels <= 0, np.zeros(0, dtype=bool)), classes=("class0",))
    rehearsed = fit_calibrated(one, one_head(epochs=20, background="explicit"))
    assert rehearsed.calibration is not None and rehearsed.fitted.background
    (lesson,) = rehearsed.lessons
    assert (lesson.pictures, lesson.mistaken, lesson.mistaken_for) == (30, 0, None)
    assert lesson.found == lesson.held == 6 and lesson.on_background == 0


@pytest.mark.parametrize("count", [20, 120])
def test_a_target_that_cannot_be_is_refused_before_any_epoch(count: int) -> None:
    """Also where there are too few pictures to aim at it."""
    lines: list[str] = []
    with pytest.raises(InputError, match="target"):
        fit_calibrated(all_bags(count), CONFIG, target=0.0, log=lines.append)
    assert not lines


class Interrupted(Exception):
    pass


def test_interrupted_after_every_epoch_of_both_trainings(tmp_path: Path) -> None:
    bags = all_bags()
    whole = fit_calibrated(bags, CONFIG)
    epochs: list[str] = []

    def stop_after_one(line: str) -> None:
        if "loss" in line:
            epochs.append(line.split("/")[0].strip())
            raise Interrupted

    for _ in range(8):
        with pytest.raises(Interrupted):
            fit_calibrated(bags, CONFIG, log=stop_after_one, checkpoint=tmp_path)
    resumed = fit_calibrated(bags, CONFIG, log=stop_after_one, checkpoint=tmp_path)
    assert epochs == [f"{stage} epoch {epoch}" for stage in ("teacher", "student") for epoch in (1, 2)] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final", "rehearsal"]
    assert (resumed.calibration, resumed.lessons) == (whole.calibration, whole.lessons)
    before = whole.fitted.head.state_dict()
    assert all(torch.equal(before[name], value) for name, value in resumed.fitted.head.state_dict().items())
    with pytest.raises(OutputError, match="another training"):
        fit_calibrated(bags, replace(CONFIG, seed=1), checkpoint=tmp_path)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "kill_fit.py", tmp_path, "4", "rehearsal"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert found["partial"] >= 4, "a kill counts that came after an epoch was saved and before the end"
    assert found["moments"] > 2, "the moments were hardly random"
    assert len(found["same"]) >= 2 and all(found["same"])
    assert found["left"] == 0, "half-written files are swept"


def test_bags_by_hand_have_classes_enough() -> None:
    """What the cases above rest on: pictures of every class in the rehearsal's share."""
    _, held = split_bags(all_bags(), 0.2, 0)
    assert set(held.labels) == set(range(-1, CLASSES)) and len(held.scenes.folds) == 8
