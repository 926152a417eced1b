"""What divide and conquer finds is what a photo shows, and stays the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from discs import draw_discs, random_teacher, write_data

from gransam_sdk.training.nano.config import SegmenterConfig
from gransam_sdk.training.nano.data import load_data
from gransam_sdk.training.nano.divided import divided
from gransam_sdk.training.nano.regions import with_regions


def test_discs_are_found_without_their_labels(tmp_path: Path) -> None:
    photos = load_data(write_data(tmp_path, 4), SegmenterConfig(held_out=0.0)).photos
    source = divided(random_teacher(), photos, tmp_path / "cache")
    found = 0
    for number in range(4):
        pixels, truth = draw_discs(number)
        maps = source.maps(pixels)
        assert all(numbers.dtype == np.uint16 and numbers.shape == truth.shape for numbers in maps)
        regions = [numbers == value for numbers in maps for value in np.unique(numbers[numbers > 0])]
        for disc in (truth == 1, truth == 300):
            found += max((disc & region).sum() / (disc | region).sum() for region in regions) > 0.6
    assert found >= 6, "of 8 discs"


def test_a_recipe_names_thresholds_and_teacher(tmp_path: Path) -> None:
    photos = load_data(write_data(tmp_path, 4), SegmenterConfig(held_out=0.0)).photos
    teacher = random_teacher()
    recipe = divided(teacher, photos, tmp_path).recipe
    assert divided(teacher, photos, tmp_path).recipe == recipe
    teacher.stem.weight.data += 1.0
    assert divided(teacher, photos, tmp_path).recipe != recipe


def test_they_lie_behind_what_was_drawn(tmp_path: Path) -> None:
    data = load_data(write_data(tmp_path / "data", 3), SegmenterConfig(held_out=0.0))
    both = with_regions(data, divided(random_teacher(), data.photos, tmp_path / "cache"))
    for photo in both.photos:
        drawn, *others = photo.maps
        assert drawn.labelled and others and not any(item.labelled or item.whole for item in others)
