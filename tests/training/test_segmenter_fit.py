"""A training learns, and however it is stopped it goes on to the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import random_teacher, write_data

from gransam_sdk.errors import GranSAMError, OutputError
from gransam_sdk.models.imagenet_teacher import load_teacher
from gransam_sdk.models.nano import Nano
from gransam_sdk.training.nano import loop
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import TrainingData, load_data
from gransam_sdk.training.nano.fit import Budget, Trained, segmenter_identity, train_segmenter
from gransam_sdk.training.nano.loop import Pace
from gransam_sdk.training.nano.mask_phase import MaskPhase
from gransam_sdk.training.nano.state import SegmenterState, SegmenterStore

CONFIG = SegmenterConfig(
    sides=(64, 96), photos=2, clicks=3, held_out=0.2, shares=(0.3, 0.3, 0.4), precision="fp32", warm_up=2
)
BUDGET = Budget(steps=7)
OFTEN = Pace(tell=1, judge=1000, save_seconds=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return load_data(write_data(tmp_path_factory.mktemp("discs") / "data"), CONFIG)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def same(first: Nano, second: Nano) -> bool:
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def told(trained: Trained) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in trained.history]


class Stopped(Exception):
    pass


def stop(at: str) -> Callable[[str], None]:
    """A log that stops the training at the line of a phase and step."""

    def log(line: str) -> None:
        if line.startswith(f"{at}/"):
            raise Stopped

    return log


@pytest.mark.slow
def test_stopped_and_resumed(tmp_path: Path, data: TrainingData) -> None:
    """The log speaks before a state is saved: what is stopped at step 3 goes on after step 2."""
    teacher = random_teacher()
    whole = train_segmenter(data, teacher, CONFIG, BUDGET, pace=OFTEN)
    assert whole.steps == {"blocks": 2, "encoder": 2, "masks": 3}
    for at in ("blocks 2", "encoder 1", "masks 1", "masks 3"):
        with pytest.raises(Stopped):
            train_segmenter(data, teacher, CONFIG, BUDGET, pace=OFTEN, checkpoint=tmp_path, log=stop(at))
    lines: list[str] = []
    resumed = train_segmenter(data, teacher, CONFIG, BUDGET, pace=OFTEN, checkpoint=tmp_path, log=lines.append)
    assert lines[0] == "masks goes on after step 2 of 3"
    assert same(whole.nano, resumed.nano) and told(whole) == told(resumed)
    again = train_segmenter(data, teacher, CONFIG, BUDGET, pace=OFTEN, checkpoint=tmp_path)
    assert same(whole.nano, again.nano), "of a finished training the weights are there"
    with pytest.raises(OutputError, match="another training"):
        train_segmenter(data, teacher, replace(CONFIG, seed=1), BUDGET, checkpoint=tmp_path)
    file = tmp_path / "segmenter.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(OutputError, match="damaged"):
        train_segmenter(data, teacher, CONFIG, BUDGET, checkpoint=tmp_path)


@pytest.mark.slow
def test_a_state_without_a_part_would_show(tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial above can fail."""
    teacher, init, budget = random_teacher(), Nano(), Budget(steps=3)
    whole = train_segmenter(data, teacher, CONFIG, budget, init=init)
    identity = segmenter_identity(data, teacher, CONFIG, budget, init)
    with pytest.raises(Stopped):
        train_segmenter(data, teacher, CONFIG, budget, init=init, pace=OFTEN, checkpoint=tmp_path, log=stop("masks 3"))
    with SegmenterStore(tmp_path, identity) as store:
        state = store.load()
    assert state is not None and state.step == 2
    monkeypatch.setattr(SegmenterStore, "save", lambda store, state: None)
    for part, other in (("", 0), ("optimizer", {}), ("average", state.model), ("averaged", 0)):
        monkeypatch.setattr(SegmenterStore, "load", lambda store, part=part, other=other: forgetful(state, part, other))
        resumed = train_segmenter(data, teacher, CONFIG, budget, init=init, checkpoint=tmp_path)
        assert same(whole.nano, resumed.nano) == (not part), part


def forgetful(state: SegmenterState, part: str, other: object) -> SegmenterState:
    """The state with something else in place of a part."""
    copied = copy.deepcopy(state)
    if part:
        setattr(copied, part, other)
    return copied


def test_identity_covers_all_that_is_read(data: TrainingData) -> None:
    teacher, init = random_teacher(), Nano()
    other = random_teacher()
    next(other.parameters()).data[0] += 1
    first = segmenter_identity(data, teacher, CONFIG, BUDGET, None)
    assert segmenter_identity(data, random_teacher(), CONFIG, BUDGET, None) == first
    others = {
        segmenter_identity(data, other, CONFIG, BUDGET, None),
        segmenter_identity(data, teacher, replace(CONFIG, dice=1.0), BUDGET, None),
        segmenter_identity(data, teacher, CONFIG, Budget(steps=11), None),
        segmenter_identity(data, teacher, CONFIG, Budget(minutes=10), None),
        segmenter_identity(data, teacher, CONFIG, BUDGET, init),
        segmenter_identity(replace(data, photos=data.photos[1:]), teacher, CONFIG, BUDGET, None),
    }
    assert len(others | {first}) == 7


@pytest.mark.shared
@pytest.mark.slow
def test_it_learns_from_real_photos(shared: Path) -> None:
    """From a random start, a few photos and the real teacher: every phase's loss falls, and the masks fit."""
    config = replace(CONFIG, sides=(64,), photos=4, mosaic=0.0, paste=0.0, shares=(0.25, 0.35, 0.4))
    config = replace(config, features=0.3, meaning=0.1)  # of so few steps features would take the most
    data = load_data(shared / "data" / "nano_train", config)
    few = replace(data, photos=data.photos[:6], held=data.photos[:6])
    teacher = load_teacher(shared / "models" / "mobilenetv2-imagenet.safetensors")
    trained = train_segmenter(few, teacher, config, Budget(steps=120), pace=Pace(tell=5, judge=1000))
    rows = {phase: [row for row in trained.history if row["phase"] == phase] for phase in trained.steps}
    for name, phase in rows.items():
        totals = [row["total"] for row in phase if row["step"]]
        assert np.mean(totals[-2:]) < 0.95 * totals[0], (name, totals)
    start, end = rows["masks"][0]["held_out"], rows["masks"][-1]["held_out"]
    told = {"stride16", "stride32", "meaning"}
    assert rows["masks"][0]["step"] == 0 and rows["blocks"][-1]["held_out"].keys() == told
    assert end["best_of_three"] > start["best_of_three"] + 0.05, (start, end)
    assert not trained.nano.training


def test_minutes_are_turned_into_steps_once(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is timed is taken back: so many steps asked for in steps give the same weights."""
    monkeypatch.setattr(loop, "TRIAL", 3)
    monkeypatch.setattr(loop, "TIMED", 2)
    monkeypatch.setattr("gransam_sdk.training.nano.fit.steps_in", lambda seconds, each: 3)
    teacher, init = random_teacher(), Nano()
    budget = Budget(minutes=5.0)
    with pytest.raises(Stopped):
        train_segmenter(data, teacher, CONFIG, budget, init=init, pace=OFTEN, checkpoint=tmp_path, log=stop("masks 2"))
    monkeypatch.setattr("gransam_sdk.training.nano.fit.steps_in", lambda seconds, each: 99)
    timed = train_segmenter(data, teacher, CONFIG, budget, init=init, pace=OFTEN, checkpoint=tmp_path)
    counted = train_segmenter(data, teacher, CONFIG, Budget(steps=3), init=init, pace=OFTEN)
    assert timed.steps == counted.steps == {"masks": 3}
    assert same(timed.nano, counted.nano) and not same(timed.nano, init)


def test_a_training_that_diverged_says_so(data: TrainingData) -> None:
    init = Nano()
    init.mask_decoder.iou_head.layers[2].bias.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(GranSAMError, match="finite loss"):
        train_segmenter(data, random_teacher(), CONFIG, Budget(steps=1), init=init)


def test_every_parameter_is_trained_once() -> None:
    nano = Nano()
    groups = MaskPhase(random_teacher()).groups(nano, CONFIG)
    trained = [id(parameter) for part in groups for parameter in part["params"]]  # type: ignore[attr-defined]
    assert sorted(trained) == sorted(map(id, nano.parameters()))
    slow = {id(p) for part in groups if part["lr"] != CONFIG.mask_rate for p in part["params"]}  # type: ignore[attr-defined]
    encoder = nano.image_encoder
    assert slow == {id(p) for module in (encoder.stem, encoder.stages) for p in module.parameters()}
