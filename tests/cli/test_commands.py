"""Commands as a user meets them: results, exit codes, messages. The model is a fake one."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from bundles import HeadKind, calibrated, good_parts, write_good

from gransam_sdk.annotate.tally import RunReport
from gransam_sdk.commands.annotate import annotate, choose_classes
from gransam_sdk.commands.conf import parse_conf
from gransam_sdk.commands.summary import report_lines
from gransam_sdk.errors import InputError
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.types import Settings

Gransam = Callable[..., Any]


def test_json_is_one_object_on_stdout(gransam: Gransam, photos: Path, run: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff")
    done = gransam("annotate", photos, "-o", run, "--json", "-q")
    assert (done.code, done.err) == (3, "")
    report = json.loads(done.out)
    assert (report["photos"], report["new"], report["failed"], report["exit_code"]) == (4, 3, 1, 3)
    assert sum(report["failures"].values()) == 1
    assert report["run"] == str(run.resolve())


def test_a_second_run_goes_on(gransam: Gransam, photos: Path, run: Path) -> None:
    assert gransam("annotate", photos, "-o", run, "--limit", "1").code == 0
    done = gransam("annotate", photos, "-o", run)
    assert done.code == 0
    assert "2 annotated, 1 recorded before" in done.err
    again = gransam("annotate", photos, "-o", run)
    assert "3 photos: 3 recorded before\n" in again.err, "nothing was annotated, so no masks are counted either"


def test_the_summary_fits_a_narrow_terminal() -> None:
    stages = {name: 1234.5 - i for i, name in enumerate(["image graph", "prompt graph", "mask graph", "export"])}
    stages |= {f"{name} again": seconds / 2 for name, seconds in stages.items()}
    done = RunReport(
        run=Path(), new=9, redone=0, done=0, failed=0, masks=7, timings=stages, seconds=2.0, photos_per_second=4.5,
        peak_memory_bytes=1 << 28,
    )  # fmt: skip
    lines = report_lines(done, "run")
    assert lines[0] == "9 photos: 9 annotated; 7 masks recorded"
    assert max(map(len, lines)) <= 78
    listed = [part.strip() for line in lines if line.startswith("  ") for part in line.split(",")]
    assert {f"{name} {seconds:.2f}" for name, seconds in stages.items()} <= set(listed)


def test_a_dry_run_writes_nothing(gransam: Gransam, photos: Path, run: Path) -> None:
    done = gransam("annotate", photos, "-o", run, "--dry-run", "--json")
    assert done.code == 0
    assert json.loads(done.out)["photos"] == 3
    assert "3 to annotate" in done.err
    assert not run.exists()


def test_classes_from_a_file_given_either_way(gransam: Gransam, photos: Path, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[class]]\nname = "warm"\nmembers = ["red", "yellow"]\n', encoding="utf-8")
    for arguments in (["-c", file], ["--classes-file", file]):
        done = gransam("annotate", photos, "-o", run, "--dry-run", *arguments)
        assert (done.code, "classes: warm\n" in done.err) == (0, True), done.err


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
        (["PHOTOS", "-o", "RUN", "--pred-iou-thresh", "-1"], 2, "pred_iou_thresh"),
        (["PHOTOS", "-o", "RUN", "--stability-score-thresh", "2"], 2, "stability_score_thresh"),
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
    gransam: Gransam,
    photos: Path,
    run: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "EMPTY").mkdir()
    places = {"PHOTOS": str(photos), "RUN": str(run), "EMPTY": str(tmp_path / "EMPTY")}
    for name, place in places.items():
        arguments = [
            argument.replace(name, place) if not argument.startswith("-") else argument for argument in arguments
        ]
    done = gransam("annotate", *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert said in done.err or places.get(said, "?") in done.err
    assert "Traceback" not in done.err
    assert not (run / "records").exists()


def test_a_bundle_without_a_head_is_5_and_names_the_way_on(
    gransam: Gransam, photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fake_bundle()
    graphs = {name: graph for name, graph in whole.graphs.items() if name != "head"}
    headless = dataclasses.replace(whole, graphs=graphs, head=None, classes=())
    monkeypatch.setattr("gransam_sdk.runtime.load.open_bundle", lambda _: headless)
    done = gransam("annotate", photos, "-o", run, fake=False)
    assert done.code == 5
    assert "gransam train" in done.err
    assert "--base" in done.err


def test_a_device_that_is_not_there_is_5(gransam: Gransam, photos: Path, run: Path) -> None:
    """C5: with a CPU wheel, cuda is an error and never the CPU in silence."""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    done = gransam("annotate", photos, "-o", run, "--device", "cuda", fake=False)
    assert done.code == 5
    assert "cuda" in done.err.lower()
    assert not (run / "records").exists()


def test_max_failures_stops_with_4(gransam: Gransam, photos: Path, run: Path) -> None:
    for name in ("00.jpg", "01.jpg"):
        (photos / name).write_bytes(b"<html>")
    done = gransam("annotate", photos, "-o", run, "--max-failures", "1")
    assert done.code == 4
    assert "error: too many photos failed" in done.err


def test_another_run_in_the_folder_is_6(gransam: Gransam, photos: Path, run: Path) -> None:
    gransam("annotate", photos, "-o", run)
    done = gransam("annotate", photos, "-o", run, "--nms-iou", "0.9")
    assert done.code == 6
    assert "nms_iou: 0.5 → 0.9" in done.err


@pytest.mark.parametrize("arguments", [["--bundle", "no-such-bundle"], ["--bundle", "PHOTOS"]])
def test_a_bundle_that_is_none_is_5(gransam: Gransam, arguments: list[str], photos: Path, run: Path) -> None:
    arguments = [argument.replace("PHOTOS", str(photos)) for argument in arguments]
    done = gransam("annotate", photos, "-o", run, *arguments, fake=False)
    assert done.code == 5
    assert "expected:" in done.err
    assert "Traceback" not in done.err


def test_an_internal_error_is_one_line_and_1(
    gransam: Gransam, photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "1")
    done = gransam("annotate", photos, "-o", run)
    assert done.code == 1
    assert "error: internal error: KeyError: " in done.err
    assert "GRANSAM_DEBUG=1" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("GRANSAM_DEBUG", "1")
    again = gransam("annotate", photos, "-o", run)
    assert again.code == 1
    assert "Traceback" in again.err


def test_the_options_default_to_the_settings_defaults() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(annotate).parameters.items()}
    settings = Settings()
    names = ("points_per_side", "mask_choice", "pred_iou_thresh", "stability_score_thresh", "nms_iou", "containment")
    for name in (*names, "join_fragments", "decode_to_scale"):
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


def test_eval_wants_a_kind_of_ground_truth(gransam: Gransam, tmp_path: Path) -> None:
    done = gransam("eval", tmp_path, "--gt", str(tmp_path))
    assert done.code == 2
    assert "voc:DIR" in done.err


def test_eval_of_what_is_no_run(gransam: Gransam, tmp_path: Path) -> None:
    done = gransam("eval", tmp_path / "nothing", "--gt", f"voc:{tmp_path}")
    assert done.code == 2
    assert "Traceback" not in done.err


def test_doctor_refuses_what_is_no_bundle(gransam: Gransam, tmp_path: Path) -> None:
    done = gransam("doctor", tmp_path, fake=False)
    assert done.code == 5
    assert "CPUExecutionProvider" in done.out
    assert f"bundle {tmp_path}: refused" in done.out
    assert "do this:" in done.err


def test_doctor_says_what_a_bundles_thresholds_rest_on(gransam: Gransam, tmp_path: Path) -> None:
    parts = good_parts(kind=HeadKind(background=True, labels="mask"))
    calibrated(parts.manifest)
    parts.write(tmp_path / "calibrated")
    write_good(tmp_path / "plain")
    done = gransam("doctor", tmp_path / "calibrated", tmp_path / "plain", fake=False)
    assert done.code == 0, done.err
    facts = [line.split(": ", 1)[1] for line in done.out.splitlines() if "background" in line]
    calibration = "calibrated for 80% precision on 30 held-out pictures and 0 of background, temperature 1.25"
    assert facts == [
        f"explicit background, one label a mask, {calibration}",
        "implicit background, one label a prompt, not calibrated",
    ]
