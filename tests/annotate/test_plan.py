"""The plan of a run: the same checks and counts, and not a byte written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from stand_in import BAD, StandIn, annotate, record_names

from gransam_sdk.annotate.photo_source import PhotoSource
from gransam_sdk.annotate.plan import plan_photos, plan_run
from gransam_sdk.annotate.publish import Products
from gransam_sdk.errors import InputError, OutputError


def test_a_plan_counts_and_writes_nothing(photos: Path, out: Path) -> None:
    source = PhotoSource(photos, exclude=out)
    plan = plan_photos(StandIn(), source, out, Products())
    assert (plan.photos, plan.done, plan.unreadable) == (12, 0, 2)  # the cut PNG shows only when decoded
    sizes = {str(path.relative_to(photos)): path.stat().st_size for path in photos.rglob("*.*")}
    assert plan.bytes == sum(size for name, size in sizes.items() if name not in BAD[:2])
    assert [entry["name"] for entry in plan.run["classes"]] == ["cat", "dog", "hävet"]
    assert not out.exists()
    annotate(photos, out, limit=5)
    recorded = len(record_names(out))
    (out / "records" / record_names(out)[0]).write_bytes(b"torn")
    before = Counter(path.stat().st_mtime_ns for path in out.rglob("*"))
    assert plan_photos(StandIn(), source, out, Products()).done == recorded - 1
    assert Counter(path.stat().st_mtime_ns for path in out.rglob("*")) == before
    with pytest.raises(OutputError, match="nms"):
        plan_photos(StandIn(nms_iou=0.7), source, out, Products())


def test_a_plan_fails_where_the_run_would(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        plan_run(tmp_path / "nowhere", tmp_path / "run")
    with pytest.raises(InputError):
        plan_run(photos, tmp_path / "run", to=["yolov99"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    with pytest.raises(OutputError):
        plan_run(photos, tmp_path / "taken", bundle=tmp_path / "no-such-bundle")
