"""The command line as a user meets it: streams, exit codes, messages, interruptions. The model is a fake one."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_gransam
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from gransam_sdk.cli import main
from gransam_sdk.commands.annotate import annotate, choose_classes
from gransam_sdk.commands.conf import parse_conf
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.types import Settings

ROOT = Path(__file__).parent.parent.parent
FAKE = Path(__file__).parent / "fake_gransam.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def gransam(
    *arguments: object, env: dict[str, str] | None = None, fake: bool = True
) -> subprocess.CompletedProcess[str]:
    script = FAKE if fake else ROOT / "cli.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def gransam_inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """``gransam`` in this process, where it can be patched: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["gransam", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped, signals_restored():
        main()
    printed = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, printed.out, printed.err


@contextlib.contextmanager
def signals_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGPIPE)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, color in enumerate([(220, 40, 40), (40, 70, 210), (40, 160, 60)]):
        pixels = np.full((40, 60, 3), 128, dtype=np.uint8)
        pixels[10:30, 15:45] = color
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_run_narrates_on_stderr_and_leaves_stdout_alone(photos: Path, run: Path) -> None:
    done = gransam("annotate", photos, "-o", run, "--overlays", "--to", "coco,voc")
    assert (done.returncode, done.stdout) == (0, "")
    assert "3 photos: 3 annotated" in done.stderr
    assert "photos a second" in done.stderr
    assert "peak memory" in done.stderr
    for place in ("report.html", "overlays", "exports/coco.json", "exports/voc/SegmentationClass", "records"):
        assert str(run / place) in done.stderr
        assert (run / place).exists()


def test_json_is_one_object_on_stdout(photos: Path, run: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff")
    done = gransam("annotate", photos, "-o", run, "--json", "-q")
    assert (done.returncode, done.stderr) == (3, "")
    report = json.loads(done.stdout)
    assert (report["photos"], report["new"], report["failed"], report["exit_code"]) == (4, 3, 1, 3)
    assert sum(report["failures"].values()) == 1
    assert report["run"] == str(run.resolve())


def test_a_second_run_goes_on(photos: Path, run: Path) -> None:
    assert gransam("annotate", photos, "-o", run, "--limit", "1").returncode == 0
    done = gransam("annotate", photos, "-o", run)
    assert done.returncode == 0
    assert "2 annotated, 1 recorded before" in done.stderr


def test_a_dry_run_writes_nothing(photos: Path, run: Path) -> None:
    done = gransam("annotate", photos, "-o", run, "--dry-run", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["photos"] == 3
    assert "3 to annotate" in done.stderr
    assert not run.exists()


def test_classes_from_a_file_given_either_way(photos: Path, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[class]]\nname = "warm"\nmembers = ["red", "yellow"]\n', encoding="utf-8")
    for arguments in (["-c", file], ["--classes-file", file]):
        done = gransam("annotate", photos, "-o", run, "--dry-run", *arguments)
        assert (done.returncode, "classes: warm\n" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["PHOTOS", "-o", "RUN", "-c", "rad"], 2, "red"),
        (["PHOTOS", "-o", "RUN", "--points-per-side", "0"], 2, "1 to 128"),
        (["PHOTOS", "-o", "RUN", "--points-per-side", "-1"], 2, "1 to 128"),
        (["PHOTOS", "-o", "RUN", "--points-per-side", "100000"], 2, "1 to 128"),
        (["PHOTOS", "-o", "RUN", "--points-per-side", "ten"], 2, "--points-per-side"),
        (["PHOTOS", "-o", "RUN", "--conf", "1.5"], 2, "above 0, up to 1"),
        (["PHOTOS", "-o", "RUN", "--conf", "nan"], 2, "above 0, up to 1"),
        (["PHOTOS", "-o", "RUN", "--conf", "red=-1"], 2, "above 0, up to 1"),
        (["PHOTOS", "-o", "RUN", "--conf", "0.4", "--conf", "0.5"], 2, "each threshold once"),
        (["PHOTOS", "-o", "RUN", "--conf", "rad=0.5"], 2, "rad"),
        (["PHOTOS", "-o", "RUN", "--nms-iou", "0"], 2, "nms_iou"),
        (["PHOTOS", "-o", "RUN", "--mask-choice", "best"], 2, "best_iou"),
        (["PHOTOS", "-o", "RUN", "--to", "coco,jpeg"], 2, "coco | voc"),
        (["PHOTOS", "-o", "RUN", "--limit", "0"], 2, "--limit"),
        (["PHOTOS", "-o", "RUN", "--progress", "loud"], 2, "auto, plain or none"),
        (["PHOTOS", "-o", "RUN", "--bogus"], 2, "--bogus"),
        (["PHOTOS"], 2, "--out"),
        (["-o", "RUN"], 2, "INPUT"),
        (["PHOTOS/nothing", "-o", "RUN"], 2, "nothing"),
        (["EMPTY", "-o", "RUN"], 2, "EMPTY"),
        (["PHOTOS", "-o", "PHOTOS/0.png"], 6, "a file"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    arguments: list[str],
    code: int,
    said: str,
    photos: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "EMPTY").mkdir()
    places = {"PHOTOS": str(photos), "RUN": str(run), "EMPTY": str(tmp_path / "EMPTY")}
    for name, place in places.items():
        arguments = [
            argument.replace(name, place) if not argument.startswith("-") else argument for argument in arguments
        ]
    monkeypatch.setattr("gransam_sdk.annotate.run.load", fake_gransam.load)
    found, answered, narrated = gransam_inside(monkeypatch, capsys, "annotate", *arguments)
    assert (found, answered) == (code, ""), narrated
    assert said in narrated or places.get(said, "?") in narrated
    assert "Traceback" not in narrated
    assert not (run / "records").exists()


def test_a_bundle_without_a_head_is_5_and_names_the_way_on(
    photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fake_bundle()
    graphs = {name: graph for name, graph in whole.graphs.items() if name != "head"}
    headless = dataclasses.replace(whole, graphs=graphs, classes=())
    monkeypatch.setattr("gransam_sdk.runtime.load.open_bundle", lambda _: headless)
    code, _, narrated = gransam_inside(monkeypatch, capsys, "annotate", photos, "-o", run)
    assert code == 5
    assert "gransam train" in narrated
    assert "--base" in narrated


def test_a_device_that_is_not_there_is_5(photos: Path, run: Path) -> None:
    """C5: with a CPU wheel, cuda is an error and never the CPU in silence."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    done = gransam("annotate", photos, "-o", run, "--device", "cuda", fake=False)
    assert done.returncode == 5
    assert "cuda" in done.stderr.lower()
    assert not (run / "records").exists()


def test_max_failures_stops_with_4(photos: Path, run: Path) -> None:
    for name in ("00.jpg", "01.jpg"):
        (photos / name).write_bytes(b"<html>")
    done = gransam("annotate", photos, "-o", run, "--max-failures", "1")
    assert done.returncode == 4
    assert "error: too many photos failed" in done.stderr


def test_another_run_in_the_folder_is_6(photos: Path, run: Path) -> None:
    gransam("annotate", photos, "-o", run)
    done = gransam("annotate", photos, "-o", run, "--nms-iou", "0.9")
    assert done.returncode == 6
    assert "nms_iou: 0.5 → 0.9" in done.stderr


@pytest.mark.parametrize("arguments", [["--bundle", "no-such-bundle"], ["--bundle", "PHOTOS"]])
def test_a_bundle_that_is_none_is_5(arguments: list[str], photos: Path, run: Path) -> None:
    arguments = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    done = gransam("annotate", photos, "-o", run, *arguments, fake=False)
    assert done.returncode == 5
    assert "expected:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_internal_error_is_one_line_and_1(photos: Path, run: Path) -> None:
    done = gransam("annotate", photos, "-o", run, env={"FAKE_FAULT": "KeyError"})
    assert done.returncode == 1
    assert "error: internal error: KeyError: " in done.stderr
    assert "GRANSAM_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    again = gransam("annotate", photos, "-o", run, env={"FAKE_FAULT": "KeyError", "GRANSAM_DEBUG": "1"})
    assert again.returncode == 1
    assert "Traceback" in again.stderr


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
    done = gransam("annotate", photos, "-o", run)
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
    done = gransam("annotate", photos, "-o", run, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
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


def test_the_options_default_to_the_settings_defaults() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(annotate).parameters.items()}
    settings = Settings()
    for name in ("points_per_side", "mask_choice", "nms_iou", "containment", "join_fragments"):
        assert defaults[name] == getattr(settings, name), name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, (None, {})),
        (["0.5"], (0.5, {})),
        (["cat=0.5", "1", "dog=0.25"], (1.0, {"cat": 0.5, "dog": 0.25})),
        (["a=b=0.5"], (None, {"a=b": 0.5})),
    ],
)
def test_conf_is_one_number_or_by_class(
    values: list[str] | None, expected: tuple[float | None, dict[str, float]]
) -> None:
    assert parse_conf(values) == expected


@pytest.mark.parametrize("values", [["=0.5"], ["cat="], ["cat"], ["0"], ["inf"], ["cat=0.5", "cat=0.5"]])
def test_conf_that_means_nothing(values: list[str]) -> None:
    with pytest.raises(InputError):
        parse_conf(values)


@pytest.mark.parametrize(
    ("specs", "file"),
    [(["a.toml", "b.toml"], None), (["a.toml", "cat"], None), (["cat"], "a.toml"), (["a.toml"], "b.toml")],
)
def test_classes_from_one_place_only(specs: list[str], file: str | None) -> None:
    with pytest.raises(InputError, match="classes"):
        choose_classes(specs, file)


def test_eval_wants_a_kind_of_ground_truth(tmp_path: Path) -> None:
    done = gransam("eval", tmp_path, "--gt", str(tmp_path))
    assert done.returncode == 2
    assert "voc:DIR" in done.stderr


def test_eval_of_what_is_no_run(tmp_path: Path) -> None:
    done = gransam("eval", tmp_path / "nothing", "--gt", f"voc:{tmp_path}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_doctor_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    done = gransam("doctor", tmp_path, fake=False)
    assert done.returncode == 5
    assert "CPUExecutionProvider" in done.stdout
    assert f"bundle {tmp_path}: refused" in done.stdout
    assert "do this:" in done.stderr


def test_the_launcher_is_three_lines() -> None:
    lines = (ROOT / "cli.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line]) <= 3
    assert gransam("--version", fake=False).stdout.startswith("gransam-sdk ")
