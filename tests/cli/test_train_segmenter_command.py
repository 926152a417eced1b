"""``gransam train-segmenter`` from a folder of label maps to a checkpoint, and what it says of what it cannot use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from discs import random_teacher, write_data
from nano_random import random_nano
from PIL import Image
from safetensors.torch import load_file, save_file

from gransam_sdk.models.nano import Nano
from gransam_sdk.models.nano_checkpoint import read_checkpoint

Gransam = Callable[..., Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, ``teacher.safetensors``, ``init.safetensors`` and an unlabelled photo."""
    root = tmp_path_factory.mktemp("files")
    write_data(root / "data", 6)
    save_file(random_teacher().state_dict(), root / "teacher.safetensors")
    save_file(
        {name: value.contiguous() for name, value in random_nano().state_dict().items()}, root / "init.safetensors"
    )
    (root / "more").mkdir()
    Image.new("RGB", (90, 70), (10, 90, 200)).save(root / "more" / "plain.png")
    (root / "more" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    return root


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How often the allocator was told: the tests' own process must not keep memory, others measure it."""
    told: list[bool] = []
    monkeypatch.setattr("gransam_sdk.training.allocator.keep_freed_memory", lambda: told.append(True))
    return told


@pytest.fixture
def train(gransam: Gransam, files: Path, tmp_path: Path) -> Gransam:
    """Trains a few small steps, into ``nano.safetensors``."""

    def call(*arguments: object, data: str = "data", budget: tuple[object, ...] = ("--steps", 3)) -> Any:
        small = ("--batch", 2, "--clicks", 2, "--sides", "64", "--workers", 0, "--device", "cpu")
        paths = ("-o", tmp_path / "nano.safetensors", "--cache", tmp_path / "cache")
        return gransam(
            "train-segmenter",
            files / data,
            *paths,
            "--teacher",
            files / "teacher.safetensors",
            *small,
            *budget,
            *arguments,
        )

    return call


@pytest.mark.slow
def test_from_label_maps_to_a_checkpoint(train: Gransam, files: Path, tmp_path: Path, told: list[bool]) -> None:
    done = train("--unlabelled", files / "more")
    assert told == [True]
    assert done.code == 0, done.err
    assert "skipped torn.jpg" in done.err and "1 unlabelled" in done.err
    file = tmp_path / "nano.safetensors"
    tensors = load_file(file)
    assert set(tensors) == set(Nano().state_dict())
    assert {value.dtype for value in tensors.values()} == {torch.float16, torch.int64}
    nano = read_checkpoint(file)
    assert torch.isfinite(nano(torch.zeros(1, 3, 64, 64), torch.rand(2, 2))[2]).all()
    log = json.loads((tmp_path / "nano.json").read_text())
    assert log["steps"] == {"blocks": 1, "encoder": 1, "masks": 1} and log["device"] == "cpu"
    assert log["data"]["photos"]["unlabelled"] == 1 and log["config"]["sides"] == [64]
    assert [row["phase"] for row in log["history"]] == ["blocks", "encoder", "masks"]
    assert not list((tmp_path / "cache" / "training").iterdir()), "what is done needs no checkpoint"
    first = file.read_bytes()
    again = train("--unlabelled", files / "more")
    assert again.code == 2 and "--overwrite" in again.err
    assert train("--unlabelled", files / "more", "--overwrite").code == 0
    assert file.read_bytes() == first
    assert train("--unlabelled", files / "more", "--overwrite", "--seed", 1).code == 0
    assert (file.read_bytes() == first) is False


def test_a_checkpoint_to_start_from(train: Gransam, files: Path, tmp_path: Path) -> None:
    done = train("--init", files / "init.safetensors", budget=("--steps", 1))
    assert done.code == 0, done.err
    log = json.loads((tmp_path / "nano.json").read_text())
    assert log["steps"] == {"masks": 1} and log["init_sha256"]
    start, trained = random_nano().state_dict(), load_file(tmp_path / "nano.safetensors")
    name = "mask_decoder.hypernetworks.1.layers.0.weight"
    assert 0 < (trained[name].float() - start[name]).abs().max() < 0.05


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("-o", "nano.pt"), 2, ".safetensors"),
        (("-o", "nowhere/nano.safetensors"), 2, "no folder nowhere"),
        (("--minutes", 1), 2, "not both"),
        (("--sides", "100"), 2, "sides"),
        (("--sides", "64,"), 2, "--sides"),
        (("--teacher", "data"), 2, "MobileNetV2"),
        (("--init", "teacher.safetensors"), 2, "nano segmenter"),
        (("--unlabelled", "nothing"), 2, "nothing"),
        (("--device", "tpu"), 2, "cuda:N"),
        (("--device", "cuda:77"), 5, "CUDA device"),
    ],
)
def test_what_cannot_be_used(
    train: Gransam, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(files)
    done = train(*arguments)
    assert done.code == code and words in done.err, done.err


def test_data_that_is_not_there(train: Gransam) -> None:
    done = train(data="more")
    assert done.code == 2 and "index.jsonl" in done.err


@pytest.mark.slow
def test_stopped_and_resumed(train: Gransam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gransam_sdk.training.nano.mask_phase.segment", stop)
        done = train()
    assert done.code == 130 and "goes on from there" in done.err
    resumed = train()
    lines = resumed.err.splitlines()
    assert resumed.code == 0 and any(line.startswith("encoder goes on after step 1 of 1") for line in lines)
    assert not any(line.startswith("blocks 1/1") for line in lines)
    found = (tmp_path / "nano.safetensors").read_bytes()
    assert train("--overwrite").code == 0 and (tmp_path / "nano.safetensors").read_bytes() == found
