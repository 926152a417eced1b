"""A killed training goes on to the same bytes, and no other training takes its place."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bags_by_hand import noisy_bags
from safetensors.torch import save_file

from gransam_sdk.annotate.disk import OutputStream
from gransam_sdk.errors import OutputError
from gransam_sdk.training.checkpoint import StageState, StageStore, training_identity
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.fit import Fitted, fit_head

HERE = Path(__file__).parent
BAGS = noisy_bags(count=20)
CONFIG = HeadConfig(epochs=3)


def same_head(first: Fitted, second: Fitted) -> bool:
    states = first.head.state_dict(), second.head.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "kill_fit.py", tmp_path, "8"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert found["partial"] >= 8, "a kill counts that came after an epoch was saved and before the end"
    assert found["moments"] > 4, "the moments were hardly random"
    assert found["same"] and all(found["same"])
    assert found["left"] == 0, "half-written files are swept"


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("config", [CONFIG, HeadConfig(epochs=3, hold_out=0.3, weight_decay=0.01)])
def test_interrupted_after_every_epoch(tmp_path: Path, config: HeadConfig) -> None:
    whole = fit_head(BAGS, config)
    epochs: list[str] = []

    def stop_after_one(line: str) -> None:
        if "loss" in line:
            epochs.append(line.split("/")[0])
            raise Interrupted

    for _ in range(6):
        with pytest.raises(Interrupted):
            fit_head(BAGS, config, checkpoint=tmp_path, log=stop_after_one)
    resumed = fit_head(BAGS, config, checkpoint=tmp_path, log=stop_after_one)
    assert epochs == [f"{stage} epoch {epoch}" for stage in ("teacher", "student") for epoch in (1, 2, 3)]
    assert same_head(whole, resumed)
    assert (resumed.epochs, resumed.held_out_accuracy) == (whole.epochs, whole.held_out_accuracy)


@pytest.mark.parametrize(("part", "value"), [("optimizer", {}), ("rng", torch.Generator().manual_seed(7).get_state())])
def test_a_state_without_a_part_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, value: object
) -> None:
    """The trials above can fail: without Adam's tensors, or with other random numbers, the head is another."""
    config = replace(CONFIG, uncertainty_weight=0.0)

    def stop(line: str) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        fit_head(BAGS, config, checkpoint=tmp_path, log=stop)
    load = StageStore.load

    def forgetful(store: StageStore, stage: str) -> StageState | None:
        state = load(store, stage)
        setattr(state, part, value)
        return state

    monkeypatch.setattr(StageStore, "load", forgetful)
    resumed = fit_head(BAGS, config, checkpoint=tmp_path)
    monkeypatch.undo()
    assert not same_head(fit_head(BAGS, config), resumed)


def test_another_training_is_refused(tmp_path: Path) -> None:
    fit_head(BAGS, CONFIG, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"teacher.safetensors", "student.safetensors"}
    with pytest.raises(OutputError, match="another training"):
        fit_head(BAGS, replace(CONFIG, seed=1), checkpoint=tmp_path)
    with pytest.raises(OutputError, match="another training"):
        fit_head(noisy_bags(seed=1, count=20), CONFIG, checkpoint=tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_identity_covers_setting_pictures_and_labels() -> None:
    bags = noisy_bags(count=10)
    changed = bags.instances.copy()
    changed[3, 2, 1] += 1
    others = [
        training_identity(bags, replace(CONFIG, dropout=0.1)),
        training_identity(replace(bags, instances=changed), CONFIG),
        training_identity(replace(bags, labels=bags.labels[::-1].copy()), CONFIG),
        training_identity(replace(bags, classes=("a", "b", "c", "d")), CONFIG),
        training_identity(replace(bags, token_width=8), CONFIG),
    ]
    assert len({training_identity(bags, CONFIG), *others}) == 6
    assert training_identity(noisy_bags(count=10), CONFIG) == training_identity(bags, CONFIG)


@pytest.mark.parametrize("data", [b"", b"no checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_says_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "teacher.safetensors").write_bytes(data)
    with pytest.raises(OutputError, match="damaged"):
        fit_head(BAGS, CONFIG, checkpoint=tmp_path)


def test_a_header_without_its_keys_is_damage(tmp_path: Path) -> None:
    save_file({"rng": torch.zeros(1)}, tmp_path / "teacher.safetensors", {"gransam": "{}"})
    with pytest.raises(OutputError, match="damaged"):
        fit_head(BAGS, CONFIG, checkpoint=tmp_path)


def test_what_a_kill_left_is_swept_and_a_file_is_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / ".gransam-0123456789abcdef.tmp").write_bytes(b"half")
    fit_head(BAGS, HeadConfig(epochs=1), checkpoint=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["student.safetensors", "teacher.safetensors"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        fit_head(BAGS, CONFIG, checkpoint=tmp_path / "file")


def test_a_full_disk_leaves_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_head(BAGS, CONFIG)
    lines: list[str] = []
    placed = OutputStream.place

    def full(stream: OutputStream) -> None:
        if len(lines) == 2:
            raise OutputError("disk full")
        placed(stream)

    with monkeypatch.context() as patch:
        patch.setattr(OutputStream, "place", full)
        with pytest.raises(OutputError, match="disk full"):
            fit_head(BAGS, CONFIG, checkpoint=tmp_path, log=lines.append)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.safetensors"]
    resumed = fit_head(BAGS, CONFIG, checkpoint=tmp_path, log=lines.append)
    assert "teacher goes on after epoch 2" in lines
    assert same_head(whole, resumed)
