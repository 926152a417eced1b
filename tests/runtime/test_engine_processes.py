"""Several processes that need one engine: one builds, the others wait, and a killed one is no hindrance."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import engine_race
import pytest
from engine_site import Site

from gransam_sdk.runtime import engine_folder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "home")


def start(folder: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, engine_race.__file__, str(folder), str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_eight_processes_one_builds(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    racers = [start(site.folder, log, 1.5) for _ in range(8)]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    log.with_suffix(".go").touch()
    answers = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert log.read_text() == "built\n"
    assert sorted(built for built, _ in answers) == ["False"] * 7 + ["True"]
    assert len({sha256 for _, sha256 in answers}) == 1


def test_when_the_builder_is_killed_another_builds(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.with_suffix(".go").touch()
    first = start(site.folder, log, 60)
    while not log.exists() or not log.read_text():
        assert first.poll() is None
        time.sleep(0.01)
    second = start(site.folder, log, 0)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60)[0].split()[:2] == ["ready", "True"]
    assert log.read_text() == "built\n" * 2


def test_waiting_for_another_process_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_folder, "_PATIENCE_S", 0.0)
    site.fetch()
    assert len(site.lines) == 1  # nobody held it
    with site.file("lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (other.fileno(), fcntl.LOCK_UN)).start()
        began = time.monotonic()
        assert not site.fetch().built
        assert time.monotonic() - began > 0.2
    assert site.lines[1:] == ["engine for pets-head: another process is building it; waiting"]
