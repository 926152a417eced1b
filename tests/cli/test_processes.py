"""The command line in processes of its own: streams, signals, environments, terminals. The model is a fake one."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FAKE = Path(__file__).parent / "fake_gransam.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def gransam_process(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FAKE), *map(str, arguments)],
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def test_a_run_narrates_on_stderr_and_leaves_stdout_alone(photos: Path, run: Path) -> None:
    done = gransam_process("annotate", photos, "-o", run, "--overlays", "--to", "coco,voc")
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 photos: 3 annotated" in done.stderr
    assert "photos a second" in done.stderr
    assert "peak memory" in done.stderr
    for place in ("report.html", "overlays", "exports/coco.json", "exports/voc/SegmentationClass", "records"):
        assert str(run / place) in done.stderr
        assert (run / place).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_saved_and_goes_on(number: signal.Signals, code: int, photos: Path, run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(FAKE), "annotate", str(photos), "-o", str(run)],
        env={**ENVIRONMENT, "FAKE_SECONDS": "0.3"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(run.glob("records/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert 0 < len(list(run.glob("records/*.json"))) < 3
    done = gransam_process("annotate", photos, "-o", run)
    assert done.returncode == 0
    assert len(list(run.glob("records/*.json"))) == 3


@pytest.mark.parametrize("arguments", [["--help"], ["annotate", "--help"], ["--version"]])
def test_a_closed_stdout_ends_quietly(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode in (0, -signal.SIGPIPE)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_outlives_its_readers(stream: str, photos: Path, run: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    done = subprocess.run(
        [sys.executable, str(FAKE), "annotate", str(photos), "-o", str(run), "--json"],
        env=ENVIRONMENT,
        timeout=60,
        check=False,
        **pipes,
    )
    os.close(write)
    assert done.returncode == 0
    assert b"Traceback" not in (done.stderr or b"") and b"Exception" not in (done.stderr or b"")
    assert len(list(run.glob("records/*.json"))) == 3


def test_streams_that_were_never_open(photos: Path, run: Path) -> None:
    line = f'"{sys.executable}" "{FAKE}" annotate "{photos}" -o "{run}" --json <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", line], env=ENVIRONMENT, check=False, timeout=60).returncode == 0
    assert len(list(run.glob("records/*.json"))) == 3


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C"},
        {"HOME": "/nonexistent"},
        {"TMPDIR": "/nonexistent"},
        {"TERM": "dumb", "NO_COLOR": "1"},
    ],
    ids=lambda env: " ".join(f"{name}={value}" for name, value in env.items()),
)
def test_poor_environments(env: dict[str, str], photos: Path, run: Path) -> None:
    (photos / "blå – 猫.png").write_bytes((photos / "0.png").read_bytes())
    (photos / "1.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff\xfe.png"))
    without = {name: value for name, value in ENVIRONMENT.items() if name != "HOME" and not name.startswith("LC_")}
    done = subprocess.run(
        [sys.executable, str(FAKE), "annotate", str(photos), "-o", str(run), "-c", "blå=red", "--json"],
        env={**without, **env},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new"] == 4


def test_file_names_that_are_not_utf8_are_refused(photos: Path, run: Path) -> None:
    """Nothing in the house, but a user can: another encoding would give the same photo another name in the records."""
    done = gransam_process(
        "annotate", photos, "-o", run, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 5
    assert "PYTHONUTF8=1" in done.stderr
    assert not run.exists()


def test_a_terminal_gets_a_bar(photos: Path, run: Path) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(FAKE), "annotate", str(photos), "-o", str(run)],
        env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100", "FAKE_SECONDS": "0.1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the other side is gone
            break
        if not piece:
            break
        shown += piece
    os.close(controller)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "━" in text
    assert "3 of 3 photos" in text


def test_a_list_on_stdin(photos: Path, run: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FAKE), "annotate", "-", "-o", str(run), "-q"],
        input=f"{photos / '0.png'}\n{photos / '2.png'}\n",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(run.rglob("records/**/*.json"))) == 2


def test_the_launcher_is_three_lines() -> None:
    lines = (ROOT / "cli.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 3
    done = subprocess.run(
        [sys.executable, ROOT / "cli.py", "--version"], stdout=subprocess.PIPE, check=True, timeout=60
    )
    assert done.stdout.startswith(b"gransam-sdk ")
