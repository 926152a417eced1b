"""The report page: complete on its own, well formed, nothing unescaped, the doubtful photos first."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_records import CLASSES, MemoryFolder, Passes, annotation, random_records, record
from PIL import Image

from gransam_sdk.annotate.failures import Failure
from gransam_sdk.annotate.report import THUMBNAIL_SIDE, thumbnail, write_report
from gransam_sdk.annotate.report_charts import histogram
from gransam_sdk.annotate.report_findings import BINS, DOUBTFUL_SHOWN, EMPTY_SHOWN, NAMES_SHOWN, collect
from gransam_sdk.shapes import Pixels

NASTY = "<x-bad>& \"quoted\" 'n'</x-bad>.jpg"
RUN: dict[str, Any] = {
    "schema": 1,
    "sdk_version": "0.1.0",
    "fingerprint": {"points_per_side": 10, "chunk": 100},
    "bundle": {
        "name": "<x-voc>",
        "digest": "ab" * 32,
        "licence": {"code": "Apache-2.0"},
        "limits": ["Small <x-things> are missed."],
    },
    "classes": [{"id": c.id, "name": c.name, "color": list(c.color), "threshold": c.threshold} for c in CLASSES],
    "settings": {"nms_iou": 0.5, "join_fragments": False, "conf": None},
    "inputs": [f"photos/{NASTY}"],
    "environment": {"provider": "CPUExecutionProvider", "threads": 2},
    "counts": {"new": 3, "redone": 1, "done": 0, "failed": 0},
    "timings": {"decode": 0.5, "<x-stage>": 2.0},
    "seconds": 2.5,
    "photos_per_second": 1.6,
    "peak_memory_bytes": 500 << 20,
}
ATTRIBUTES = {
    *("alt", "aria-label", "aria-labelledby", "charset", "class", "content", "d", "href", "http-equiv", "id", "lang"),
    *("loading", "name", "role", "scope", "src", "style", "text-anchor", "viewbox", "x", "y"),
}
VOID = {"meta", "img", "br", "link", "hr", "input"}
FULL = np.ones((30, 40), dtype=bool)


class Page(HTMLParser):
    """Reads a page and complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"{tag} closes itself, which only SVG knows"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def photo(key: str) -> Pixels | None:
    return np.full((30, 40, 3), 90, dtype=np.uint8)


def write(
    records: Iterable[dict[str, Any]], failures: Iterable[Failure] = (), run: dict[str, Any] = RUN, photos: Any = photo
) -> str:
    folder = MemoryFolder()
    passes = Passes(lambda: iter(list(records)))
    write_report(run, passes, CLASSES, folder, failures, photos)  # type: ignore[arg-type]
    assert passes.count == 1
    return folder.files["report.html"].decode()


def seen(key: str, confidence: float, runner_up: float, category: int = 1) -> dict[str, Any]:
    return record(key, (30, 40), [annotation(FULL, category, confidence, confidence / 2, [("dog", runner_up)])])


@pytest.fixture
def some() -> list[dict[str, Any]]:
    return [
        seen("sure.jpg", 0.9, 0.05),
        seen("torn.jpg", 0.45, 0.44),
        seen("weak.jpg", 0.42, 0.1),
        record(NASTY, (30, 40)),
    ]


def test_page_is_well_formed_and_needs_nothing_from_outside(some: list[dict[str, Any]]) -> None:
    text = write(some, [Failure(key=NASTY, reason="truncated", message="ends <early>")])
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html")[0]["lang"] == "en"
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)  # base64 may hold two slashes
    assert not re.search(r"https?:|//|url\(|@import", without_pictures)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    assert all(name[:2] != "on" for _, attrs in page.tags for name in attrs)
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert "default-src 'none'" in str(page.all("meta"))
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert {"header", "main", "nav"} <= {tag for tag, _ in page.tags}
    assert all(image["alt"] for image in page.all("img"))
    anchors = {attrs["href"] for attrs in page.all("a")}
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert anchors <= {f"#{name}" for name in ids} and len(set(ids)) == len(ids)


def test_words_from_outside_are_escaped(some: list[dict[str, Any]]) -> None:
    bad = seen(NASTY, 0.6, 0.2, category=3)
    bad["annotations"][0]["runner_up"] = [["<x-other>", 0.2]]
    text = write(
        [bad, record(f"empty {NASTY}", (30, 40))], [Failure(key=NASTY, reason="<x-reason>", message="<x-message>")]
    )
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag.startswith("x-")]
    assert {name for _, attrs in page.tags for name in attrs} <= ATTRIBUTES, "a quote ends an attribute early"
    assert all(
        word in page.words for word in ("<x-voc>", "<x-other> 20%", "<x-reason>", "<x-message>", CLASSES[2].name)
    )
    assert page.words.count(NASTY) >= 5
    assert page.all("img")[0]["alt"] == f"{NASTY}: {CLASSES[2].name} 60%"


def test_least_certain_photos_come_first(some: list[dict[str, Any]]) -> None:
    page = Page(write(some))
    names = [str(image["alt"]).split(":")[0] for image in page.all("img")]
    assert names == ["torn.jpg", "weak.jpg", "sure.jpg", NASTY]  # leads of 0.01, 0.32 and 0.85, then the empty one
    assert "Least certain: cat 45%, or dog 44%" in page.words


def test_a_photo_is_as_certain_as_its_least_certain_label() -> None:
    two = record("two.jpg", (30, 40), [annotation(FULL, 1, c, c, [("dog", r)]) for c, r in ((0.95, 0.01), (0.5, 0.4))])
    below = annotation(FULL, 2, 0.49, 0.4, [("cat", 0.48)])  # not labelled, so not doubtful
    one = record("one.jpg", (30, 40), [annotation(FULL, 1, 0.7, 0.7, [("dog", 0.2)]), below])
    alone = record("alone.jpg", (30, 40), [annotation(FULL, 1, 0.45, 0.4)])
    findings = collect(lambda: iter([alone, one, two]), CLASSES)
    assert [s.record["image"]["file_name"] for s in findings.doubtful] == ["two.jpg", "alone.jpg", "one.jpg"]
    assert [s.certainty for s in findings.doubtful] == pytest.approx([0.1, 0.45, 0.5])


def test_photos_without_labels_are_named_best_guess_first() -> None:
    guess = record("guess.jpg", (30, 40), [annotation(FULL, 2, 0.44, 0.3)])
    page = Page(write([record("blank.jpg", (30, 40)), guess]))
    assert "In 2 of 2 photos, nothing was found above the thresholds" in page.words
    assert [str(image["alt"]) for image in page.all("img")] == ["guess.jpg: nothing found", "blank.jpg: nothing found"]
    assert "Best guess: dog 44%" in page.words and "No mask was recorded" in page.words
    assert "No mask reached the threshold of its class" in page.words


def test_counts_equal_numpys() -> None:
    records = random_records(60, seed=7)
    findings = collect(lambda: iter(records), CLASSES)
    rows = [(a["category_id"], a["confidence"], a["score"], i) for i, r in enumerate(records) for a in r["annotations"]]
    category, confidence, score, owner = (np.array(column) for column in zip(*rows, strict=True))
    labelled = confidence >= np.array([0, *(c.threshold for c in CLASSES)])[category]
    for entry in CLASSES:
        mine, tally = category == entry.id, findings.classes[entry.id]
        assert tally.labelled == np.histogram(confidence[mine & labelled], BINS, (0, 1))[0].tolist()
        assert tally.below == np.histogram(confidence[mine & ~labelled], BINS, (0, 1))[0].tolist()
        assert tally.photos == len(set(owner[mine & labelled]))
    assert findings.scores == np.histogram(score[labelled], BINS, (0, 1))[0].tolist()
    assert (findings.photos, findings.empty) == (60, 60 - len(set(owner[labelled])))
    assert findings.masks == labelled.sum() < len(rows)


def test_the_page_stays_small_however_many_photos() -> None:
    many = [seen(f"{i:04}.jpg", 0.5 + (i % 7) / 20, 0.2) for i in range(DOUBTFUL_SHOWN + 25)]
    none = [record(f"none {i:04}.jpg", (30, 40)) for i in range(NAMES_SHOWN + 30)]
    failed = [Failure(key=f"bad {i}.jpg", reason="empty", message="no bytes") for i in range(140)]
    page = Page(write([*many, *none], iter(failed)))
    assert len(page.all("img")) == DOUBTFUL_SHOWN + EMPTY_SHOWN
    assert "25 more not shown" in page.words and f"{NAMES_SHOWN + 18} more not shown" in page.words
    assert "and 30 more" in page.words and "40 more in failures.jsonl" in page.words
    assert "140 photos failed" in page.words and "bad 99.jpg" in page.words and "bad 100.jpg" not in page.words
    shown = [str(image["alt"])[:4] for image in page.all("img")[:DOUBTFUL_SHOWN]]
    assert shown == [f"{i:04}" for i in sorted(range(len(many)), key=lambda i: (i % 7, i))[:DOUBTFUL_SHOWN]]


def test_photos_that_are_gone_leave_a_word(some: list[dict[str, Any]]) -> None:
    page = Page(write(some, photos=lambda key: None))
    assert page.all("img") == [] and page.words.count("could not be read again") == 4


def test_the_same_run_gives_the_same_page(some: list[dict[str, Any]]) -> None:
    assert write(some) == write(some)


def test_settings_model_and_times_are_there(some: list[dict[str, Any]]) -> None:
    words = Page(write(some)).words
    for fact in ("nms iou 0.5", "join fragments no", "points per side 10", "provider CPUExecutionProvider", "ab" * 32):
        assert fact in words
    assert "says it cannot do: Small <x-things> are missed. name <x-voc>" in words
    assert "licence, code Apache-2.0" in words and "10 by 10 clicks" in words and "1.60 photos a second" in words
    assert "<x-stage> 2.00 s 500.0 ms" in words and "Peak memory 500 MiB" in words
    assert 'cat 0.4; dog 0.5; "häst" <x-class>& 0.3' in words
    assert "conf None" not in words


def test_a_run_of_nothing_is_a_page_too() -> None:
    bare = {**RUN, "counts": {"new": 0, "redone": 0}, "timings": {}, "photos_per_second": None}
    words = Page(write([], run=bare)).words
    assert "0 photos annotated" in words and "photos a second" not in words and "No mask was recorded" in words


def test_histogram_bars_have_the_heights_of_their_counts() -> None:
    svg = histogram([0, 2, 4], [0, 0, 4], "score")
    heights = [float(y1) - float(y0) for y0, y1 in re.findall(r'class="kept" d="M\S+ ([\d.]+)h[\d.]+V([\d.]+)', svg)]
    assert heights == [30.0, 60.0]
    assert "score 0.67 to 1.00: 4 labelled, 4 below the threshold" in svg


def test_thumbnails_show_the_masks_where_they_are(sample_photos: dict[str, Path]) -> None:
    with Image.open(sample_photos["motorcycle_left.png"]) as picture:
        pixels = np.array(picture.convert("RGB"))
    size = pixels.shape[:2]
    mask = np.zeros(size, dtype=bool)
    mask[100:400, 200:600] = True
    mask[100:400, 300:500:4] = False  # three of four columns are most of a pixel
    dot = np.zeros(size, dtype=bool)
    dot[5, 5] = dot[95, 95] = True
    made = record("m.png", size, [annotation(mask, 3, 0.9, 0.8), annotation(dot, 1, 0.9, 0.7)])
    small = thumbnail(made, CLASSES, pixels)
    assert max(small.size) == THUMBNAIL_SIDE
    scale = THUMBNAIL_SIDE / max(size)
    plain = Image.fromarray(pixels).resize(small.size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    changed = (np.array(small) != np.array(plain)).any(axis=2)
    rows, columns = (slice(round(a * scale) + 1, round(b * scale) - 1) for a, b in ((100, 400), (200, 600)))
    assert changed[rows, columns].mean() > 0.95
    assert not changed[rows.stop + 3 :].any() and not changed[:, columns.stop + 3 :].any()
    assert changed[: round(8 * scale), : round(8 * scale)].any(), "a mask of one pixel does not vanish"
    assert not changed[round(50 * scale), : columns.start - 3].any(), "nor does a thin one fill its box"
    data = re.search(r'base64,([^"]+)', write([made], photos=lambda key: pixels))
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as picture:
        assert picture.size == small.size


def test_numbers_of_the_run_may_be_any_json(some: list[dict[str, Any]]) -> None:
    run = json.loads(json.dumps({**RUN, "settings": {"class_conf": {"<x>": 0.5}, "list": [1, "<y>"], "empty": []}}))
    words = Page(write(some, run=run)).words
    assert "class conf, <x> 0.5" in words and "list 1; <y>" in words and "empty" not in words.split("Settings")[-1]
