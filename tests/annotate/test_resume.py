"""A folder annotated again: what is done stays, what changed is redone, another run is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import CLASSES, Log, StandIn, annotate, failures, record_names, run_json, tree

from gransam_sdk.annotate.publish import Products
from gransam_sdk.errors import OutputError


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


def test_other_classes_are_named_after_what_is_one_value(photos: Path, out: Path) -> None:
    annotate(photos, out, limit=2)
    with pytest.raises(OutputError) as caught:
        annotate(photos, out, segmenter=StandIn(conf=0.5))
    assert [line.strip() for line in caught.value.found.splitlines()] == [
        "classes.cat.threshold: 0.6 → 0.5",
        "classes.dog.threshold: 0.4 → 0.5",
        "classes.hävet.threshold: 0.7 → 0.5",
    ]
    with pytest.raises(OutputError) as caught:
        annotate(photos, out, segmenter=StandIn(classes=CLASSES[:2]))
    assert caught.value.found == 'classes.hävet: {"id": 3, "members": ["hävet"], "threshold": 0.7} → absent'


def test_another_colour_is_the_same_run_painted_anew(photos: Path, out: Path) -> None:
    annotate(photos, out)
    before = tree(out)
    pink = [replace(CLASSES[0], color=(250, 0, 200)), *CLASSES[1:]]
    segmenter = StandIn(classes=pink)
    annotate(photos, out, segmenter=segmenter)
    assert segmenter.seen == 0
    assert run_json(out)["classes"][0]["color"] == [250, 0, 200]
    changed = {name for name, digest in tree(out).items() if before[name] != digest}
    assert "exports/voc/labelmap.txt" in changed
    assert not {name for name in changed if not name.startswith("exports/voc/")}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"schema": 2, "fingerprint": {}}', b'{"schema": 1}', b"\xff", b"[" * 9999]
)
def test_a_run_json_that_is_not_ours_is_refused(photos: Path, out: Path, text: bytes) -> None:
    out.mkdir()
    (out / "run.json").write_bytes(text)
    with pytest.raises(OutputError, match=r"run\.json"):
        annotate(photos, out)
    assert (out / "run.json").read_bytes() == text
