"""The COCO file against pycocotools: it loads, every mask comes back bit for bit, COCOeval agrees with itself."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_records import CLASSES, MemoryFolder, Passes, annotation, random_records, record
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gransam_sdk.annotate.exporters import ClassEntry, class_entries, kept_annotations
from gransam_sdk.annotate.exporters.coco import PATH, export_coco
from gransam_sdk.annotate.outputs import OutputFolder
from gransam_sdk.errors import InputError
from gransam_sdk.rle import rle_decode

# pycocotools hands numpy an object from before numpy 2; nothing of ours is in it
BUNDLE = {"name": "nano-voc20", "version": "1", "digest": "ab" * 32}
THRESHOLDS = {entry.id: entry.threshold for entry in CLASSES}


def export(records: list[dict[str, Any]]) -> bytes:
    folder = MemoryFolder()
    export_coco(lambda: iter(records), CLASSES, folder, BUNDLE)  # type: ignore[arg-type]
    return folder.files[PATH]


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return random_records(40)


@pytest.fixture
def coco(records: list[dict[str, Any]], tmp_path: Path) -> COCO:
    path = tmp_path / "coco.json"
    path.write_bytes(export(records))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_every_photo_and_every_trusted_mask_is_there(coco: COCO, records: list[dict[str, Any]]) -> None:
    assert [coco.imgs[i + 1]["file_name"] for i in range(40)] == [r["image"]["file_name"] for r in records]
    assert {i["id"]: (i["height"], i["width"]) for i in coco.dataset["images"]} == {
        i: (r["image"]["height"], r["image"]["width"]) for i, r in enumerate(records, start=1)
    }
    assert [c["name"] for c in coco.loadCats([1, 2, 3])] == [entry.name for entry in CLASSES]
    trusted = [
        (i, a["category_id"], a["score"])
        for i, r in enumerate(records, start=1)
        for a in r["annotations"]
        if a["confidence"] >= THRESHOLDS[a["category_id"]]
    ]
    assert [(a["image_id"], a["category_id"], a["score"]) for a in coco.dataset["annotations"]] == trusted
    assert [a["id"] for a in coco.dataset["annotations"]] == list(range(1, len(trusted) + 1))
    assert 0 < len(trusted) < sum(len(r["annotations"]) for r in records)
    assert any(not coco.getAnnIds(imgIds=[i]) for i in coco.imgs), "photos without masks must stay in the file"


def test_masks_round_trip_bit_for_bit(coco: COCO) -> None:
    for each in coco.dataset["annotations"]:
        dense = coco.annToMask(each)
        np.testing.assert_array_equal(dense, rle_decode(each["segmentation"]))
        assert each["area"] == dense.sum() == coco_mask.area(coco.annToRLE(each))
        assert each["bbox"] == coco_mask.toBbox(coco.annToRLE(each)).tolist()
        assert each["iscrowd"] == 0
        assert isinstance(each["segmentation"]["counts"], str)


def test_cocoeval_of_the_file_against_itself_is_perfect(coco: COCO) -> None:
    keys = ("image_id", "category_id", "bbox", "score", "segmentation")
    results = [{key: each[key] for key in keys} for each in coco.dataset["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_bytes_are_a_function_of_the_records() -> None:
    first, second = export(random_records(12)), export(random_records(12))
    assert first == second
    assert first.isascii(), "readers open the file in whatever encoding their machine has"
    assert json.loads(first)["info"] == {
        "description": "Labels made by GranSAM SDK",
        "bundle": "nano-voc20",
        "bundle_digest": "ab" * 32,
    }


def test_no_records_make_an_empty_file_that_loads() -> None:
    dataset = json.loads(export([]))
    assert (dataset["images"], dataset["annotations"], len(dataset["categories"])) == ([], [], 3)


def test_threshold_is_inclusive() -> None:
    mask = np.ones((2, 2), dtype=bool)
    made = record("a.jpg", (2, 2), [annotation(mask, 2, 0.5, 0.4), annotation(mask, 2, 0.499999, 0.4)])
    assert [a["score"] for a in json.loads(export([made]))["annotations"]] == [0.4]
    assert [a["confidence"] for a in kept_annotations(made, CLASSES)] == [0.5]


def test_records_are_read_twice_at_most_and_memory_does_not_grow(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[::2, ::2] = True  # 1,024 runs: about 3 kB of code
    one = record("x.jpg", (64, 64), [annotation(mask, 1, 0.9, 0.8)] * 3)

    def peak(count: int) -> int:
        # a new dictionary each time, as a reader of files makes them
        passes = Passes(lambda: (json.loads(json.dumps(one)) for _ in range(count)))
        with OutputFolder.open(tmp_path / str(count)) as out:
            tracemalloc.start()
            export_coco(passes, CLASSES, out)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert passes.count <= 2
        assert len(json.loads((tmp_path / str(count) / PATH).read_bytes())["annotations"]) == 3 * count
        return most

    assert peak(400) < peak(40) + 100_000  # 360 records more are 3.5 MB


def test_a_record_of_another_run_is_refused() -> None:
    stranger = record("a.jpg", (2, 2), [annotation(np.ones((2, 2), dtype=bool), 1, 0.9, 0.8)])
    stranger["annotations"][0]["category_id"] = 9
    with pytest.raises(InputError, match=r"a\.jpg\n.*\[1, 2, 3\]\n.*9"):
        export([stranger])


def test_class_entries_come_from_run_json() -> None:
    rows = [{"id": 1, "name": "cat", "members": ["cat"], "color": [64, 0, 0], "threshold": 0.4}]
    assert class_entries(rows) == (ClassEntry(id=1, name="cat", color=(64, 0, 0), threshold=0.4),)


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": 1, "name": "cat", "threshold": 0.4}],
        [{"id": 1, "name": "cat", "color": [64, 0], "threshold": 0.4}],
        [{"id": 1, "name": "cat", "color": [64, 0, 300], "threshold": 0.4}],
        [{"id": 1, "name": "cat", "color": [64, 0, 0], "threshold": 0.0}],
        [{"id": 0, "name": "cat", "color": [64, 0, 0], "threshold": 0.4}],
        ["cat"],
        [{"id": 1, "name": name, "color": [64, 0, 0], "threshold": 0.4} for name in ("cat", "dog")],
        [{"id": i, "name": "cat", "color": [64, 0, 0], "threshold": 0.4} for i in (1, 2)],
    ],
)
def test_damaged_class_tables_are_refused(rows: list[Any]) -> None:
    with pytest.raises(InputError):
        class_entries(rows)
