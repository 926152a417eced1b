"""Label maps that nobody drew are made once a photo, kept whole or not at all, and read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import write_data

from gransam_sdk.errors import InputError
from gransam_sdk.shapes import AnyArray, Pixels
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import TrainingData, load_data
from gransam_sdk.training.nano.regions import RegionSource, with_regions


class Stripes:
    """Two maps a photo: columns, and rows numbered from 65,000; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: Pixels) -> list[AnyArray]:
        self.calls += 1
        rows, columns = np.indices(pixels.shape[:2]).astype(np.uint16)
        return [columns // 8, rows // 8 + np.uint16(65000)]


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return load_data(write_data(tmp_path / "data", 5), SegmenterConfig(held_out=0.0))


def source(folder: Path, recipe: str = "stripes 1") -> RegionSource:
    return RegionSource(maps=Stripes(), recipe=recipe, folder=folder / "cache" / "regions")


def calls(of: RegionSource) -> int:
    assert isinstance(of.maps, Stripes)
    return of.maps.calls


def beside_by_hand(found: AnyArray, drawn: AnyArray) -> AnyArray:
    """Without the regions that share more than 2 % with one that was drawn."""
    out = found.copy()
    for value in np.unique(found[found > 0]):
        region = found == value
        masks = [drawn == other for other in np.unique(drawn[drawn > 0])]
        if max(((region & mask).sum() / (region | mask).sum() for mask in masks), default=0) > 0.02:
            out[region] = 0
    return out


def test_what_nobody_drew_on_stays_whole(tmp_path: Path, data: TrainingData) -> None:
    bare = replace(data, photos=tuple(replace(photo, maps=()) for photo in data.photos))
    for photo in with_regions(bare, source(tmp_path)).photos:
        expected = Stripes()(photo.pixels())
        assert all(np.array_equal(item.regions(), each) for item, each in zip(photo.maps, expected, strict=True))


def test_made_once_and_read_as_made(tmp_path: Path, data: TrainingData) -> None:
    first, again = source(tmp_path), source(tmp_path)
    said: list[tuple[int, int]] = []
    made = with_regions(data, first, progress=lambda *done: said.append(done))
    assert calls(first) == 5 and said[-1] == (5, 5)
    read = with_regions(data, again)
    assert calls(again) == 0 and read.digest() == made.digest() != data.digest()
    for photo in read.photos:
        drawn, columns, rows = photo.maps
        assert drawn.labelled and not columns.labelled and not rows.whole
        for found, every in zip((columns.regions(), rows.regions()), Stripes()(photo.pixels()), strict=True):
            assert np.array_equal(found, beside_by_hand(every, drawn.regions())) and 0 < (found > 0).sum() < found.size


def test_another_recipe_or_photo_is_made_anew(tmp_path: Path, data: TrainingData) -> None:
    with_regions(data, source(tmp_path))
    other = source(tmp_path, "stripes 2")
    with_regions(data, other)
    assert calls(other) == 5
    changed = replace(data, photos=(data.photos[1], *data.photos[1:]))
    same = source(tmp_path)
    with_regions(changed, same)
    assert calls(same) == 0, "known by content: the same photo twice is no new one"


def test_half_of_the_maps_is_none(tmp_path: Path, data: TrainingData) -> None:
    with_regions(data, source(tmp_path))
    victim = sorted((tmp_path / "cache" / "regions").glob("*-2of2.png"))[0]
    victim.unlink()
    again = source(tmp_path)
    with_regions(data, again)
    assert calls(again) == 1 and victim.exists()


@pytest.mark.parametrize(
    "maps", [[], [np.zeros((60, 79), np.uint16)], [np.zeros((60, 80), np.int64)]], ids=["none", "shape", "dtype"]
)
def test_wrong_maps_are_refused(tmp_path: Path, data: TrainingData, maps: list[AnyArray]) -> None:
    wrong = replace(source(tmp_path), maps=lambda pixels: maps)
    with pytest.raises(InputError, match="region map"):
        with_regions(data, wrong)
    assert not list((tmp_path / "cache" / "regions").glob("*.png"))
