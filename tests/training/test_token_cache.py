"""The token cache: nothing is run twice, nothing half written is read, nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import make_pictures, write_picture

from gransam_sdk.annotate import disk
from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.bundle import Bundle
from gransam_sdk.errors import EnvironmentFault, MissingExtraError, OutputError
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import FakeSession
from gransam_sdk.runtime.model import Model, Prompts
from gransam_sdk.training import extra, token_cache
from gransam_sdk.training.token_cache import CachePlan, default_cache
from gransam_sdk.training.token_shard import PictureTokens, TokenShape, pack_shard
from gransam_sdk.training.tokens import Bags, extract_bags

HERE = Path(__file__).parent


class Bench:
    """Six pictures, a cache, and a model that counts."""

    def __init__(self, work: Path) -> None:
        self.pictures = make_pictures(work / "pictures")
        self.cache = work / "cache"

    def run(self, bundle: Bundle | None = None, **options: Any) -> tuple[Bags, int]:
        """Bags, and how many pictures went through the image graph."""
        bundle = bundle or fake_bundle()
        sessions = {name: FakeSession(bundle, name) for name in bundle.graphs}
        bags = extract_bags(Model(bundle, sessions), self.pictures, scenes=False, cache=self.cache, **options)
        assert bool(sessions["prompt"].runs) == bool(sessions["image"].runs)
        assert not any(session.runs for name, session in sessions.items() if name in ("mask", "head"))
        return bags, sessions["image"].runs

    @property
    def shards(self) -> list[Path]:
        return sorted(self.cache.rglob("*.safetensors"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(token_cache, "SHARD_PICTURES", 2)
    return Bench(tmp_path)


def same(a: Bags, b: Bags) -> bool:
    arrays = ((bags.instances.tobytes(), bags.rim.tobytes(), bags.labels.tolist()) for bags in (a, b))
    return next(arrays) == next(arrays)


def test_a_second_pass_runs_no_graph_and_writes_nothing(bench: Bench) -> None:
    first, runs = bench.run()
    assert (runs, len(bench.shards)) == (6, 3)
    (about,) = bench.cache.rglob("run.json")
    os.utime(about, (0, 0))
    before = {path: path.stat().st_mtime_ns for path in bench.cache.rglob("*")}
    data = about.read_bytes()
    second, runs = bench.run()
    assert runs == 0 and same(first, second)
    after = {path: path.stat().st_mtime_ns for path in bench.cache.rglob("*")}
    assert time.time_ns() - after.pop(about) < 60e9 and before.pop(about) == 0, "its time is that of its last use"
    assert after == before and about.read_bytes() == data


def test_where_the_cache_is(own_cache: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    bench.cache = None  # type: ignore[assignment]
    assert bench.run()[1] == 6
    assert len(list(own_cache.rglob("*.safetensors"))) == 3
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    monkeypatch.setenv("GRANSAM_HOME", "")
    assert default_cache() == Path.home() / ".cache" / "gransam"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(EnvironmentFault, match="--cache"):
        default_cache()


def test_the_head_and_the_name_change_nothing_everything_else_does(bench: Bench) -> None:
    plain = fake_bundle()
    assert bench.run(plain)[1] == 6
    graphs = {name: graph for name, graph in plain.graphs.items() if name != "head"}
    assert bench.run(replace(plain, graphs=graphs, digest="1" * 64, name="other", classes=()))[1] == 0
    others = [replace(plain, graphs={**graphs, name: replace(graphs[name], sha256="1" * 64)}) for name in graphs]
    expected = {"image": 6, "prompt": 6, "mask": 0}
    assert {name: bench.run(other)[1] for name, other in zip(graphs, others, strict=True)} == expected
    assert bench.run(replace(plain, preprocess=replace(plain.preprocess, mean=(0.0, 0.0, 0.0))))[1] == 6
    finer = bench.run(fake_bundle(points_per_side=7))
    assert finer[1] == 6 and finer[0].instances.shape[1] == 49
    assert len(list((bench.cache / "tokens").iterdir())) == 5
    assert bench.run(plain)[1] == 0, "the first entry is still there"


def test_another_version_of_the_engine_has_its_own_tokens(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.run()[1] == 6
    with monkeypatch.context() as patch:
        patch.setattr("gransam_sdk.training.cache_key.version", lambda name: "0.0.1")
        assert [bench.run()[1] for _ in range(2)] == [6, 0]
    assert bench.run()[1] == 0, "the first one's are still there"


def test_a_moved_picture_is_known_and_a_changed_one_is_done_again(bench: Bench) -> None:
    first, _ = bench.run()
    (bench.pictures / "red" / "0.png").rename(bench.pictures / "red" / "moved.png")
    moved, runs = bench.run()
    assert runs == 0
    assert np.array_equal(moved.instances, first.instances[[0, 1, 2, 4, 5, 3]])
    write_picture(bench.pictures / "red" / "moved.png", (200, 60, 60), 9)
    changed, runs = bench.run()
    assert runs == 1
    assert np.array_equal(changed.instances[:5], moved.instances[:5])
    assert not np.array_equal(changed.instances[5], moved.instances[5])


def test_a_picture_that_changes_during_the_pass_is_left_out(bench: Bench) -> None:
    last = bench.pictures / "red" / "2.png"
    bags, runs = bench.run(announce=lambda plan: write_picture(last, (1, 2, 3)))
    assert runs == 5 and bags.skipped == ((str(last), "changed"),)


@pytest.mark.parametrize("damage", ["half", "empty", "flip", "header", "longer"])
def test_a_damaged_shard_is_redone(bench: Bench, damage: str) -> None:
    first, _ = bench.run()
    shard = bench.shards[1]
    data = shard.read_bytes()
    damaged = {
        "half": data[: len(data) // 2],
        "empty": b"",
        "flip": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        "header": b"\xff" * 8 + data[8:],
        "longer": data + b"\0",
    }
    shard.write_bytes(damaged[damage])
    again, runs = bench.run()
    assert runs == 2 and same(first, again)
    assert shard.read_bytes() == data, "written anew, under the same name"
    assert bench.run()[1] == 0


def test_what_is_not_ours_stays(bench: Bench) -> None:
    bench.run()
    foreign = bench.shards[0].with_name("notes.safetensors")
    foreign.write_bytes(b"mine")
    write_picture(bench.pictures / "red" / "new.png", (9, 9, 9))
    assert bench.run()[1] == 1
    assert foreign.read_bytes() == b"mine"


def test_killed_passes_resume_to_the_same_bags() -> None:
    root = HERE.parent.parent
    done = subprocess.run(
        [sys.executable, str(HERE / "cache_kills.py")],
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trial = json.loads(done.stdout)
    assert trial["ended"] == 0, "a pass that no kill reached ends well"
    assert trial["operations"] > 40 and len(trial["same"]) > trial["operations"]
    assert all(trial["same"])
    assert set(trial["shards"]) == {0, 1, 2}, "kills fell before, between and after shards"
    assert trial["torn"] > 5 and trial["left"] == 0, "unfinished files were there, and swept"


def failing(name: str, number: int) -> Any:
    """A disk that refuses the n-th write of a shard."""
    writes = 0

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        if function is os.write and len(args[1]) > 2000:  # run.json is shorter
            writes += 1
            if writes == number:
                raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        return function(*args, **kwargs)

    return call


def test_a_full_disk_is_said_and_nothing_is_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.run()[0]
    shutil.rmtree(bench.cache)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "_call", failing("ENOSPC", 2))
        with pytest.raises(OutputError) as caught:
            bench.run()
    assert "ENOSPC" in caught.value.found and "free some space" in caught.value.do
    assert "the tokens that were written are kept" in caught.value.do
    assert caught.value.what.startswith(f"token cache {bench.cache}")
    assert len(bench.shards) == 1 and not list(bench.cache.rglob(".gransam-*"))
    again, runs = bench.run()
    assert runs == 4 and same(whole, again)


def test_the_size_is_told_and_checked_before_it_starts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[CachePlan] = []
    told: list[tuple[int, int]] = []
    bench.run(announce=plans.append, progress=lambda *counts: told.append(counts))
    assert told == [(done, 6) for done in range(7)]
    (plan,) = plans
    assert (plan.pictures, plan.cached) == (6, 0) and plan.free > 0
    written = sum(path.stat().st_size for path in bench.shards)
    assert plan.bytes <= written < plan.bytes + 3 * 600
    shutil.rmtree(bench.cache)
    monkeypatch.setattr(token_cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, plan.bytes - 1))
    with pytest.raises(OutputError, match="MB free for the tokens of 6 pictures") as caught:
        bench.run()
    assert "--cache" in caught.value.do and not bench.cache.exists()


def test_a_cache_that_cannot_be_used_names_the_option(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    write_picture(bench.pictures / "red" / "new.png", (9, 9, 9))
    (entry,) = (bench.cache / "tokens").iterdir()
    with OutputFolder.open(entry), pytest.raises(OutputError, match=r"held by another process.*\n.*--cache"):
        bench.run()
    bench.cache = tmp_path / "file"
    bench.cache.touch()
    with pytest.raises(OutputError, match=r"a file\n.*--cache"):
        bench.run()
    bench.cache = tmp_path / "file" / "below"
    with pytest.raises(OutputError, match="--cache"):
        bench.run()


def test_a_slow_segmenter_writes_shards_by_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHARD_PICTURES", 64)
    monkeypatch.setattr(token_cache, "SHARD_SECONDS", 0.0)
    bench.run()
    assert len(bench.shards) == 6


def test_numbers_too_large_for_16_bits_are_a_bad_picture(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Model.prompt

    def huge(self: Model, *args: Any, **kwargs: Any) -> Any:
        for part in plain(self, *args, **kwargs):
            factor = 1e6 if part.tokens[-1, 0, 0] > 0.5 else 1.0  # the red pictures
            yield Prompts(
                points=part.points, tokens=part.tokens * np.float32(factor), iou=part.iou, lattice=part.lattice,
                features=part.features, state=part.state,
            )  # fmt: skip

    write_picture(bench.pictures / "red" / "dark.png", (9, 9, 9))
    monkeypatch.setattr(Model, "prompt", huge)
    bags, _ = bench.run()
    assert bags.labels.tolist() == [0, 0, 0, 1]
    assert [reason for _, reason in bags.skipped] == ["non-finite"] * 3


def test_without_safetensors_the_extra_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    find = extra.importlib.util.find_spec
    monkeypatch.setattr(
        extra.importlib.util, "find_spec", lambda name, *rest: None if name == "safetensors" else find(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"gransam-sdk\[train\]"):
        bench.run()
    assert not bench.cache.exists()


def test_bytes_of_a_picture_at_sams_size() -> None:
    shape = TokenShape(prompts=100, token_width=256, feature_width=256)
    assert shape.picture_bytes == 100 * (1024 * 2 + 4 * 256 * 2 + 16 + 4 + 8) + 67
    picture = PictureTokens(**{name: np.zeros(size, dtype=dtype) for name, (size, dtype) in shape.arrays.items()})
    name, data = pack_shard({f"{i:064x}": picture for i in range(3)})
    assert 0 <= len(data) - 3 * shape.picture_bytes < 600
    assert name == pack_shard({f"{i:064x}": picture for i in range(3)})[0]
