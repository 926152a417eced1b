"""``kill -9``, Ctrl-C and SIGTERM in real processes: what is left is resumed to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_trial import try_kills
from run_server import RunServer
from stand_in import annotate, make_photos, record_names, tree

from gransam_sdk.annotate.record import parse_record


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    with RunServer() as server:
        yield server


def temporary(out: Path) -> list[Path]:
    return list(out.rglob(".gransam-*"))


def test_20_kills_at_random_moments(server: RunServer, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 37)
    trial = try_kills(server, photos, tmp_path, kills=20)
    assert trial.total == 37
    assert len(trial.partial) == 20
    assert all(0 < count < 37 for count in trial.partial)
    assert len(set(trial.partial)) > 5, "the moments were hardly random"
    assert trial.same
    assert all(trial.same)
    assert not temporary(tmp_path)


def test_a_kill_before_and_after_every_file_operation(server: RunServer, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2, bad={"a/cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"})
    annotate(photos, tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    swept = 0
    for kill_at in range(1000):
        out = tmp_path / f"run-{kill_at}"
        ended = server.wait(server.start(photos, out, kill_at=kill_at))
        if ended != -signal.SIGKILL:
            break
        swept += len(temporary(out))
        for name in record_names(out):
            parse_record((out / "records" / name).read_bytes())
        annotate(photos, out)
        assert tree(out) == expected, f"after a kill at operation {kill_at}"
        assert not temporary(out)
    assert ended == 3
    assert kill_at > 100
    assert swept > 10, "no kill hit a file that was being written"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_signal_saves_the_state(server: RunServer, tmp_path: Path, number: int, code: int) -> None:
    photos = make_photos(tmp_path / "photos", 17)
    annotate(photos, tmp_path / "whole")
    expected = tree(tmp_path / "whole")
    rng = random.Random(number)
    interrupted = 0
    for attempt in range(10):
        out = tmp_path / f"run-{attempt}"
        pid = server.start(photos, out, seconds=0.004)
        while not record_names(out):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(pid, number)
        ended = server.wait(pid)
        assert ended in (code, 3)
        run = json.loads((out / "run.json").read_text())
        if run["status"] != "finished":
            interrupted += 1
            assert (ended, run["status"]) == (code, "interrupted")
            # the signal may fall between a photo's record or failure and its count
            lines = (out / "failures.jsonl").read_text().splitlines()
            assert run["counts"]["new"] <= len(record_names(out)) <= run["counts"]["new"] + 1
            assert run["counts"]["failed"] <= len(lines) <= run["counts"]["failed"] + 1
        annotate(photos, out)
        assert tree(out) == expected
        assert not temporary(out)
    assert interrupted >= 5
