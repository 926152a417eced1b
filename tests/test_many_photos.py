"""The benchmark of a long run: photos that differ, looks at the process that annotates, and what known looks make."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from sample_photos import sample_path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # scripts, no package

import folder
from folder import MIB, Look

SOURCES = [sample_path("coffee.png"), sample_path("chelsea.png")]


def looks_of(count: int, *, grown: int) -> list[Look]:
    """Ten looks, memory rising by ``grown`` MiB, the second half at half the pace; then closing in two seconds."""
    steps = []
    for i in range(1, 11):
        seconds = float(i if i <= 5 else 5 + 2 * (i - 5))
        steps.append(
            Look(
                photos=i * count // 10,
                seconds=seconds,
                resident=200 * MIB + grown * MIB * (i - 1) // 9,
                peak=(300 + grown) * MIB,
            )
        )
    return [*steps, Look(photos=count, seconds=17.0, resident=150 * MIB, peak=400 * MIB)]


def test_no_two_photos_are_the_same_and_all_are_small(tmp_path: Path) -> None:
    folder.make_photos(SOURCES, tmp_path / "photos", 60)
    files = sorted((tmp_path / "photos").iterdir())
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == len(files) == 60
    for file in files:
        with Image.open(file) as picture:
            assert 0.9 < picture.width * picture.height / folder.PIXELS < 1.15


def test_a_process_of_its_own_is_looked_at_ten_times_and_at_its_end(tmp_path: Path) -> None:
    folder.make_photos(SOURCES, tmp_path / "photos", 30)
    looks, masks = folder.watched(tmp_path / "photos", tmp_path / "run", 20)
    assert [look.photos for look in looks] == [*range(2, 21, 2), 20]
    assert all(20 * MIB < look.resident <= look.peak < 4096 * MIB for look in looks)
    assert [look.seconds for look in looks] == sorted(look.seconds for look in looks)
    records = list((tmp_path / "run" / "records").rglob("*.json"))
    assert len(records) == 20 and (tmp_path / "run" / "report.html").exists()
    assert masks == sum(len(json.loads(record.read_text(encoding="utf-8"))["annotations"]) for record in records)


def test_memory_of_this_process_is_seen_to_grow() -> None:
    before, _ = folder.memory()
    held = bytearray(64 * MIB)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])  # every page is touched
    after, peak = folder.memory()
    assert 60 * MIB < after - before < 80 * MIB and peak >= after


def test_a_result_says_growth_pace_and_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([(looks_of(100, grown=0), 5), (looks_of(1000, grown=9), 77)])
    monkeypatch.setattr(folder, "watched", lambda *_: next(runs))
    monkeypatch.setattr(folder, "make_photos", lambda *_: None)
    file = tmp_path / "folder.json"
    script = str(Path(folder.__file__))
    monkeypatch.setattr(sys, "argv", [script, "--photos", str(tmp_path), "--count", "1000", "--json", str(file)])
    folder.main()
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["rows"][0] == [100, 200.0, 309.0, 1.0, 100.0]
    assert found["rows"][9] == [1000, 209.0, 309.0, 2.0, 50.0]
    assert found["rows"][10] == [1000, 150.0, 400.0, 2.0, None]
    said = " ".join(found["notes"])
    assert "From photo 100 to 1,000 resident memory grew by **9.0 MiB**; 64 are allowed" in said
    assert "took 2.0 s after 1,000 photos, 2.00 ms a photo" in said and "after 100, in a run of its own, 20.00" in said
    memory, time = found["plots"]
    lines = {line["label"]: line["points"] for line in memory["lines"]}
    assert lines["resident"][-1] == [1000, 209.0] and lines["allowed"][0] == [100, 264.0]
    assert time["lines"][0]["points"][0] == [100, 10.0] and time["lines"][0]["points"][-1] == [1000, 20.0]
    assert "10.0 to 20.0 s" in time["sentence"]
