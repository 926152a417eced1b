"""Depths against a search over all pixels outside, and where the click then goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gransam_sdk.errors import InputError
from gransam_sdk.evaluation.class_names import COCO_VALUES
from gransam_sdk.evaluation.clicks import click_point, squared_depth
from gransam_sdk.evaluation.coco_truth import read_instances
from gransam_sdk.rle import rle_area, rle_box, rle_decode


def searched(mask: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest pixel outside, by looking at each of them."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    depth = np.zeros(mask.shape, dtype=np.int64)
    for y, x in np.argwhere(mask):
        depth[y, x] = ((outside - (y, x)) ** 2).sum(axis=1).min()
    return depth


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95, 1.0])
def test_depths_are_those_of_a_search(share: float) -> None:
    random = np.random.default_rng(round(100 * share))
    for _ in range(60):
        mask = random.random(random.integers(1, 16, size=2)) < share
        np.testing.assert_array_equal(squared_depth(mask), searched(mask))


@pytest.mark.shared
def test_depths_of_real_instances(shared: Path) -> None:
    photos = read_instances(shared / "data" / "coco_dev" / "instances.json", COCO_VALUES)
    masks = [region.mask for photo in photos[:12] for region in photo.regions if rle_area(region.mask) < 4000]
    assert len(masks) > 20
    for mask in masks:
        x0, y0, x1, y1 = rle_box(mask)
        whole = rle_decode(mask)
        wanted = searched(whole[y0:y1, x0:x1])  # beyond its box a mask has no pixel
        np.testing.assert_array_equal(squared_depth(whole)[y0:y1, x0:x1], wanted)
        x, y = click_point(whole)
        assert wanted[int(y) - y0, int(x) - x0] == wanted.max()


def test_the_click_is_a_pixels_centre_in_the_middle() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:31, 20:41] = True
    assert click_point(mask) == (30.5, 20.5)
    mask[10:31, 40:60] = True  # longer: many are equally deep, the leftmost is taken
    assert click_point(mask) == (30.5, 20.5)
    ring = np.hypot(*(np.mgrid[:41, :41] - 20.0)) < 18
    ring &= ~(np.hypot(*(np.mgrid[:41, :41] - 20.0)) < 6)
    x, y = click_point(ring)
    assert 11 <= np.hypot(x - 20.5, y - 20.5) <= 13, "between the rims, not in the hole"


def test_equally_deep_pixels_and_the_photos_edge() -> None:
    assert click_point(np.ones((2, 4), dtype=bool)) == (0.5, 0.5)
    mask = np.zeros((5, 5), dtype=bool)
    mask[3, 0] = mask[1, 4] = mask[1, 2] = True
    assert click_point(mask) == (2.5, 1.5)
    assert squared_depth(np.ones((3, 5), dtype=bool)).tolist() == [[1] * 5, [1, 4, 4, 4, 1], [1] * 5]


def test_sides_whose_squares_do_not_fit_into_32_bits() -> None:
    side = 100_000
    depth = squared_depth(np.ones((5, side), dtype=bool))
    assert depth[2, :4].tolist() == [1, 4, 9, 9] and depth[2, side // 2] == 9
    column = np.zeros((side, 3), dtype=bool)
    column[:, 1] = True
    assert squared_depth(column)[side // 2].tolist() == [0, 1, 0], "the way out up or down is 50,000 pixels long"


def test_what_cannot_be_clicked_on_is_refused() -> None:
    with pytest.raises(InputError, match="a pixel or more"):
        click_point(np.zeros((3, 3), dtype=bool))
    assert not squared_depth(np.zeros((0, 7), dtype=bool)).size
    with pytest.raises(InputError, match="bool"):
        squared_depth(np.ones((3, 3)))
    with pytest.raises(InputError, match="bool"):
        squared_depth(np.ones((3, 3, 3), dtype=bool))
