"""Pasted objects: what is seen of them is what their map says, and what they hide is no longer said of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from discs import draw_discs, write_data
from PIL import Image

from gransam_sdk.errors import InputError
from gransam_sdk.training.nano.batches import Batch, Batches
from gransam_sdk.training.nano.clicks import SeenMap, border_distance
from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import load_data
from gransam_sdk.training.nano.paste import LEAST_PIXELS, SIZES, Cutout, draw_cutout, paste

SIDE = 160
GREEN, PINK = (20, 220, 40), (200, 0, 220)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def triangle(size: int = 40, color: tuple[int, int, int] = GREEN) -> Cutout:
    """Its lower left half is the object; the other half is white, and must never be seen."""
    region = np.tril(np.ones((size, size), bool))
    return Cutout(pixels=np.where(region[..., None], color, 255).astype(np.uint8), region=region)


def test_a_cutout_is_a_region_and_its_box() -> None:
    pixels, numbers = draw_discs(3)
    numbers = numbers.astype(np.int64)
    seen = set()
    for seed in range(20):
        cutout = draw_cutout(generator(seed), pixels, numbers)
        assert cutout is not None and cutout.pixels.shape == (*cutout.region.shape, 3)
        for axis in (0, 1):
            assert cutout.region.any(axis=axis)[[0, -1]].all(), "the box is tight"
        color = np.median(cutout.pixels[cutout.region], axis=0)
        value = 1 if color[0] > color[2] else 300
        assert cutout.region.sum() == (numbers == value).sum()
        seen.add(value)
    assert seen == set(np.unique(numbers)) - {0}, "every region has its turn"


def test_crumbs_are_not_cut_out() -> None:
    numbers = np.zeros((30, 30), np.int64)
    pixels = np.zeros((30, 30, 3), np.uint8)
    assert draw_cutout(generator(), pixels, numbers) is None
    numbers.flat[: LEAST_PIXELS - 1] = 1
    assert draw_cutout(generator(), pixels, numbers) is None
    numbers.flat[LEAST_PIXELS - 1] = 1
    assert draw_cutout(generator(), pixels, numbers) is not None


def test_maps_say_what_is_seen() -> None:
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    below = SeenMap(numbers=np.ones((SIDE, SIDE), np.int64), whole=False, labelled=True)
    sizes = []
    for seed in range(60):
        seen, maps = paste(generator(seed), pixels, [below], [triangle(), triangle(color=PINK)])
        first, last = maps
        assert (first.whole, first.labelled) == (False, True) and last.whole and last.labelled
        assert np.array_equal(first.numbers == 0, last.numbers > 0), "what is hidden is no longer said"
        numbers = last.numbers
        for value, color in ((1, GREEN), (2, PINK)):
            deep = border_distance(numbers == value) > 3
            assert np.abs(seen[deep].astype(int) - color).max(initial=0) <= 1
            away = border_distance(numbers != value) > 3
            assert (np.abs(seen[away].astype(int) - color).max(axis=1) > 100).all()
        assert seen.max() <= 221, "nothing around the object comes along"
        rows = np.flatnonzero((last.numbers == 2).any(axis=1))
        sizes.append((rows[-1] - rows[0] + 1) / SIDE)
    assert min(sizes) < 0.12 and max(sizes) > 0.4 and max(sizes) <= SIZES[1] + 0.02


def test_small_cutouts_are_not_blown_up() -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    areas = []
    for seed in range(40):
        numbers = paste(generator(seed), pixels, [], [triangle(12)])[1][0].numbers
        areas.append((numbers > 0).sum())
    assert max(areas) <= 2 * 2 * 12 * 12 * 0.6


def test_the_photo_itself_is_left_alone() -> None:
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    one = paste(generator(), pixels, [], [triangle()])
    two = paste(generator(), pixels, [], [triangle()])
    assert (pixels == 128).all() and np.array_equal(one[0], two[0])
    assert np.array_equal(one[1][0].numbers, two[1][0].numbers)


def test_batches_paste_and_click_what_they_pasted(tmp_path: Path) -> None:
    config = SegmenterConfig(sides=(128,), photos=16, clicks=4, held_out=0.0, mosaic=0.0, paste=1.0)
    photos = load_data(write_data(tmp_path / "data"), config).photos
    plain = Batches(photos, replace(config, paste=0.0), stream=2, clicks=True)[0]
    pasted = Batches(photos, config, stream=2, clicks=True)[0]
    assert isinstance(plain, Batch) and isinstance(pasted, Batch) and pasted.whole.all()
    few, many = (len({m.numpy().tobytes() for masks in b.masks for m in masks}) for b in (plain, pasted))
    assert many > few, "there is more to click on"


def test_without_whole_objects_nothing_is_pasted(tmp_path: Path) -> None:
    config = SegmenterConfig(sides=(64,), photos=4, held_out=0.0, mosaic=0.0, paste=1.0)
    photos = load_data(write_data(tmp_path / "data"), config).photos
    parts = [replace(p, maps=tuple(replace(item, whole=False) for item in p.maps)) for p in photos]
    batch = Batches(parts, config, stream=2, clicks=True)[0]
    assert isinstance(batch, Batch) and not batch.whole.any()


def test_a_map_of_another_size_is_named(tmp_path: Path) -> None:
    config = SegmenterConfig(sides=(64,), photos=4, held_out=0.0, mosaic=0.0, paste=1.0)
    first, second = load_data(write_data(tmp_path / "data", 2), config).photos
    with Image.open(tmp_path / "data/masks/00001.png") as image:
        image.resize((80, 61)).save(tmp_path / "wrong.png")
    wrong = replace(
        second, maps=(replace(second.maps[0], name="wrong.png", png=(tmp_path / "wrong.png").read_bytes()),)
    )
    batches = Batches([first], config, stream=2, clicks=True)
    batches.objects = [wrong]
    batches.upto_objects = np.ones(1, dtype=np.float32)
    answer = batches[0]
    assert isinstance(answer, InputError) and answer.what == "wrong.png" and "80 x 61" in answer.found


def test_a_share_is_a_share() -> None:
    with pytest.raises(InputError, match="paste"):
        SegmenterConfig(paste=1.5)
