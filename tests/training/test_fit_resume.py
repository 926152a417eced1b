"""A killed training goes on to the same bytes, and no other training takes its place."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bags_by_hand import noisy_bags, one_head
from safetensors.torch import save_file

from gransam_sdk.annotate import disk
from gransam_sdk.errors import OutputError
from gransam_sdk.training import checkpoint
from gransam_sdk.training.checkpoint import StageState, StageStore, training_identity
from gransam_sdk.training.config import HeadConfig
from gransam_sdk.training.fit import Fitted, fit_head

HERE = Path(__file__).parent
BAGS = noisy_bags(count=20)
CONFIG = one_head(epochs=3)


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


@pytest.mark.parametrize("config", [CONFIG, one_head(epochs=3, hold_out=0.3, weight_decay=0.01)])
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
    assert set(before) == {".lock", "teacher.safetensors", "student.safetensors"}
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


def saved(folder: Path) -> Path:
    """A stage's file, with a tensor of each kind that a checkpoint holds."""
    head = {"fc.weight": torch.randn(5, 3), "fc.bias": torch.zeros(5)}
    optimizer = {"0.step": torch.tensor(7.0), "0.exp_avg": torch.randn(5, 3)}
    state = StageState(epoch=7, score=0.25, stale=1, head=head, best={}, optimizer=optimizer)
    with StageStore(folder, "someone") as store:
        store.save("teacher", state)
        back = store.load("teacher")
    assert back is not None and (back.epoch, back.score, back.stale) == (7, 0.25, 1) and not back.best
    assert all(torch.equal(back.head[name], value) for name, value in head.items())
    assert all(torch.equal(back.optimizer[name], value) for name, value in optimizer.items())
    assert torch.equal(back.rng, state.rng)
    return folder / "teacher.safetensors"


def test_no_flipped_bit_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    rng = random.Random(0)
    places = [*range(header), *rng.sample(range(header, len(whole)), 300)]
    with StageStore(tmp_path, "someone") as store:
        for place in places:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
            with pytest.raises(OutputError, match="damaged"):
                store.load("teacher")
        path.write_bytes(whole)
        assert store.load("teacher") is not None


def test_another_version_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = training_identity(BAGS, CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
        saved(tmp_path)
        assert training_identity(BAGS, CONFIG) != identity, "the command does not even meet it"
    with StageStore(tmp_path, "someone") as store, pytest.raises(OutputError, match=r"format 2.*\n.*format 3"):
        store.load("teacher")


def test_two_identical_trainings_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    held = textwrap.dedent(f"""
        import sys, pathlib
        from gransam_sdk.training.checkpoint import StageStore
        store = StageStore(pathlib.Path({str(folder)!r}), "first")
        print("held", flush=True)
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", held]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE.parent.parent) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == b"held\n"
        half = folder / ".gransam-0123456789abcdef.tmp"
        half.write_bytes(b"what the first is writing")
        with pytest.raises(OutputError) as caught:
            fit_head(BAGS, CONFIG, checkpoint=folder)
        assert half.exists() and not list(folder.glob("*.safetensors")), "the second touched nothing"
        first.stdin.close()
    assert caught.value.what == f"checkpoint {folder}" and caught.value.exit_code == 6
    assert "held by another process" in caught.value.found and "wait for the other" in caught.value.do
    assert "-o" not in caught.value.do and "--cache" in caught.value.do
    assert fit_head(BAGS, CONFIG, checkpoint=folder).epochs == (3, 3) and not half.exists()


def test_the_lock_goes_with_the_store(tmp_path: Path) -> None:
    store = StageStore(tmp_path, "someone")
    with pytest.raises(OutputError, match="held by another process"):
        StageStore(tmp_path, "someone")
    store.close()
    store.close()
    with StageStore(tmp_path, "someone"):
        pass
    forgotten = StageStore(tmp_path, "someone")
    del forgotten
    StageStore(tmp_path, "someone").close()


def test_what_a_kill_left_is_swept_and_a_file_is_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / ".gransam-0123456789abcdef.tmp").write_bytes(b"half")
    fit_head(BAGS, one_head(epochs=1), checkpoint=folder)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "student.safetensors", "teacher.safetensors"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="file"):
        fit_head(BAGS, CONFIG, checkpoint=tmp_path / "file")


def test_a_full_disk_leaves_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_head(BAGS, CONFIG)
    lines: list[str] = []

    def full(function: Any, *arguments: Any, **settings: Any) -> Any:
        if function is os.write and len(lines) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_call", full)
        with pytest.raises(OutputError) as caught:
            fit_head(BAGS, CONFIG, checkpoint=tmp_path, log=lines.append)
    assert caught.value.what == f"checkpoint {tmp_path / 'teacher.safetensors'}" and "ENOSPC" in caught.value.found
    assert "free some space" in caught.value.do and "the epoch before is kept" in caught.value.do
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "teacher.safetensors"]
    del caught  # and with its traceback the store, which holds the lock
    resumed = fit_head(BAGS, CONFIG, checkpoint=tmp_path, log=lines.append)
    assert "teacher goes on after epoch 2" in lines
    assert same_head(whole, resumed)
