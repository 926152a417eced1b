"""Training data of the segmenter: what is read, what is held out, and what a broken file is called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import SIZE, draw_discs, write_data
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import LONGEST, UNLABELLED, is_held, load_data

CONFIG = SegmenterConfig(held_out=0.3)


def test_maps_are_read_as_they_were_written(tmp_path: Path) -> None:
    data = load_data(write_data(tmp_path / "data"), replace(CONFIG, held_out=0.0))
    assert len(data.photos) == 12 and not data.held and data.sources() == {"voc2012_train_aug": 12}
    for number, photo in enumerate(data.photos):
        pixels, regions = draw_discs(number)
        assert np.array_equal(photo.maps[0].regions(), regions)
        assert np.abs(photo.pixels().astype(int) - pixels).mean() < 6
        assert photo.maps[0].whole


def test_kinds_and_parts_of_one(tmp_path: Path) -> None:
    fashion = load_data(write_data(tmp_path / "a", kind="parts", source="ccp"), CONFIG).photos[0]
    assert [item.whole for item in fashion.maps] == [False, True]
    assert np.array_equal(fashion.maps[1].regions(), draw_discs(0)[1] > 0)
    for kind, whole in (("parts", False), ("panoptic", False), ("instances", True)):
        data = load_data(write_data(tmp_path / kind, kind=kind, source="other"), CONFIG)
        assert [item.whole for item in data.photos[0].maps] == [whole]
        assert not data.held, "only of some sources"


def test_held_out_photos_stay_held_out(tmp_path: Path) -> None:
    few = load_data(write_data(tmp_path / "few", 12), CONFIG)
    many = load_data(write_data(tmp_path / "many", 40), CONFIG)
    first = [Path(photo.name).name for photo in many.held if int(Path(photo.name).stem) < 12]
    assert [Path(photo.name).name for photo in few.held] == first and first
    assert len(few.held) + len(few.photos) == 12
    assert not {photo.data for photo in many.held} & {photo.data for photo in many.photos}
    share = np.mean([is_held(f"{number}", 0.04) for number in range(20000)])
    assert abs(share - 0.04) < 0.005


def test_digest_covers_photos_and_maps(tmp_path: Path) -> None:
    data = load_data(write_data(tmp_path / "data"), CONFIG)
    digest = data.digest()
    assert load_data(tmp_path / "data", CONFIG).digest() == digest
    first, *rest = data.photos
    changed = replace(first, maps=(replace(first.maps[0], whole=False),))
    others = [(replace(first, data=first.data + b"x"), *rest), (changed, *rest), tuple(rest), tuple(data.photos[::-1])]
    assert digest not in {replace(data, photos=photos).digest() for photos in others}


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "{}", '{"file": 1, "source": "a", "original": "b", "kind": "objects"}'],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    index = write_data(tmp_path / "data") / "index.jsonl"
    index.write_text(index.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"index\.jsonl line 13"):
        load_data(tmp_path / "data", CONFIG)


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    index = write_data(tmp_path / "data") / "index.jsonl"
    row = json.loads(index.read_text().splitlines()[0]) | {"kind": "boxes"}
    index.write_text(json.dumps(row))
    with pytest.raises(InputError, match="boxes"):
        load_data(tmp_path / "data", CONFIG)


@pytest.mark.parametrize("name", ["images/00003.jpg", "masks/00003.png"])
def test_a_missing_file_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    (write_data(tmp_path / "data") / name).unlink()
    with pytest.raises(InputError, match=rf"(?s){name}.*line 4.*missing"):
        load_data(tmp_path / "data", CONFIG)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.jsonl"):
        load_data(tmp_path, CONFIG)


def test_broken_bytes_are_named(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    (root / "images/00000.jpg").write_bytes((root / "images/00000.jpg").read_bytes()[:600])
    (root / "masks/00001.png").write_bytes(b"no picture")
    Image.new("RGB", (80, 60)).save(root / "masks/00002.png")
    photos = load_data(root, replace(CONFIG, held_out=0.0)).photos
    for broken in (photos[0].pixels, photos[1].maps[0].regions, photos[2].maps[0].regions):
        with pytest.raises(InputError, match=r"0000[012]\.(jpg|png)"):
            broken()


def test_unlabelled_photos(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (1200, 600), (200, 100, 50)).save(more / "large.jpg")
    Image.fromarray(draw_discs(0)[0]).save(more / "small.png")
    (more / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    said: list[tuple[int, int]] = []
    data = load_data(write_data(tmp_path / "data"), CONFIG, unlabelled=[more], progress=lambda *done: said.append(done))
    large, small = (photo for photo in data.photos if photo.source == UNLABELLED)
    assert large.pixels().shape == (LONGEST // 2, LONGEST, 3) and not large.maps
    assert small.data == (more / "small.png").read_bytes() and small.pixels().shape[:2] == SIZE
    assert [name for name, _ in data.skipped] == ["torn.jpg"] and said[-1] == (3, 3)


@pytest.mark.shared
def test_the_real_index(shared: Path) -> None:
    data = load_data(shared / "data" / "nano_train", SegmenterConfig())
    assert len(data.photos) + len(data.held) > 4000 and 80 <= len(data.held) <= 160
    assert {photo.source for photo in data.held} == {"voc2012_train_aug", "coco_train2017"}
    for photo in data.photos[::200]:
        assert photo.maps[0].regions().shape == photo.pixels().shape[:2]
