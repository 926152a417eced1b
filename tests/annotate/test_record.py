"""Records: stable bytes, strict reading, sorted listing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from stand_in import random_result

from gransam_sdk.annotate.record import dump_record, iter_records, make_record, parse_record, record_path
from gransam_sdk.errors import ImageError, InputError
from gransam_sdk.rle import rle_encode
from gransam_sdk.runtime.result import Result

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "record-format.md"
DIGEST = "0123456789abcdef" * 4


def two_masks() -> Result:
    left = np.zeros((4, 6), dtype=np.bool_)
    left[1:3, 0:2] = True
    right = np.zeros((4, 6), dtype=np.bool_)
    right[:, 5] = True
    return Result(
        size=(4, 6),
        class_ids=np.array([2, 1]),
        names=("dog", "cat"),
        confidence=np.array([0.5, 0.9123456789], dtype=np.float32),
        predicted_iou=np.array([0.75, 1.25], dtype=np.float32),
        stability_score=np.array([1 / 3, 1.0], dtype=np.float32),
        boxes=np.array([[0, 1, 2, 3], [5, 0, 6, 4]], dtype=np.float32),
        masks=(rle_encode(left), rle_encode(right)),
        points=np.array([[0.6, 1.23456], [5.4, 2.0]], dtype=np.float32),
        runner_up=((("cat", 0.25), ("fish", 0.1)), ()),
        passed=np.array([True, True]),
    )


def small_record() -> dict[str, Any]:
    return make_record(two_masks(), key="a/b.jpg", sha256=DIGEST, orientation=6)


def test_the_bytes_of_a_record() -> None:
    counts = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in two_masks().to_dense()]
    left, right = (text.decode() for text in counts)
    expected = (
        '{"schema":1,"image":{"file_name":"a/b.jpg","width":6,"height":4,"sha256":"' + DIGEST + '","orientation":6},'
        '"annotations":['
        '{"id":1,"segmentation":{"size":[4,6],"counts":"' + right + '"},"bbox":[5.0,0.0,1.0,4.0],"area":4,'
        '"predicted_iou":1.25,"stability_score":1.0,"point_coords":[[5.4,2.0]],"crop_box":[0,0,6,4],'
        '"class":"cat","category_id":1,"confidence":0.912346,"score":0.912346,"runner_up":[]},'
        '{"id":2,"segmentation":{"size":[4,6],"counts":"' + left + '"},"bbox":[0.0,1.0,2.0,2.0],"area":4,'
        '"predicted_iou":0.75,"stability_score":0.333333,"point_coords":[[0.6,1.23]],"crop_box":[0,0,6,4],'
        '"class":"dog","category_id":2,"confidence":0.5,"score":0.375,"runner_up":[["cat",0.25],["fish",0.1]]}]}\n'
    )
    assert dump_record(small_record()).decode() == expected


def test_a_record_of_nothing() -> None:
    result = random_result(np.random.default_rng(0), (18, 24), count=0)
    record = make_record(result, key="ä.png", sha256=DIGEST, orientation=1)
    assert record["annotations"] == []
    assert parse_record(dump_record(record)) == record


def test_records_come_back_as_they_were_with_areas_and_boxes_that_pycocotools_agrees_with() -> None:
    for seed in range(30):
        result = random_result(np.random.default_rng(seed), (18, 24), count=seed % 7)
        record = make_record(result, key=f"ä/{seed}.png", sha256=DIGEST, orientation=1)
        data = dump_record(record)
        assert parse_record(data) == record
        assert dump_record(parse_record(data)) == data
        scores = [annotation["score"] for annotation in record["annotations"]]
        assert scores == sorted(scores, reverse=True)
        assert [annotation["id"] for annotation in record["annotations"]] == list(range(1, seed % 7 + 1))
        for annotation in record["annotations"]:
            code = {**annotation["segmentation"], "counts": annotation["segmentation"]["counts"].encode()}
            assert annotation["area"] == coco_mask.area(code)
            assert annotation["bbox"] == coco_mask.toBbox(code).tolist()


def test_equal_scores_keep_the_order_of_the_result() -> None:
    result = random_result(np.random.default_rng(3), (18, 24), count=6)
    result.confidence[:] = 0.5
    record = make_record(result, key="a", sha256=DIGEST, orientation=1)
    codes = [annotation["segmentation"]["counts"] for annotation in record["annotations"]]
    assert codes == [mask["counts"] for mask in result.masks]


@pytest.mark.parametrize("field", ["confidence", "predicted_iou", "stability_score", "boxes", "points"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_by_name(field: str, value: float) -> None:
    result = two_masks()
    getattr(result, field)[1] = value
    with pytest.raises(ImageError) as caught:
        make_record(result, key="a", sha256=DIGEST, orientation=1)
    assert caught.value.reason == "non-finite"


def test_a_minus_zero_leaves_no_trace() -> None:
    result = two_masks()
    result.points[:] = -0.001
    result.stability_score[:] = -0.0
    assert b"-0.0" not in dump_record(make_record(result, key="a", sha256=DIGEST, orientation=1))


def test_a_record_cut_anywhere_is_no_record() -> None:
    data = dump_record(small_record())
    for length in range(len(data)):
        with pytest.raises(InputError):
            parse_record(data[:length])
        with pytest.raises(InputError):
            parse_record(data[:length] + bytes(len(data) - length))


def changed(path: str, value: object) -> bytes:
    """The small record with one value replaced; ``...`` deletes the key."""
    record = copy.deepcopy(small_record())
    place: Any = record
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("image", ...),
        ("image", []),
        ("extra", 1),
        ("image.extra", 1),
        ("image.width", 0),
        ("image.width", 7),
        ("image.height", True),
        ("image.height", 4.0),
        ("image.sha256", "ab"),
        ("image.sha256", DIGEST.upper()),
        ("image.orientation", 9),
        ("image.file_name", None),
        ("annotations", {}),
        ("annotations.0", None),
        ("annotations.0.id", 2),
        ("annotations.0.class", ...),
        ("annotations.0.class", 3),
        ("annotations.0.area", 5),
        ("annotations.0.bbox", [1, 2, 3]),
        ("annotations.0.bbox.0", "1"),
        ("annotations.0.crop_box", None),
        ("annotations.0.point_coords", [1, 2]),
        ("annotations.0.score", "high"),
        ("annotations.0.score", float("nan")),
        pytest.param("annotations.0.confidence", 10**400, id="huge"),
        ("annotations.0.category_id", 0),
        ("annotations.0.runner_up", [["cat"]]),
        ("annotations.1.runner_up.0.1", None),
        ("annotations.0.segmentation", "text"),
        ("annotations.0.segmentation.size", [6, 4]),
        ("annotations.0.segmentation.counts", "0"),
        ("annotations.0.segmentation.counts", "é"),
    ],
)
def test_what_contradicts_the_format_is_refused(path: str, value: object) -> None:
    with pytest.raises(InputError):
        parse_record(changed(path, value))


@pytest.mark.parametrize(
    "data", [b"", b"}\n", b"[]\n", b"null\n", b'{"schema":1}\n', b"\xff}\n", b'{"a":' * 9999 + b"}\n"]
)
def test_what_is_no_record_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_record(data)


def test_the_document_shows_a_real_record() -> None:
    example = DOCUMENT.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    record = json.loads(example)
    assert parse_record(dump_record(record)) == record
    words = DOCUMENT.read_text(encoding="utf-8")
    keys = [*record, *record["image"], *record["annotations"][0]]
    assert [key for key in keys if f"`{key}`" not in words] == []


def write(run: Path, key: str) -> None:
    path = run / record_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**small_record(), "annotations": []}
    path.write_bytes(dump_record({**record, "image": {**record["image"], "file_name": key}}))


def test_records_are_listed_by_the_bytes_of_their_keys(tmp_path: Path) -> None:
    keys = ["a.jpg", "a.jpg.b.jpg", "a/b.jpg", "a/B.jpg", "a-b/c.jpg", "a.jpg/x.jpg", "z.jpg", "ä.jpg", "Z.jpg", "a0/b"]
    for key in keys:
        write(tmp_path, key)
    (tmp_path / "records/.gransam-0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "records/notes.txt").write_bytes(b"mine")
    assert [record["image"]["file_name"] for record in iter_records(tmp_path)] == sorted(keys, key=str.encode)


def test_records_are_read_one_at_a_time(tmp_path: Path) -> None:
    for key in ("a", "b"):
        write(tmp_path, key)
    records = iter_records(tmp_path)
    (tmp_path / "records/b.json").write_bytes(b"torn")
    assert next(records)["image"]["file_name"] == "a"
    with pytest.raises(InputError, match=r"b\.json") as caught:
        next(records)
    assert "annotate" in caught.value.do


def test_listing_checks_everything_but_the_insides_of_masks(tmp_path: Path) -> None:
    path = tmp_path / "records/a.json"
    path.parent.mkdir()
    path.write_bytes(changed("annotations.0.segmentation.counts", "0"))
    assert len(list(iter_records(tmp_path))) == 1
    path.write_bytes(changed("annotations.0.area", 0))
    with pytest.raises(InputError):
        list(iter_records(tmp_path))


def test_a_folder_without_records_has_none(tmp_path: Path) -> None:
    assert list(iter_records(tmp_path)) == []
