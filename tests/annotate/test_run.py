"""A run from photos to records: what is written, what resumes, what stops it, and what is saved then."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import STAGES, StandIn, annotate, make_photos, record_names, tree

from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.annotate.photo_source import PhotoIndex, PhotoSource
from gransam_sdk.annotate.pipeline import AHEAD, read_ahead
from gransam_sdk.annotate.plan import plan_photos, plan_run
from gransam_sdk.annotate.publish import Products
from gransam_sdk.annotate.run import RunOptions, annotate_folder, run_photos, with_record_floor
from gransam_sdk.errors import DeviceError, ImageError, InputError, OutputError, TooManyFailures
from gransam_sdk.types import Settings

BAD = ["a/bad/empty.jpg", "a/bad/page.jpg", "z-cut.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", 9)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def run_json(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def failures(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


class Log:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.total: int | None = -1
        self.seen: list[tuple[str, str]] = []
        self.finished = 0

    def start(self, total: int | None) -> None:
        self.total = total

    def advance(self, key: str, status: str) -> None:
        self.seen.append((key, status))

    def finish(self) -> None:
        self.finished += 1


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
    assert run["bundle"] == {"name": "stand-in", "version": "1", "digest": "ab" * 32}
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


def test_a_second_run_annotates_nothing_and_changes_nothing(photos: Path, out: Path) -> None:
    annotate(photos, out)
    before = tree(out)
    segmenter = StandIn()
    report = annotate(photos, out, segmenter=segmenter)
    assert segmenter.seen == 0
    assert (report.new, report.done, report.failed) == (0, 9, 3)
    assert report.photos_per_second is None
    assert tree(out) == before


def test_limit_counts_photos_in_walk_order_done_ones_included(photos: Path, out: Path, tmp_path: Path) -> None:
    annotate(photos, out, limit=4)
    assert len(record_names(out)) == 4
    report = annotate(photos, out, limit=6)
    assert (report.done, report.new + report.failed) == (4, 2)
    annotate(photos, out)
    annotate(photos, tmp_path / "whole")
    assert tree(out) == tree(tmp_path / "whole")


def test_a_changed_photo_is_redone(photos: Path, out: Path) -> None:
    annotate(photos, out)
    old = (out / "records/a/001.png.json").read_bytes()
    Image.fromarray(np.full((20, 30, 3), 9, dtype=np.uint8)).save(photos / "a/001.png")
    log = Log()
    report = annotate(photos, out, progress=log)
    assert (report.redone, report.done, report.new) == (1, 8, 0)
    assert ("a/001.png", "redone") in log.seen
    assert (out / "records/a/001.png.json").read_bytes() != old


def test_touching_a_photo_changes_nothing(photos: Path, out: Path) -> None:
    annotate(photos, out)
    for path in photos.rglob("*.png"):
        path.touch()
    assert annotate(photos, out).done == 9


def test_a_photo_that_goes_bad_loses_its_record_and_one_that_heals_gets_one(photos: Path, out: Path) -> None:
    annotate(photos, out)
    whole = tree(out)
    good = (photos / "a/001.png").read_bytes()
    (photos / "a/001.png").write_bytes(good[:100])
    report = annotate(photos, out)
    assert (report.failed, report.done) == (4, 8)
    assert "a/001.png.json" not in record_names(out)
    assert failures(out)[0]["key"] == "a/001.png"
    (photos / "a/001.png").write_bytes(good)
    assert annotate(photos, out).new == 1
    assert tree(out) == whole


def test_the_record_of_a_photo_that_vanished_stays(photos: Path, out: Path) -> None:
    annotate(photos, out)
    (photos / "a/001.png").unlink()
    assert annotate(photos, out).photos == 11
    assert "a/001.png.json" in record_names(out)


def test_an_output_folder_inside_the_input_is_never_read(photos: Path) -> None:
    out = photos / "run"
    everything = Products(formats=("coco", "voc"), overlays=True, report=False)
    annotate(photos, out, products=everything)
    assert any((out / "overlays").rglob("*.jpg"))
    before = tree(out)
    assert annotate(photos, out, products=everything).photos == 12
    assert tree(out) == before


def test_other_settings_are_refused_and_named(photos: Path, out: Path) -> None:
    annotate(photos, out, limit=2)
    before = tree(out)
    with pytest.raises(OutputError, match=r"nms\.iou: 0\.5 → 0\.6") as caught:
        annotate(photos, out, segmenter=StandIn(nms_iou=0.6))
    assert caught.value.exit_code == 6
    assert "bundle" not in caught.value.found
    assert "-o" in caught.value.do
    assert tree(out) == before
    assert run_json(out)["status"] == "finished"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"schema": 2, "fingerprint": {}}', b'{"schema": 1}', b"\xff", b"[" * 9999]
)
def test_a_run_json_that_is_not_ours_is_refused(photos: Path, out: Path, text: bytes) -> None:
    out.mkdir()
    (out / "run.json").write_bytes(text)
    with pytest.raises(OutputError, match=r"run\.json"):
        annotate(photos, out)
    assert (out / "run.json").read_bytes() == text


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

    def segment(self, pixels: np.ndarray):
        result = super().segment(pixels)
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
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-reader"]
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
        def segment(self, pixels: np.ndarray):
            result = super().segment(pixels)
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


def test_masks_below_the_threshold_are_asked_for_unless_told_otherwise() -> None:
    assert with_record_floor(None).record_floor == 0.30
    assert with_record_floor(Settings(nms_iou=0.7)) == Settings(nms_iou=0.7, record_floor=0.30)
    assert with_record_floor(Settings(record_floor=0.9)).record_floor == 0.9


def test_a_list_on_stdin_is_walked_for_the_run_and_again_for_the_overlays(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    listing = photos.parent / "list"
    listing.write_text("000.png\na/001.png\n")
    with listing.open("rb") as stdin:
        source = PhotoSource("-", exclude=out, stdin=stdin)
    assert source.count() == 2 == source.count()
    with closing(source), OutputFolder.open(out) as folder:
        options = RunOptions(products=Products(formats=(), overlays=True, report=False))
        run_photos(StandIn(), source, folder, options)
    assert record_names(out) == ["000.png.json", "a/001.png.json"]
    assert len(list((out / "overlays").rglob("*.jpg"))) == 2


def test_a_photo_is_shown_only_while_it_is_the_one_that_was_recorded(photos: Path, out: Path) -> None:
    annotate(photos, out)
    (photos / "000.png").write_bytes((photos / "004.png").read_bytes())
    with OutputFolder.open(out) as folder:
        index = PhotoIndex(PhotoSource(photos, exclude=out), folder, scale16=False)
        assert index("000.png") is None
        assert index("z-cut.png") is None
        assert index("nowhere.png") is None
        with Image.open(photos / "a/001.png") as picture:
            assert np.array_equal(index("a/001.png"), np.asarray(picture))
        index.close()


def test_the_report_is_written_with_what_happened(photos: Path, out: Path) -> None:
    annotate(photos, out, products=Products(formats=(), report=True))
    page = (out / "report.html").read_text()
    assert "a/bad/page.jpg" in page
    assert not (out / "exports").exists()


def test_decoding_stays_a_bounded_number_of_photos_ahead() -> None:
    made = []
    taken = 0
    gate = threading.Semaphore(0)

    def source():
        for number in range(20):
            made.append(number)
            yield number
            gate.release()

    with read_ahead(source()) as numbers:
        for _ in numbers:
            taken += 1
            if taken < 18:
                gate.acquire()
            # the one in hand, and those that may wait
            assert len(made) <= taken + AHEAD
    assert made == list(range(20))
    assert taken == 20


def test_an_error_in_the_reader_arrives_after_the_items_before_it() -> None:
    def source():
        yield 1
        raise LookupError("while reading")

    seen = []
    with pytest.raises(LookupError, match="while reading"), read_ahead(source()) as numbers:
        seen.extend(numbers)
    assert seen == [] or seen == [1]
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-reader"]


def test_leaving_early_stops_the_reader() -> None:
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    with read_ahead(source()) as numbers:
        assert next(numbers) == 0
    assert closed.wait(2)
    assert not [thread for thread in threading.enumerate() if thread.name == "gransam-reader"]


def test_no_signal_handler_is_installed(photos: Path, out: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    annotate(photos, out)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_plan_counts_and_writes_nothing(photos: Path, out: Path) -> None:
    source = PhotoSource(photos, exclude=out)
    plan = plan_photos(StandIn(), source, out)
    assert (plan.photos, plan.done, plan.unreadable) == (12, 0, 2)  # the cut PNG shows only when decoded
    sizes = {str(path.relative_to(photos)): path.stat().st_size for path in photos.rglob("*.*")}
    assert plan.bytes == sum(size for name, size in sizes.items() if name not in BAD[:2])
    assert [entry["name"] for entry in plan.run["classes"]] == ["cat", "dog", "hävet"]
    assert not out.exists()
    annotate(photos, out, limit=5)
    recorded = len(record_names(out))
    (out / "records" / record_names(out)[0]).write_bytes(b"torn")
    before = Counter(path.stat().st_mtime_ns for path in out.rglob("*"))
    assert plan_photos(StandIn(), source, out).done == recorded - 1
    assert Counter(path.stat().st_mtime_ns for path in out.rglob("*")) == before
    with pytest.raises(OutputError, match="nms"):
        plan_photos(StandIn(nms_iou=0.7), source, out)


def test_a_plan_fails_where_the_run_would(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        plan_run(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(InputError):
        plan_run(photos, tmp_path / "run", to=["yolov99"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    with pytest.raises(OutputError):
        plan_run(photos, tmp_path / "taken", bundle=tmp_path / "no-such-bundle")
