"""A run from photos to records: what is written, what resumes, what stops it, and what is saved then."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from stand_in import BAD, STAGES, Log, StandIn, annotate, failures, make_photos, record_names, run_json, tree

from gransam_sdk.annotate.photo_source import PhotoSource
from gransam_sdk.annotate.plan import plan_photos
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.run import annotate_folder, with_record_floor
from gransam_sdk.classes import select_classes
from gransam_sdk.errors import DeviceError, ImageError, InputError, TooManyFailures
from gransam_sdk.runtime.fake_bundle import fake_bundle
from gransam_sdk.runtime.fake_session import fake_model
from gransam_sdk.runtime.segmenter import Segmenter
from gransam_sdk.types import ClassInfo, Settings


def test_every_photo_gets_a_record_or_a_failure(photos: Path, out: Path) -> None:
    log = Log()
    report = annotate(photos, out, progress=log)
    good = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png") if path.name != "z-cut.png")
    assert len(good) == 9
    assert record_names(out) == sorted(f"{name}.json" for name in good)
    assert [failure["key"] for failure in failures(out)] == BAD
    assert [failure["reason"] for failure in failures(out)] == ["empty", "format", "truncated"]
    assert (report.new, report.redone, report.done, report.failed, report.photos) == (9, 0, 0, 3, 12)
    assert report.exit_code == 3
    assert [key for key, _ in log.seen] == sorted([*good, *BAD], key=str.encode)
    assert {key for key, status in log.seen if status == "failed"} == set(BAD)
    assert log.finished == 1


def test_a_record_names_the_photo_it_was_made_of(photos: Path, out: Path) -> None:
    annotate(photos, out)
    image = json.loads((out / "records/a/001.png.json").read_text())["image"]
    digest = hashlib.sha256((photos / "a/001.png").read_bytes()).hexdigest()
    assert image == {"file_name": "a/001.png", "width": 24, "height": 18, "sha256": digest, "orientation": 1}


def test_run_json_says_what_ran(photos: Path, out: Path) -> None:
    report = annotate(photos, out, limit=5)
    run = run_json(out)
    assert run["status"] == "finished"
    assert run["schema"] == 1
    assert run["inputs"] == [str(photos)]
    assert run["limit"] == 5
    assert run["bundle"] == {
        "name": "stand-in",
        "version": "1",
        "description": "hashes, for tests",
        "precision": "none",
        "digest": "ab" * 32,
        "licence": {"code": "Apache-2.0", "weights": "none"},
        "provenance": {"weights": "none", "training_data": ["nothing", "at all"]},
        "limits": ["See: it hashes pixels."],
    }
    assert run["environment"]["provider"] == "StandIn"
    assert run["settings"]["record_floor"] == 0.3
    assert [entry["name"] for entry in run["classes"]] == ["cat", "dog", "hävet"]
    assert run["counts"]["photos"] == 5 == report.photos
    assert run["counts"]["masks"] == report.masks
    assert {"read", "decode", "write", "export", *STAGES} <= run["timings"].keys()
    assert run["timings"]["prompt graph"] == pytest.approx(0.002 * report.new)
    assert report.photos_per_second == run["photos_per_second"] > 0
    assert 20 << 20 < run["peak_memory_bytes"] < 8 << 30


def test_no_failures_exit_0_and_an_empty_list(tmp_path: Path, out: Path) -> None:
    report = annotate(make_photos(tmp_path / "good", 2, bad={}), out)
    assert report.exit_code == 0
    assert (out / "failures.jsonl").read_bytes() == b""


def test_max_failures_stops_with_everything_saved(photos: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures) as caught:
        annotate(photos, out, max_failures=1)
    assert caught.value.exit_code == 4
    assert [failure["key"] for failure in failures(out)] == BAD[:2]
    assert run_json(out)["status"] == "stopped"
    assert run_json(out)["counts"]["failed"] == 2
    assert not (out / "exports").exists()
    annotate(photos, out, max_failures=3)
    annotate(photos, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


class Trouble(StandIn):
    """Meets an error at its n-th photo."""

    def __init__(self, error: BaseException, at: int = 4) -> None:
        super().__init__()
        self._error, self._at = error, at

    def infer(self, pixels: np.ndarray):
        result = super().infer(pixels)
        if self.seen == self._at:
            raise self._error
        return result


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(143), "interrupted"),
        (DeviceError("the device is gone"), "stopped"),
        (ZeroDivisionError("a bug"), "stopped"),
        (MemoryError(), "stopped"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_what_ends_a_run_passes_on_after_saving(
    photos: Path, out: Path, tmp_path: Path, error: BaseException, status: str
) -> None:
    log = Log()
    with pytest.raises(type(error)) as caught:
        annotate(photos, out, segmenter=Trouble(error, at=8), progress=log)
    assert caught.value is error
    assert len(record_names(out)) == 7
    assert [failure["key"] for failure in failures(out)] == BAD[:2]
    assert run_json(out)["status"] == status
    assert run_json(out)["counts"]["new"] == 7
    assert log.finished == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gransam-")]
    annotate(photos, out)
    annotate(photos, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImageError("non-finite", "scores", found="NaN"), "non-finite"),
        (InputError("feed", expected="a", found="b"), "engine"),
    ],
)
def test_a_photo_that_the_engine_refuses_is_a_failure(photos: Path, out: Path, error: Exception, reason: str) -> None:
    report = annotate(photos, out, segmenter=Trouble(error, at=1))
    assert (report.new, report.failed) == (8, 4)
    assert failures(out)[0]["reason"] == reason
    assert annotate(photos, out).new == 1


def test_a_nan_from_the_model_is_a_failure_with_a_name(photos: Path, out: Path) -> None:
    class Overflow(StandIn):
        def infer(self, pixels: np.ndarray):
            result = super().infer(pixels)
            result.confidence[:1] = np.nan
            return result

    report = annotate(photos, out, segmenter=Overflow())
    assert {failure["reason"] for failure in failures(out)} == {"empty", "format", "truncated", "non-finite"}
    assert report.new + report.failed == 12
    assert all(b"NaN" not in (out / "records" / name).read_bytes() for name in record_names(out))


def test_usage_errors_come_before_anything_is_written(photos: Path, out: Path, tmp_path: Path) -> None:
    for wrong in ({"to": ["coco", "yolov99"]}, {"limit": 0}, {"max_failures": -1}):
        with pytest.raises(InputError):
            annotate_folder(photos, out, bundle=tmp_path / "no-such-bundle", **wrong)
    with pytest.raises(InputError):
        annotate_folder(tmp_path / "nowhere", out, bundle=tmp_path / "no-such-bundle")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photos"):
        annotate_folder(tmp_path / "empty", out, bundle=tmp_path / "no-such-bundle")
    assert not out.exists()


def test_classes_that_an_export_cannot_hold_are_refused_before_the_first_photo(photos: Path, out: Path) -> None:
    many = StandIn(classes=[ClassInfo(id=number, name=f"class {number}") for number in range(1, 256)])
    with pytest.raises(InputError, match="label ids up to 254"):
        annotate(photos, out, segmenter=many)
    assert many.seen == 0
    assert not out.exists()
    with pytest.raises(InputError, match="label ids up to 254"):
        plan_photos(many, PhotoSource(photos, exclude=out), out, Products(formats=("voc",)))
    assert annotate(photos, out, segmenter=many, products=Products(report=False)).new == 9


def test_masks_below_the_threshold_are_asked_for_unless_told_otherwise() -> None:
    assert with_record_floor(None).record_floor == 0.30
    assert with_record_floor(Settings(nms_iou=0.7)) == Settings(nms_iou=0.7, record_floor=0.30)
    assert with_record_floor(Settings(record_floor=0.9)).record_floor == 0.9


def test_the_report_is_written_with_what_happened(photos: Path, out: Path) -> None:
    annotate(photos, out, products=Products(formats=(), report=True))
    page = (out / "report.html").read_text()
    assert "a/bad/page.jpg" in page
    assert "<li>See: it hashes pixels.</li>" in page
    assert "<dd>nothing; at all</dd>" in page
    assert not (out / "exports").exists()


def test_no_signal_handler_is_installed(photos: Path, out: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    annotate(photos, out)
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_real_segmenter_records_what_it_finds_in_a_real_photo(
    sample_photos: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(bundle: str, *, settings: Settings, **_: object) -> Segmenter:
        asked.append(settings)
        opened = fake_bundle()
        return Segmenter(fake_model(opened), select_classes(opened.classes), settings)

    monkeypatch.setattr("gransam_sdk.annotate.run.load", load)
    photo = sample_photos["coffee.png"]
    report = annotate_folder(photo, out, to=("coco", "voc"), overlays=True)
    result = load("", settings=Settings(record_floor=0.3))(photo)[0]
    record = json.loads((out / "records/coffee.png.json").read_text())
    codes = [annotation["segmentation"]["counts"] for annotation in record["annotations"]]
    assert asked[0] == Settings(record_floor=0.3)
    assert sorted(codes) == sorted(mask["counts"] for mask in result.masks)
    assert report.masks == len(codes) > 0
    assert {path.name for path in out.iterdir()} == {
        *("records", "exports", "overlays", "run.json", "report.html", "failures.jsonl", ".lock")
    }
